"""Scopes on the tokens' own grid: windows, grids, dilation, axes, and windows that look further than they ask.

Letters: T tokens, A grid axes of a token, P places of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Index
from unisono.core.relation import Members, combine
from unisono.core.schema import AXES
from unisono.core.tokens import Meta
from unisono.nn.part import Frame
from unisono.nn.scope import BlockList, Labels, Partition, or_own_cell, own_cell, scopes

Places = NDArray[np.int64]
#: The names of axes where a modality does not say: one axis is time, two are row and column, three begin with time.
_BY_NUMBER = {1: ("time",), 2: ("row", "column"), 3: ("time", "row", "column")}


def grid_map(meta: Meta) -> NDArray[np.int64]:
    """(T,) one label for each grid: an item at one level."""
    return combine([own_cell(meta), meta.level.numpy()])


def extents(meta: Meta) -> Places:
    """(T, 3) how many places each axis of a token's own grid has; 0 where it has no such axis."""
    grid, place = grid_map(meta), meta.place.numpy()
    found = np.zeros((int(grid.max(initial=-1)) + 1, 3), np.int64)
    np.maximum.at(found, grid, place + 1)
    result: Places = found[grid]
    return result


def _cut(meta: Meta, label: Places) -> Labels:
    """Labels per axis within the grid; tokens without a grid stay in their own cell."""
    nowhere = np.asarray((meta.place.numpy() < 0).all(1))
    parts = [np.where(nowhere, -1, part) for part in label.T]
    return [or_own_cell(grid_map(meta), nowhere, meta), *parts]


