"""Where the tokens of a drawing stand: a lane for every source, and within it every cell's own grid, line or ring.

Places are in units of one token's side. Letters: T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unisono.core.names import Names
from unisono.core.schema import AXES
from unisono.core.tokens import Meta

Indices = NDArray[np.int64]
#: A line of tokens is wrapped, and grids are set side by side, up to so many units.
_WIDEST = 12.0
_GAP = 0.5
#: Lines up to this length are not wrapped.
_SHORT = 6


@dataclass(frozen=True)
class Lane:
    """What belongs together from top to bottom: the tokens of a source, or those that one step put in.

    Attributes:
        source: index of the source, -1 for tokens that a step put in.
        column: the inserted tokens' column, below 0; 0 for a source.
        name: what it is called.
        kind: the modalities in it, in words.
        number: its place among the lanes, and among the colours.
    """

    source: int
    column: int
    name: str
    kind: str
    number: int

    @property
    def learned(self) -> bool:
        """Whether a step put its tokens in."""
        return self.source < 0

    def holds(self, meta: Meta) -> Indices:
        """The lane's tokens, in the order in which they are drawn."""
        mine = meta.source.numpy() == self.source
        if self.learned:
            mine = mine & (meta.column.numpy() == self.column)
        index = np.flatnonzero(mine)
        task = np.zeros(len(meta), np.int64) if meta.task is None else meta.task.numpy()
        keys = (meta.place.numpy()[index].T[::-1], meta.level.numpy()[index], meta.item.numpy()[index], meta.column.numpy()[index])
        order = np.lexsort((*keys[0], *keys[1:], task[index]))
        return index[order]


def lanes_of(metas: Iterable[Meta], names: Names) -> list[Lane]:
    """The lanes that the tokens of a drawing need: sources in their order, then what steps put in."""
    sources: dict[int, set[int]] = {}
    inserted: dict[int, int] = {}
    for meta in metas:
        for source, column, modality in zip(meta.source.tolist(), meta.column.tolist(), meta.modality.tolist(), strict=True):
            if source >= 0:
                sources.setdefault(source, set()).add(modality)
            else:
                inserted[column] = modality
    lanes: list[Lane] = []
    for source in range(len(names.sources)):
        words = [names.modalities[m] for m in sorted(sources.get(source, ())) if m < len(names.modalities)]
        lanes.append(Lane(source, 0, names.sources[source], ", ".join(words) or "missing in this row", len(lanes)))
    for count, column in enumerate(sorted(inserted, reverse=True), 1):
        name = "learned" if len(inserted) == 1 else f"learned {count}"
        lanes.append(Lane(-1, column, name, "put in by the trunk", len(lanes)))
    return lanes


@dataclass(frozen=True)
class Panel:
    """The places of some tokens.

    Attributes:
        tokens: (N,) which tokens.
        places: (N, 2) column and row of each, in units.
        size: columns and rows.
        round: (N,) bool, tokens that are nodes of a graph.
        notes: texts with their places.
    """

    tokens: Indices
    places: NDArray[np.float64]
    size: tuple[float, float]
    round: NDArray[np.bool_]
    notes: tuple[tuple[float, float, str], ...] = ()


def panel(meta: Meta, tokens: Indices, names: Names) -> Panel:
    """Lay out one lane's tokens: tasks below each other, cells and scales side by side, each on its own grid."""
    if not len(tokens):
        return Panel(tokens, np.zeros((0, 2)), (0.0, 0.0), np.zeros(0, np.bool_))
    tasks = np.zeros(len(tokens), np.int64) if meta.task is None else meta.task.numpy()[tokens]
    parts, notes, top, wide = [], [], 0.0, 0.0
    for task in np.unique(tasks):
        mine = tokens[tasks == task]
        if meta.task is not None and task >= 0:
            notes.append((0.0, top, names.tasks[task] if task < len(names.tasks) else f"task {task}"))
            top += 0.9
        places, size = _flow(meta, mine, names)
        parts.append(places + np.array([0.0, top]))
        top, wide = top + size[1] + _GAP, max(wide, size[0])
    node = np.full(len(tokens), -1) if meta.node is None else meta.node.numpy()[tokens]
    return Panel(tokens, np.concatenate(parts), (wide, top - _GAP), node >= 0, tuple(notes))


