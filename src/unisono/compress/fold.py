"""Folds: a trunk that gives the same answers with less work.

Each fold is decided by what a trunk is made of, never by the values of its weights, so that the same words make the same trunk again
around saved weights. What is kept are the answers of the reads; the states of single tokens change where a fold takes the mean off them.

Letters: D width, S sets of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unisono.compress.branch import Branch, branches, kind_of, norms_of, walk
from unisono.compress.stream import centre_stream
from unisono.core.errors import ConfigError, nearest
from unisono.nn.convert import Affine, Standard, affine_of, scaled_before, scaled_behind, write_affine
from unisono.nn.layer import Layer
from unisono.nn.norm import NoNorm, Norm
from unisono.nn.part import Part
from unisono.nn.residual import Parallel, Post, Pre, Sandwich
from unisono.nn.share import Linear, PerSet
from unisono.nn.trunk import Trunk

Change = tuple[Tensor | None, Tensor | None]
#: Residual rules that scale what the last map of a branch gives.
_SCALED = (Pre, Post, Parallel)
_UNSEEN = "a token that sees nothing gets the norm's shift, which no map would give it"


@dataclass(frozen=True)
class Note:
    """What a fold did at a place, or why it did nothing there.

    Attributes:
        fold: its word.
        place: the part of the trunk.
        done: whether the trunk was changed.
        what: in words.
    """

    fold: str
    place: str
    done: bool
    what: str


def fold_branches(trunk: Trunk) -> list[Note]:
    """Sums and chains of linear maps within a feed-forward become one map (arXiv:2101.03697, arXiv:2103.13425)."""
    notes: list[Note] = []
    made: dict[int, Part | None] = {}
    for name, layer in _layers(trunk):
        copies = list(layer.ffn.parts) if isinstance(layer.ffn, PerSet) else [layer.ffn]
        for part in copies:
            if id(part) not in made:
                made[id(part)] = _folded(part, f"{name}.ffn", notes)
        new = [made[id(part)] or part for part in copies]
        if isinstance(layer.ffn, PerSet):
            layer.ffn.parts = nn.ModuleList(new)
        else:
            (layer.ffn,) = new  # type: ignore[assignment]
    return notes


def _folded(part: nn.Module, place: str, notes: list[Note]) -> Part | None:
    new = part.folded() if isinstance(part, Part) else None
    if new is None:
        return None
    before, after = (sum(p.numel() for p in m.parameters()) for m in (part, new))
    if after >= before:
        notes.append(Note("branches", place, False, f"one map would cost more than it saves: {after:,} weights in place of {before:,}"))
        return None
    notes.append(Note("branches", place, True, f"{kind_of(part)} became {kind_of(new)}: {before:,} weights are {after:,}"))
    return new


def fold_scale(trunk: Trunk) -> list[Note]:
    """Fixed factors of residual branches, learned ones by channel among them, go into the last map (arXiv:2103.17239)."""
    everything = branches(trunk)
    found = [b for b in everything if type(b.rule) in _SCALED and (b.rule.scale is not None or b.rule.factor != 1.0)]
    uses: dict[int, set[tuple[object, ...]]] = {}
    for b in everything:
        factor = (b.rule.factor, None if b.rule.scale is None else id(b.rule.scale), type(b.rule) in _SCALED)
        for linear in _writers(b):
            uses.setdefault(id(linear), set()).add(factor)
    notes: list[Note] = []
    done: set[int] = set()
    for b in found:
        if b.writes is None:
            notes.append(Note("scale", b.place, False, "its last map is not known"))
            continue
        if any(len(uses[id(linear)]) > 1 for linear in _writers(b)):
            notes.append(Note("scale", b.place, False, "several layers share the map and have factors of their own"))
            continue
        scale = b.rule.factor if b.rule.scale is None else b.rule.factor * b.rule.scale.detach()
        for linear in _writers(b):
            if id(linear) not in done:
                write_affine(linear, scaled_behind(affine_of(linear), scale, None))
        done.update(id(linear) for linear in _writers(b))
        notes.append(Note("scale", b.place, True, "the branch's factor went into its last map"))
    for b in found:
        if b.writes is not None and all(id(linear) in done for linear in _writers(b)):
            b.rule.scale, b.rule.factor = None, 1.0
    return notes


def _writers(b: Branch) -> list[Linear]:
    return [part for bundle in b.writes or () for part in bundle.parts if isinstance(part, Linear)]


def fold_fixed(trunk: Trunk) -> list[Note]:
    """Norms that are a fixed scale and shift in evaluation go into the maps that read them, or behind a branch into its last map."""

    def change(norm: Norm) -> Change | None:
        found = norm.fixed()
        return None if found is None else (found.scale, found.shift)

    def left(norms: Sequence[Norm]) -> list[Norm]:
        return [NoNorm() for _ in norms]

    return _before("fixed", trunk, change, left) + _behind(trunk, change)


def fold_affine(trunk: Trunk) -> list[Note]:
    """Scale and shift of layer and RMS norms go into the maps that read them."""

    def change(norm: Norm) -> Change | None:
        found = norm.parted()
        return None if found is None else (found.scale, found.shift)

    def left(norms: Sequence[Norm]) -> list[Norm]:
        made: list[Norm] = []
        for norm in norms:
            found = norm.parted()
            assert found is not None
            made.append(Standard(width=len(found.scale), eps=found.eps, centre=found.centre).to(found.scale))
        return made

    return _before("affine", trunk, change, left)


def _before(word: str, trunk: Trunk, change: Callable[[Norm], Change | None], left: Callable[[Sequence[Norm]], list[Norm]]) -> list[Note]:
    """Fold norms into the maps behind them."""
    everything = branches(trunk)
    planned = [(b, *_pairs(b, change)) for b in everything]
    feeds: dict[int, set[int]] = {}
    for b, pairs, _ in planned:
        known = {id(linear): id(norm) for norm, linear in pairs or ()}
        for linear in b.maps:
            feeds.setdefault(id(linear), set()).add(known.get(id(linear), -id(b)))
    notes: list[Note] = []
    done: set[int] = set()
    for b, pairs, reason in planned:
        if pairs is None:
            notes += [Note(word, b.place, False, reason)] if reason else []
            continue
        if not pairs:
            continue
        if any(len(feeds[id(linear)]) > 1 for _, linear in pairs):
            notes.append(Note(word, b.place, False, "layers share its first map, and each has a norm of its own"))
            continue
        for norm, linear in pairs:
            if id(linear) not in done:
                scale, shift = change(norm) or (None, None)
                write_affine(linear, _detached(scaled_before(affine_of(linear), scale, shift)))
                done.add(id(linear))
        old = b.norms[0]
        b.norms[0] = _rest(old, left)
        notes.append(Note(word, b.place, True, f"{kind_of(old)} went into {len(pairs)} linear map{'s' * (len(pairs) > 1)}"))
    return notes


def _pairs(b: Branch, change: Callable[[Norm], Change | None]) -> tuple[list[tuple[Norm, Linear]] | None, str]:
    """Each norm with each map that reads it, or why there are none; an empty reason where there is nothing to fold."""
    norm = b.norm
    bundle = None if norm is None else norms_of(norm)
    if bundle is None:
        return None, "" if norm is None else f"{kind_of(norm)} is shared in a way of its own"
    members = [n for n in bundle.parts if isinstance(n, Norm)]
    if any(change(n) is None for n in members):
        return None, ""
    if b.reads is None:
        return None, "which maps read the norm is not known"
    pairs: list[tuple[Norm, Linear]] = []
    for maps in b.reads:
        if bundle.key is not None and maps.key is None:
            return None, f"each of {len(members)} norms would need a copy of the map behind them, which costs more than it saves"
        if bundle.key is not None and bundle.key != maps.key:
            return None, "norms and maps are shared over different sets of tokens"
        chosen = members if bundle.key is not None else members * len(maps.parts)
        pairs += [(n, p) for n, p in zip(chosen, maps.parts, strict=True) if isinstance(p, Linear)]
    return pairs, ""


def _rest(old: nn.Module, left: Callable[[Sequence[Norm]], list[Norm]]) -> Part:
    """What remains of a norm: one for all sets where the sets no longer differ."""
    bundle = norms_of(old)
    assert bundle is not None
    made = left([n for n in bundle.parts if isinstance(n, Norm)])
    if not isinstance(old, PerSet) or len({_sort(n) for n in made}) == 1:
        return made[0]
    return PerSet(made, old.by, old.key)


def _sort(norm: Norm) -> tuple[object, ...]:
    return (type(norm), norm.eps, norm.centre) if isinstance(norm, Standard) else (type(norm),)


def _detached(affine: Affine) -> Affine:
    return Affine(affine.weight.detach(), None if affine.bias is None else affine.bias.detach())


def _behind(trunk: Trunk, change: Callable[[Norm], Change | None]) -> list[Note]:
    """Fold a fixed norm behind a branch into the map that gives the branch's result."""
    notes: list[Note] = []
    everything = branches(trunk)
    times = [id(linear) for b in everything for linear in _writers(b)]
    for b in everything:
        bundle = norms_of(b.norms[-1]) if isinstance(b.rule, Sandwich) and len(b.norms) else None
        members = [n for n in bundle.parts if isinstance(n, Norm)] if bundle is not None else []
        if bundle is None or any(change(n) is None for n in members):
            continue
        if b.mixes:
            notes.append(Note("fixed", f"{b.place} (behind)", False, _UNSEEN))
            continue
        if (
            b.writes is None
            or any(bundle.key not in {None, maps.key} for maps in b.writes)
            or any(times.count(id(m)) > 1 for m in _writers(b))
        ):
            notes.append(Note("fixed", f"{b.place} (behind)", False, "its last map is not known, or shared otherwise than the norm"))
            continue
        for maps in b.writes:
            chosen = members if bundle.key is not None else members * len(maps.parts)
            for norm, linear in zip(chosen, maps.parts, strict=True):
                scale, shift = change(norm) or (None, None)
                assert isinstance(linear, Linear)
                write_affine(linear, _detached(scaled_behind(affine_of(linear), scale, shift)))
        b.norms[-1] = NoNorm()
        notes.append(Note("fixed", f"{b.place} (behind)", True, "the norm went into the last map"))
    return notes


