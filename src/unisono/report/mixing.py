"""A relation as a person would tell it: groups that see each other, orders, arrows between sources, single pairs.

Letters: T tokens, Q tokens that may ask, K tokens that may be seen, L lanes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from unisono.report.figures import plural
from unisono.report.panels import Lane, lane_numbers
from unisono.report.schedule import Mixing, Stage

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Tokens that mix with each other and with nobody else.

    Attributes:
        tokens: which.
        lanes: the lanes they are of.
        whole: whether they are all the tokens of those lanes.
        ranks: (N,) of an order, from 1; None where everyone sees everyone.
    """

    tokens: Indices
    lanes: tuple[int, ...]
    whole: bool
    ranks: Indices | None = None


@dataclass(frozen=True)
class Arrow:
    """Tokens of one lane hear those of another.

    Attributes:
        speaks: the lane that is heard.
        hears: the lane that asks.
        both: whether it is the same the other way round.
    """

    speaks: int
    hears: int
    both: bool


@dataclass(frozen=True)
class Told:
    """A relation, told.

    Attributes:
        groups: see ``Group``.
        arrows: between lanes, for pairs that no group explains.
        lines: (E, 2) token that is heard and token that hears, within one lane, for pairs that no group explains.
        idle: (Q,) bool, tokens that leave the layer unchanged.
        words: sentences.
    """

    groups: tuple[Group, ...]
    arrows: tuple[Arrow, ...]
    lines: Indices
    idle: Mask
    words: tuple[str, ...]


def tell(stage: Stage, lanes: Sequence[Lane]) -> Told:
    """Take a layer's relation apart."""
    mixing = stage.mixing
    assert mixing is not None
    number = lane_numbers(stage.before, lanes)
    seen = mixing.seen & mixing.asks[:, None]
    if dict(stage.words).get("mixer") == "none":
        seen = np.zeros_like(seen)
    if mixing.tap:
        arrows = _arrows(seen, number, lane_numbers(mixing.keys, lanes))
        return Told((), arrows, np.zeros((0, 2), np.int64), ~mixing.asks, tuple(_recalled(seen, arrows, lanes, mixing)))
    groups, rest = _groups(seen, mixing.asks, number, np.zeros(len(number), np.bool_))
    learned = np.isin(number, [lane.number for lane in lanes if lane.learned])
    if rest.any() and learned.any():  # once more without the learned tokens, whose pairs become arrows
        again, left = _groups(seen, mixing.asks, number, learned)
        if left[~learned][:, ~learned].sum() < rest[~learned][:, ~learned].sum():
            groups, rest = again, left
    arrows = _arrows(rest, number, number)
    same = rest & (number[:, None] == number[None, :])
    hears, speaks = np.nonzero(np.triu(same | same.T, 1))
    lines = np.stack([speaks, hears], 1).astype(np.int64)
    return Told(tuple(groups), arrows, lines, ~mixing.asks, tuple(_words(groups, arrows, same, number, lanes, mixing)))


def _groups(seen: Mask, asks: Mask, number: Indices, apart: Mask) -> tuple[list[Group], Mask]:
    """Groups that are complete or ordered, and the pairs that they leave unexplained.

    Args:
        seen: (T, T).
        asks: (T,).
        number: (T,) lanes.
        apart: (T,) tokens that are grouped among themselves.
    """
    split = seen & (apart[:, None] == apart[None, :])
    _, label = connected_components(csr_array(split | split.T), directed=False)
    groups: list[Group] = []
    rest = seen.copy()
    for name in np.unique(label[asks & split.any(1)]):
        tokens = np.flatnonzero(label == name)
        inside = split[np.ix_(tokens, tokens)]
        ranks = None if inside.all() else _ranks(inside)
        if not inside.all() and ranks is None:
            continue
        lanes = tuple(int(n) for n in np.unique(number[tokens]))
        groups.append(Group(tokens, lanes, int(np.isin(number, lanes).sum()) == len(tokens), ranks))
        rest[np.ix_(tokens, tokens)] = False
    return groups, rest


def _ranks(inside: Mask) -> Indices | None:
    """Places in an order, where each token sees those up to its own; None where there is none."""
    ranks = np.unique(inside.sum(1), return_inverse=True)[1].astype(np.int64).reshape(-1) + 1
    return ranks if bool((inside == (ranks[None, :] <= ranks[:, None])).all()) else None


def _arrows(rest: Mask, hears: Indices, speaks: Indices) -> tuple[Arrow, ...]:
    """The pairs of different lanes, and within one where asking and seen tokens are of a tap."""
    count = int(max(hears.max(initial=-1), speaks.max(initial=-1))) + 1
    found = np.zeros((count, count), np.bool_)
    q, k = np.nonzero(rest)
    found[hears[q], speaks[k]] = True
    if hears is speaks:
        np.fill_diagonal(found, False)
    arrows = []
    for a, b in zip(*np.nonzero(found), strict=True):
        both = bool(found[b, a]) and a != b and hears is speaks
        if not both or a < b:
            arrows.append(Arrow(int(b), int(a), both))
    return tuple(arrows)


