"""Maps that all tokens share as one for each modality, so that each can take up a norm's statistics of its modality.

Letters: M modalities, inserted tokens counted as one more.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from unisono.compress.branch import Branch, Bundle, Changes
from unisono.nn.ffn import FeedForward
from unisono.nn.mixer import Mixer
from unisono.nn.part import Part
from unisono.nn.share import Linear, SharePerModality
from unisono.nn.trunk import Trunk


def copy_for_modalities(trunk: Trunk, planned: Sequence[tuple[Branch, Changes | str]]) -> int:
    """Copy the maps that read a norm of statistics by modality, in place.

    Args:
        trunk: of the branches.
        planned: each branch, and what its norm does.

    Returns:
        How many parts were copied.
    """
    feeds: dict[int, set[object]] = {}
    for b, changes in planned:
        name = id(b) if isinstance(changes, str) else tuple(name for name, _ in changes.each)
        for linear in b.maps:
            feeds.setdefault(id(linear), set()).add(name)
    made: dict[int, Part] = {}
    for b, changes in planned:
        if _wants(b, changes, trunk.frame.num_modalities) and all(len(feeds[id(linear)]) == 1 for linear in b.maps):
            _copy(b, made, trunk)
    return len(made)


def _wants(b: Branch, changes: Changes | str, sets: int) -> bool:
    """Whether every map is shared by all modalities or by none, and some by all."""
    if isinstance(changes, str) or changes.key != ("modality", sets) or not b.reads:
        return False
    keys = {maps.key for maps in b.reads}
    return None in keys and keys <= {None, changes.key}


def _copy(b: Branch, made: dict[int, Part], trunk: Trunk) -> None:
    """Put copies in the place of what reads: a mixer's projections, or a whole feed-forward."""

    def copies(part: Part) -> Part:
        if id(part) not in made:
            made[id(part)] = SharePerModality().wrap(lambda: copy.deepcopy(part), trunk.frame)
        return made[id(part)]

    layer, reading = b.layer, {id(p) for maps in b.reads or () if maps.key is None for p in maps.parts}
    if b.mixes:
        assert isinstance(layer.mixer, Mixer)
        for name, part in list(layer.mixer.named_children()):
            if id(part) in reading and isinstance(part, Linear):
                setattr(layer.mixer, name, copies(part))
    bundle = Bundle.of(layer.ffn, FeedForward)
    if bundle is not None and bundle.key is None and reading & {id(m) for m in _modules(layer.ffn)}:
        layer.ffn = copies(layer.ffn)


def _modules(part: nn.Module) -> list[nn.Module]:
    return list(part.modules())