def _layers(trunk: Trunk) -> list[tuple[str, Layer]]:
    return [(name, step) for name, step in walk(trunk) if isinstance(step, Layer)]


def fold_rms(trunk: Trunk) -> list[Note]:
    """The stream is kept without its mean over channels, so that layer norms are RMS norms (arXiv:2305.14858)."""
    reason, count = centre_stream(trunk)
    if reason is not None:
        return [Note("rms", "trunk", False, reason)] if reason else []
    return [Note("rms", "trunk", True, f"{count} layer norm{'s' * (count != 1)} became RMS norms of a stream without mean")]


#: Word -> fold, in the order in which they are done.
FOLDS: dict[str, Callable[[Trunk], list[Note]]] = {
    "branches": fold_branches, "scale": fold_scale, "fixed": fold_fixed, "affine": fold_affine, "rms": fold_rms,
}  # fmt: skip


def ordered(words: Sequence[str], known: Sequence[str] = tuple(FOLDS)) -> tuple[str, ...]:
    """The words of folds, each once, in the order in which they are done.

    Raises:
        ConfigError: a word is unknown.
    """
    for word in words:
        if word not in known:
            raise ConfigError(f"no fold is called {word!r}{nearest(word, known)}")
    return tuple(word for word in known if word in words)


def fold(trunk: Trunk, word: str) -> list[Note]:
    """Do one fold, in place and in float64, the trunk being in evaluation.

    Raises:
        ConfigError: there is no such fold.
    """
    ordered([word])
    dtype = next((p.dtype for p in trunk.parameters()), torch.float32)
    trunk.eval().double()
    with torch.no_grad():
        notes = FOLDS[word](trunk)
    trunk.to(dtype)
    return notes