def _flow(meta: Meta, tokens: Indices, names: Names) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Grids side by side, as many in a line as there is room for."""
    found = np.zeros((len(tokens), 2))
    x = y = line = wide = 0.0
    for start, stop in _cells(meta, tokens):
        for index, places, (width, height) in _grids(meta, tokens[start:stop], names):
            if x and x + width > _WIDEST:
                x, y, line = 0.0, y + line + _GAP, 0.0
            found[start + index] = places + np.array([x, y])
            wide, line = max(wide, x + width), max(line, height)
            x += width + _GAP
    return found, (wide, y + line)


def _cells(meta: Meta, tokens: Indices) -> Iterable[tuple[int, int]]:
    """Stretches of tokens of one item of one cell at one scale; what has no grid is taken together."""
    plain = (meta.place.numpy()[tokens] < 0).all(1)
    node = np.zeros(len(tokens), np.bool_) if meta.node is None else meta.node.numpy()[tokens] >= 0
    labels = np.stack([meta.column.numpy()[tokens], meta.item.numpy()[tokens], meta.level.numpy()[tokens]], 1)
    labels[plain & ~node] = -9
    starts = [0, *(np.flatnonzero((labels[1:] != labels[:-1]).any(1)) + 1).tolist(), len(tokens)]
    return [(a, b) for a, b in pairwise(starts) if b > a]


Placed = tuple[Indices, NDArray[np.float64], tuple[float, float]]


def _grids(meta: Meta, tokens: Indices, names: Names) -> list[Placed]:
    """One cell's tokens: a ring of nodes, a line, a grid, or one grid for each place on the third axis."""
    every = np.arange(len(tokens))
    if meta.node is not None and bool((meta.node.numpy()[tokens] >= 0).all()):
        return [_ring(every)]
    place = meta.place.numpy()[tokens]
    axes = int((place >= 0).any(0).sum())
    if axes < 2:
        return [_line(every)]
    if axes == 2:
        return [_grid(every, place[:, :2])]
    modality = int(meta.modality[int(tokens[0])])
    words = AXES.get(names.modalities[modality] if modality < len(names.modalities) else "", ())
    axis = 0 if not words or words[0] == "time" else 2
    others = [k for k in range(3) if k != axis]
    return [_grid(at, place[at][:, others]) for at in (np.flatnonzero(place[:, axis] == p) for p in np.unique(place[:, axis]))]


def _grid(index: Indices, place: Indices) -> Placed:
    rows, columns = place[:, 0] - place[:, 0].min(), place[:, 1] - place[:, 1].min()
    return index, np.stack([columns, rows], 1).astype(np.float64), (float(columns.max() + 1), float(rows.max() + 1))


def _line(index: Indices) -> Placed:
    count = len(index)
    columns = count if count <= _SHORT else max(_SHORT, min(int(_WIDEST), math.ceil(math.sqrt(2 * count)), math.ceil(count / 2)))
    places = np.stack([np.arange(count) % columns, np.arange(count) // columns], 1).astype(np.float64)
    return index, places, (float(min(columns, count)), float(-(-count // columns)))


def _ring(index: Indices) -> Placed:
    """Nodes on a circle, the first at the top."""
    count = len(index)
    radius = 0.0 if count == 1 else max(1.2, 1.9 * count / (2 * math.pi))
    angle = 2 * math.pi * np.arange(count) / count
    places = np.stack([radius + radius * np.sin(angle), radius - radius * np.cos(angle)], 1)
    side = 2 * radius + 1
    return index, places, (side, side)


def token_words(meta: Meta, token: int, names: Names) -> str:
    """One token in words."""
    column, place = int(meta.column[token]), [p for p in meta.place[token].tolist() if p >= 0]
    if column < 0:
        return "a learned token"
    word = names.columns[column] if column < len(names.columns) else "token"
    where = f", place {' '.join(str(p) for p in place)}" if place else ""
    level = f", level {int(meta.level[token])}" if int(meta.level[token]) else ""
    return f"{word}{where}{level}"


def lane_numbers(meta: Meta, lanes: Sequence[Lane]) -> Indices:
    """(T,) the lane of each token."""
    found = np.full(len(meta), -1, np.int64)
    for lane in lanes:
        found[lane.holds(meta)] = lane.number
    return found
