"""Scopes on the tokens' own grid against their definitions, pair by pair, over ragged grids with holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokens import FRAME, block, cells, with_inserted
from unisono.core.errors import ConfigError
from unisono.core.relation import Blocks
from unisono.core.tokens import Meta, concatenate
from unisono.nn.scope import relate

Place = tuple[int, ...]
Sides = Sequence[tuple[int, ...]]
#: The axes of a grid by how many it has, as the modalities of ``FRAME`` name them.
AXES = {1: ("time",), 2: ("row", "column"), 3: ("time", "row", "column")}

sides = st.one_of(st.tuples(st.integers(1, 7)), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.tuples(*[st.integers(1, 3)] * 3))
grids = st.lists(sides, min_size=1, max_size=3)


def ragged(grids: Sides, seed: int, keep: float) -> Meta:
    """Grids with holes over two samples, several of them in one cell, two tokens without a grid, and an inserted one, in any order."""
    rng = np.random.default_rng(seed)
    parts = [cells(k % 2, len(side), block(*side), item=k, samples=2) for k, side in enumerate(grids)]
    meta = concatenate([*parts, cells(0, 0, [(), ()], samples=2)])
    return with_inserted(meta.select(torch.from_numpy(rng.permutation(np.flatnonzero(rng.random(len(meta)) < keep)))), 1)


def facts(meta: Meta) -> list[tuple[tuple[int, ...], Place]]:
    """For each token its cell and its place."""
    cell = zip(*(getattr(meta, f).tolist() for f in ("sample", "column", "item", "level")), strict=True)
    return [(c, tuple(p for p in row if p >= 0)) for c, row in zip(cell, meta.place.tolist(), strict=True)]


def extent(known: list[tuple[tuple[int, ...], Place]], cell: tuple[int, ...], axis: int) -> int:
    return max(place[axis] for c, place in known if c == cell) + 1


def by_axis(holds: Callable[[int, int, int], bool]) -> Callable[..., bool]:
    """A rule that has to hold along every axis, given two places and the grid's extent."""

    def seen(known: Any, cell: Any, a: Place, b: Place) -> bool:
        return all(holds(x, y, extent(known, cell, axis)) for axis, (x, y) in enumerate(zip(a, b, strict=True)))

    return seen


def along(name: str) -> Callable[..., bool]:
    def seen(known: Any, cell: Any, a: Place, b: Place) -> bool:
        names = AXES[len(a)]
        if name not in names:
            return True  # without the axis a token mixes within its own cell
        return all(x == y for axis, x, y in zip(names, a, b, strict=True) if axis != name)

    return seen


