"""Folds: a trunk that gives the same answers with less work.

Each fold is decided by what a trunk is made of, never by the values of its weights, so that the same words make the same trunk again
around saved weights. What is kept are the answers of the reads; the states of single tokens change where a fold takes the mean off them.

Letters: D width, S sets of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from unisono.compress.branch import Branch, Change, Changes, branches, kind_of, norms_of, speaks_for, walk
from unisono.compress.copies import copy_for_modalities
from unisono.compress.stream import centre_stream
from unisono.core.errors import ConfigError, nearest
from unisono.nn.affine import Affine, Standard, affine_of, parted, scaled_before, scaled_behind, write_affine
from unisono.nn.layer import Layer
from unisono.nn.norm import NoNorm, Norm
from unisono.nn.part import Part
from unisono.nn.residual import Parallel, Post, Pre, Sandwich
from unisono.nn.share import Linear, PerSet
from unisono.nn.trunk import Trunk

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
    new = part.folded() if isinstance(part, Part) and speaks_for(part, "folded") else None
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
    return _before("fixed", trunk, _fixed, _nothing) + _behind(trunk)


def fold_copies(trunk: Trunk) -> list[Note]:
    """Fixed norms with statistics by modality, before a map that all share: the map becomes one for each modality, and the norm goes."""
    copied = copy_for_modalities(trunk, [(b, _changes(b.norm, _fixed)) for b in branches(trunk)])
    return [replace(n, fold="copies") for n in _before("copies", trunk, _fixed, _nothing)] if copied else []


def _fixed(norm: Norm) -> Change | None:
    return norm.fixed()


def _nothing(norms: Sequence[Norm]) -> list[Norm]:
    return [NoNorm() for _ in norms]


def fold_affine(trunk: Trunk) -> list[Note]:
    """Scale and shift of layer and RMS norms go into the maps that read them."""

    def change(norm: Norm) -> Change | None:
        found = parted(norm)
        return None if found is None else (found.scale, found.shift)

    def left(norms: Sequence[Norm]) -> list[Norm]:
        made: list[Norm] = []
        for norm in norms:
            found = parted(norm)
            assert found is not None
            made.append(Standard(width=len(found.scale), eps=found.eps, centre=found.centre).to(found.scale))
        return made

    return _before("affine", trunk, change, left)


def _before(word: str, trunk: Trunk, change: Callable[[Norm], Change | None], left: Callable[[Sequence[Norm]], list[Norm]]) -> list[Note]:
    """Fold norms into the maps behind them."""
    planned = [(b, *_pairs(b, _changes(b.norm, change))) for b in branches(trunk)]
    feeds: dict[int, set[object]] = {}
    for b, pairs, _ in planned:
        known = {id(linear): name for name, _, linear in pairs or ()}
        for linear in b.maps:
            feeds.setdefault(id(linear), set()).add(known.get(id(linear), id(b)))
    notes: list[Note] = []
    done: set[int] = set()
    for b, pairs, reason in planned:
        if not pairs:
            notes += [Note(word, b.place, False, reason)] if reason else []
            continue
        if any(len(feeds[id(linear)]) > 1 for _, _, linear in pairs):
            notes.append(Note(word, b.place, False, "layers share its first map, and each has a norm of its own"))
            continue
        for _, (scale, shift), linear in pairs:
            if id(linear) not in done:
                write_affine(linear, _detached(scaled_before(affine_of(linear), scale, shift)))
                done.add(id(linear))
        old = b.norms[0]
        b.norms[0] = _rest(old, left)
        notes.append(Note(word, b.place, True, f"{kind_of(old)} went into {len(pairs)} linear map{'s' * (len(pairs) > 1)}"))
    return notes


def _changes(part: nn.Module | None, change: Callable[[Norm], Change | None]) -> Changes | str:
    """What a norm, or each of its copies, does to which tokens; or why that is not known, empty where there is nothing to fold."""
    bundle = None if part is None else norms_of(part)
    if bundle is None:
        return "" if part is None else f"{kind_of(part)} is shared in a way of its own"
    members = [(n, change(n)) for n in bundle.parts if isinstance(n, Norm)]
    found = [(n, c) for n, c in members if c is not None]
    if len(found) != len(members):
        return ""
    by_modality = {len(part) for _, c in found for part in c if part is not None and part.dim() == 2}
    if not by_modality:
        return Changes(bundle.key, [(id(n), c) for n, c in found])
    sets = by_modality.pop()
    if bundle.key not in {None, ("modality", sets)} or by_modality:
        return f"statistics are by modality, but norms by {bundle.key[0]}"
    rows = found if bundle.key is not None else found * sets
    return Changes(("modality", sets), [((id(n), m), _row(c, m)) for m, (n, c) in enumerate(rows)])


def _row(change: Change, m: int) -> Change:
    scale, shift = change
    return (None if scale is None else scale[m], None if shift is None else shift[m])


Pair = tuple[object, Change, Linear]


def _pairs(b: Branch, changes: Changes | str) -> tuple[list[Pair], str]:
    """Each change with each map that reads it, or why there are none; an empty reason where there is nothing to fold."""
    if isinstance(changes, str):
        return [], changes
    if b.reads is None:
        return [], "which maps read the norm is not known"
    pairs: list[Pair] = []
    for maps in b.reads:
        if changes.key is not None and maps.key is None:
            return [], f"the map behind {len(changes.each)} norms would need a copy for each, which costs more than it saves"
        if changes.key is not None and changes.key != maps.key:
            return [], "norms and maps are shared over different sets of tokens"
        chosen = changes.each if changes.key is not None else changes.each * len(maps.parts)
        pairs += [(name, c, p) for (name, c), p in zip(chosen, maps.parts, strict=True) if isinstance(p, Linear)]
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


def _behind(trunk: Trunk) -> list[Note]:
    """Fold a fixed norm behind a branch into the map that gives the branch's result."""
    notes: list[Note] = []
    everything = branches(trunk)
    times = [id(linear) for b in everything for linear in _writers(b)]
    for b in everything:
        changes = _changes(b.norms[-1], _fixed) if isinstance(b.rule, Sandwich) and len(b.norms) else ""
        if isinstance(changes, str):
            continue
        place = f"{b.place} (behind)"
        if b.mixes:
            notes.append(Note("fixed", place, False, _UNSEEN))
            continue
        shared = any(times.count(id(linear)) > 1 for linear in _writers(b))
        if shared or b.writes is None or any(changes.key not in {None, maps.key} for maps in b.writes):
            notes.append(Note("fixed", place, False, "its last map is not known, or shared otherwise than the norm"))
            continue
        for maps in b.writes:
            chosen = changes.each if changes.key is not None else changes.each * len(maps.parts)
            for (_, (scale, shift)), linear in zip(chosen, maps.parts, strict=True):
                assert isinstance(linear, Linear)
                write_affine(linear, _detached(scaled_behind(affine_of(linear), scale, shift)))
        b.norms[-1] = NoNorm()
        notes.append(Note("fixed", place, True, "the norm went into the last map"))
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
    "branches": fold_branches, "scale": fold_scale, "fixed": fold_fixed, "copies": fold_copies, "affine": fold_affine, "rms": fold_rms,
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