def _recalled(seen: Mask, arrows: Sequence[Arrow], lanes: Sequence[Lane], mixing: Mixing) -> list[str]:
    """Who sees what a tap kept, in sentences."""
    behind = f"kept as {mixing.tap}"
    if seen.all():
        return [f"all {len(seen)} tokens see all {seen.shape[1]} that were {behind}"]
    sees: dict[int, list[str]] = {}
    for arrow in arrows:
        sees.setdefault(arrow.hears, []).append(lanes[arrow.speaks].name)
    alike: dict[str, list[str]] = {}
    for lane, names in sees.items():
        alike.setdefault(_list(names), []).append(lanes[lane].name)
    return [f"{_list(who)}: see {what}, {behind}" for what, who in alike.items()] or ["nothing is mixed"]


def _words(
    groups: Sequence[Group], arrows: Sequence[Arrow], same: Mask, number: Indices, lanes: Sequence[Lane], mixing: Mixing
) -> list[str]:  # fmt: skip
    """The groups, arrows and single pairs in sentences."""
    said: list[str] = []
    wide = [g for g in groups if g.whole and len(g.lanes) > 1]
    narrow = [g for g in groups if g.whole and len(g.lanes) == 1]
    for group in wide:
        everyone = len(group.tokens) == len(number)
        who = f"all {len(number)} tokens" if everyone else _list([lanes[n].name for n in group.lanes])
        said.append(f"{who} see {_how(group)}")
    for kind in ("all", "order"):
        mine = [g for g in narrow if (g.ranks is None) == (kind == "all")]
        if mine:
            names = _list([lanes[g.lanes[0]].name for g in mine])
            said.append(f"{'within each of ' if len(mine) > 1 else 'within '}{names}, tokens see {_how(mine[0])}")
    said += _partial([g for g in groups if not g.whole], lanes)
    said += _heard(arrows, lanes)
    for lane in lanes:
        pairs = int(same[number == lane.number].sum())
        if pairs:
            said.append(f"{lane.name}: {plural(pairs, 'single pair')} of a token and one that it sees")
    if not said:
        said.append("each token by itself: nothing is mixed")
    idle = [lane.name for lane in lanes if bool((number == lane.number).any()) and not mixing.asks[number == lane.number].any()]
    return [*said, *([f"{_list(idle)}: unchanged"] if idle else [])]


def _how(group: Group) -> str:
    return "each other" if group.ranks is None else "themselves and lower numbers"


def _partial(groups: Sequence[Group], lanes: Sequence[Lane]) -> list[str]:
    """Groups that are parts of lanes: how many, how large."""
    by_lanes: dict[tuple[int, ...], list[Group]] = {}
    for group in groups:
        by_lanes.setdefault(group.lanes, []).append(group)
    said = []
    for numbers, mine in by_lanes.items():
        name = _list([lanes[n].name for n in numbers])
        sizes = Counter(len(g.tokens) for g in mine)
        if set(sizes) == {1}:
            said.append(f"{name}: each token by itself")
            continue
        parts = [f"{plural(count, 'group')} of {size}" for size, count in sorted(sizes.items(), reverse=True)]
        said.append(f"{name}: {_list(parts)}" + (", each in order" if any(g.ranks is not None for g in mine) else ""))
    return said


def _heard(arrows: Sequence[Arrow], lanes: Sequence[Lane]) -> list[str]:
    """Arrows, those that end at one lane together."""
    said = []
    both: dict[int, list[str]] = {}
    for arrow in arrows:
        if arrow.both:
            hub = max(arrow.speaks, arrow.hears)
            both.setdefault(hub, []).append(lanes[min(arrow.speaks, arrow.hears)].name)
    said += [f"{lanes[hub].name} and {'each of ' if len(names) > 1 else ''}{_list(names)} see each other" for hub, names in both.items()]
    one: dict[int, list[str]] = {}
    for arrow in arrows:
        if not arrow.both:
            one.setdefault(arrow.hears, []).append(lanes[arrow.speaks].name)
    return said + [f"{lanes[hears].name} sees {_list(names)}" for hears, names in one.items()]


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def marks(told: Told, touching: Sequence[Mask], lanes: Sequence[Indices]) -> tuple[dict[int, str], set[int]]:
    """What is written on tokens: places in an order, or letters where the tokens of a group do not lie side by side.

    Args:
        told: the relation.
        touching: for each lane (N, N), which of its tokens lie side by side.
        lanes: the tokens of each lane.

    Returns:
        Token -> what is written on it, and the lanes that have letters.
    """
    found: dict[int, str] = {}
    if any(g.ranks is not None for g in told.groups):
        for group in told.groups:
            if group.ranks is not None:
                found.update({int(t): str(int(r)) for t, r in zip(group.tokens, group.ranks, strict=True)})
        return found, set()
    parts = [g for g in told.groups if not g.whole and len(g.tokens) > 1]
    lettered = {lane for g in parts for lane in g.lanes if len(g.lanes) > 1 or _torn(g, touching[lane], lanes[lane])}
    for k, group in enumerate(g for g in parts if lettered & set(g.lanes)):
        found.update({int(t): _letter(k) for t in group.tokens})
    return found, lettered


def _torn(group: Group, touching: Mask, tokens: Indices) -> bool:
    """Whether a group's tokens are several pieces in their lane."""
    at = np.flatnonzero(np.isin(tokens, group.tokens))
    pieces, _ = connected_components(csr_array(touching[np.ix_(at, at)]), directed=False)
    return int(pieces) > 1


def _letter(number: int) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return alphabet[number] if number < len(alphabet) else alphabet[number // 26 % 26] + alphabet[number % 26].lower()