def around(size: int, ratio: int) -> Callable[..., bool]:
    """The key lies in the query's window, widened by (ratio - 1) * size places in all, of which the odd one is at the far side."""
    margin = (ratio - 1) * size
    return by_axis(lambda x, y, _: x // size * size - margin // 2 <= y < x // size * size - margin // 2 + size + margin)


RULES: dict[str, Callable[..., bool]] = {
    "window(2)": by_axis(lambda x, y, _: x // 2 == y // 2),
    "window(3, shift=2)": by_axis(lambda x, y, _: (x + 2) // 3 == (y + 2) // 3),
    "grid(2)": by_axis(lambda x, y, n: x % -(-n // 2) == y % -(-n // 2)),
    "grid(3)": by_axis(lambda x, y, n: x % -(-n // 3) == y % -(-n // 3)),
    "dilated(2)": by_axis(lambda x, y, _: (x - y) % 2 == 0),
    "axis(time)": along("time"),
    "axis(row)": along("row"),
    "axis(column)": along("column"),
    "context(2, ratio=1)": around(2, 1),
    "context(2, ratio=2)": around(2, 2),
    "context(1, ratio=4)": around(1, 4),
}


@pytest.mark.parametrize("text", sorted(RULES))
@settings(max_examples=25)
@given(grids=grids, seed=st.integers(0, 99), keep=st.sampled_from([0.6, 1.0]))
def test_pairs_are_the_definition(text: str, grids: Sides, seed: int, keep: float) -> None:
    meta = ragged(grids, seed, keep)
    known = facts(meta)
    expected = np.zeros((len(meta), len(meta)), np.bool_)
    for t, (cell, place) in enumerate(known):
        for n, (other, there) in enumerate(known):
            expected[t, n] = cell == other and (not place or RULES[text](known, cell, place, there))
    assert np.array_equal(relate(text, meta, FRAME).pairs().numpy(), expected)


@settings(max_examples=25)
@given(grids=grids, seed=st.integers(0, 99))
def test_sees_is_the_matrix_of_pairs(grids: Sides, seed: int) -> None:
    meta = ragged(grids, seed, 0.8)
    query, key = (x.reshape(-1) for x in np.meshgrid(np.arange(len(meta)), np.arange(len(meta)), indexing="ij"))
    for text in ("window(2)", "context(2)", "causal(place)", "source & bottleneck", "neighbours", "cross(photo <- clip)"):
        relation = relate(text, meta, FRAME)
        assert np.array_equal(relation.sees(query, key), relation.pairs().numpy()[query, key]), text


@pytest.mark.parametrize(("height", "width", "size", "shift"), [(8, 8, 4, 2), (6, 9, 3, 1), (4, 4, 4, 2), (6, 4, 2, 1)])
def test_shifted_windows_are_the_cyclic_shift_with_its_mask(height: int, width: int, size: int, shift: int) -> None:
    """The map rolled by the shift, cut into windows, pairs that were no neighbours before the roll masked."""
    where = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    rolled = np.roll(where, (-shift, -shift), (0, 1))
    region = np.zeros((height, width), np.int64)
    cuts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
        region[rows, columns] = number
    expected = np.zeros((height, width, height, width), np.bool_)
    for top in range(0, height, size):
        for left in range(0, width, size):
            inside = [(i, j) for i in range(top, top + size) for j in range(left, left + size)]
            for a in inside:
                for b in inside:
                    expected[(*rolled[a], *rolled[b])] = region[a] == region[b]
    # windows moved up and left by s begin at s, so a label is (place + size - s) // size
    seen = relate(f"window({size}, shift={size - shift})", cells(0, 2, block(height, width)), FRAME).pairs()
    assert np.array_equal(seen.numpy(), expected.reshape(height * width, -1))


@pytest.mark.parametrize("side", [4, 8, 12])
def test_the_grid_is_the_window_of_the_reshaped_map(side: int) -> None:
    """Rows (g, c) of a map cut into g cells of c places become (c, g): a group of the grid is then a window of g neighbours."""
    size, cell = 4, side // 4
    number = np.arange(side * side).reshape(size, cell, size, cell).transpose(1, 0, 3, 2).reshape(side, side)
    meta = cells(0, 2, block(side, side))
    windows = relate(f"window({size})", meta, FRAME).pairs().numpy()
    moved = number.reshape(-1)
    expected = np.zeros_like(windows)
    expected[np.ix_(moved, moved)] = windows
    assert np.array_equal(relate(f"grid({size})", meta, FRAME).pairs().numpy(), expected)


@pytest.mark.parametrize("text", ["window(9)", "grid(9)", "dilated(1)", "context(9)"])
def test_what_covers_the_map_is_the_cell(text: str) -> None:
    meta = concatenate([cells(0, 2, block(5, 9)), cells(0, 3, block(2, 3, 3))])
    assert torch.equal(relate(text, meta, FRAME).pairs(), relate("cell", meta, FRAME).pairs())


def test_windows_of_one_shape_are_one_call() -> None:
    relation = relate("window(4)", concatenate([cells(s, 2, block(8, 8), samples=3) for s in range(3)]), FRAME)
    assert isinstance(relation, Blocks)
    assert [c.run for c in relation.calls] == [(12, 16, 16)]


def test_a_shift_beyond_the_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="has to be below the size 2"):
        relate("window(2, shift=2)", cells(0, 2, block(2, 2)), FRAME)