@scopes.register("window", source="arXiv:2103.14030")
class WindowScope(Partition):
    """Windows of ``size`` neighbouring places along every axis: ``label = (place + shift) // size``.

    With a shift the windows at the border are smaller, which is what the masks of cyclically shifted windows come to.

    Args:
        size: places along an axis.
        shift: places by which windows are moved.
    """

    def __init__(self, *, size: Count, shift: Index = 0) -> None:
        if shift >= size:
            raise ConfigError(f"window: the shift {shift} has to be below the size {size}")
        self.size, self.shift = size, shift

    def labels(self, meta: Meta) -> Labels:
        """Grid and window."""
        place = meta.place.numpy()
        return _cut(meta, np.where(place < 0, -1, (place + self.shift) // self.size))


@scopes.register("grid", source="arXiv:2204.01697")
class GridScope(Partition):
    """A map cut into ``size`` cells along every axis; tokens at the same place within their cell mix: one token of each cell.

    ``label = place mod ceil(extent / size)``.

    Args:
        size: cells along an axis, so also tokens of a group along it.
    """

    def __init__(self, *, size: Count) -> None:
        self.size = size

    def labels(self, meta: Meta) -> Labels:
        """Grid and place within the cell."""
        place = meta.place.numpy()
        cell = np.maximum(-(-extents(meta) // self.size), 1)
        return _cut(meta, np.where(place < 0, -1, place % cell))


@scopes.register("dilated", source="arXiv:2108.00154")
class DilatedScope(Partition):
    """Tokens at equal distances mix: ``label = place mod stride`` along every axis.

    Args:
        stride: distance of neighbours in a group.
    """

    def __init__(self, *, stride: Count) -> None:
        self.stride = stride

    def labels(self, meta: Meta) -> Labels:
        """Grid and residue."""
        place = meta.place.numpy()
        return _cut(meta, np.where(place < 0, -1, place % self.stride))


def axis_of(meta: Meta, name: str, modalities: Sequence[str]) -> tuple[Places, NDArray[np.bool_]]:
    """(T,) which of a token's axes bears a name, and (T,) the tokens that have no such axis."""
    place, modality = meta.place.numpy(), meta.modality.numpy()
    axis = np.full(len(meta), -1, np.int64)
    for k, word in enumerate(modalities):
        names = AXES.get(word, ())
        axis[modality == k] = names.index(name) if name in names else -1
    if not modalities:
        axes = (place >= 0).sum(1)
        for number, names in _BY_NUMBER.items():
            if name in names:
                axis[axes == number] = names.index(name)
    absent = (axis < 0) | (np.take_along_axis(place, np.maximum(axis, 0)[:, None], 1)[:, 0] < 0)
    return axis, absent


@scopes.register("axis", source="arXiv:2102.05095")
class AxisScope(Partition):
    """Tokens that differ in one axis alone mix: ``axis(time)`` joins the same place of every frame.

    Args:
        name: the axis.
        frame: names the modalities, which say what their axes are.
    """

    def __init__(self, *, frame: Frame, name: Literal["time", "row", "column", "band"]) -> None:
        self.name, self.modalities = name, frame.names.modalities

    def labels(self, meta: Meta) -> Labels:
        """Every place but the one on the axis; tokens without the axis stay in their own cell."""
        place = meta.place.numpy()
        axis, absent = axis_of(meta, self.name, self.modalities)
        others = place.copy()
        np.put_along_axis(others, np.maximum(axis, 0)[:, None], 0, 1)
        others[absent] = -1
        return [or_own_cell(grid_map(meta), absent, meta), *others.T]


@scopes.register("slice", source="arXiv:2102.05095")
class SliceScope(Partition):
    """Tokens of one place on an axis mix: ``slice(time)`` is every frame by itself, what ``axis(time)`` leaves out.

    Args:
        name: the axis.
        frame: names the modalities, which say what their axes are.
    """

    def __init__(self, *, frame: Frame, name: Literal["time", "row", "column", "band"]) -> None:
        self.name, self.modalities = name, frame.names.modalities

    def labels(self, meta: Meta) -> Labels:
        """Grid and place on the axis; tokens without the axis stay in their own cell."""
        axis, absent = axis_of(meta, self.name, self.modalities)
        place = np.take_along_axis(meta.place.numpy(), np.maximum(axis, 0)[:, None], 1)[:, 0]
        return [or_own_cell(grid_map(meta), absent, meta), np.where(absent, -1, place)]


@scopes.register("context", source="arXiv:2404.16573")
class ContextScope(BlockList):
    """Windows that see further than they ask: queries of a window of ``size`` places, keys of ``ratio`` times that around the same centre.

    Ratio 1 is ``window(size)``. Tokens without a grid mix within their own cell.

    Args:
        size: places of a query window along an axis.
        ratio: how many times as many places the keys span.
    """

    def __init__(self, *, size: Count, ratio: Count = 2) -> None:
        self.size, self.ratio = size, ratio

    def members(self, meta: Meta) -> tuple[Members, Members]:
        """Each window's tokens, and the tokens around it."""
        place = meta.place.numpy()
        here, there = place >= 0, np.asarray((place >= 0).any(1))
        window = np.where(here, place // self.size, 0)
        grid = or_own_cell(grid_map(meta), ~there, meta)
        names = np.concatenate([grid[:, None], window], 1)
        blocks, block = np.unique(names, axis=0, return_inverse=True)
        block = block.reshape(-1)
        query = Members(np.arange(len(meta)), block)
        token, owner = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        margin = (self.ratio - 1) * self.size
        by_grid = np.argsort(grid, kind="stable")
        starts = np.searchsorted(grid[by_grid], blocks[:, 0])
        ends = np.searchsorted(grid[by_grid], blocks[:, 0], side="right")
        for number, (row, start, end) in enumerate(zip(blocks, starts, ends, strict=True)):
            mine = by_grid[start:end]
            low = row[1:] * self.size - margin // 2
            inside = (place[mine] >= low) & (place[mine] < low + self.size + margin)
            kept = mine[(inside | ~here[mine]).all(1)]
            token.append(kept)
            owner.append(np.full(len(kept), number))
        return query, Members(np.concatenate(token), np.concatenate(owner))
