from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.modalities.shape_helpers import WIDTH, check_empty, check_every_gradient, fitted
from unisono.core.draw import Draw
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, modalities, tokenisers
from unisono.modalities.points import farthest_points

POINTS = modalities.build("points")
COLUMN = Column("x", "points", "x", 2)


def clouds(n: int = 4, extra: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(3, 2, (5 + 9 * i, 3 + extra)).astype(np.float32) for i in range(n)]


def make(cells: list, **settings: object):  # type: ignore[no-untyped-def]
    tokeniser = tokenisers.build({"type": "neighbourhoods", "centres": 6, "neighbours": 4, "hidden": 8, **settings})
    columns = fitted(tokeniser, [COLUMN], {"x": cells})
    torch.manual_seed(0)
    return tokeniser, columns, tokeniser.module(columns, WIDTH)


def test_detection(tmp_path: Path) -> None:
    def guess(array: pa.Array, name: str = "x"):  # type: ignore[no-untyped-def]
        return POINTS.detect(ColumnSample(name, array.type, array, array.to_pylist(), root=tmp_path))

    plain = guess(pa.array([[[0.0, 1, 2], [1, 2, 3]]]))
    assert plain is not None and "series" in plain.doubt
    named = guess(pa.array([[[0.0, 1, 2], [1, 2, 3]]]), "lidar")
    assert named is not None and named.confidence > plain.confidence
    np.save(tmp_path / "a.npy", np.zeros((9, 4)))
    assert guess(pa.array(["a.npy"])) is not None
    for array in (pa.array([[1.0, 2.0]]), pa.array([[[0.0, 1]]]), pa.array([1.0]), pa.array([[["a", "b", "c"]]])):
        assert guess(array) is None


@pytest.mark.parametrize(("cell", "reason"), [
    ([[1.0, 2.0]], r"shape \(n, 3 or more\)"),
    ([1.0, 2.0, 3.0], r"shape \(n, 3 or more\)"),
    ([[1.0, 2.0, 3.0], [1.0]], "ragged"),
    ([[1.0, 2.0, float("inf")]], "infinite"),
    (np.zeros((0, 3)), "0 points"),
    ([["a", "b", "c"]], "no numbers"),
])  # fmt: skip
def test_unreadable_cells_say_why(cell: object, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        POINTS.decode(cell, COLUMN, Context())


def test_spellings_and_missing_points() -> None:
    expected = [[1, 2, 3], [4, 5, 6]]
    for cell in (expected, {"points": expected}, {"values": expected}, {"x": [1, 4], "y": [2, 5], "z": [3, 6]}):
        np.testing.assert_array_equal(POINTS.decode(cell, COLUMN, Context()), expected)
    np.testing.assert_array_equal(POINTS.decode([[1, 2, 3], [None, 5, 6]], COLUMN, Context()), expected[:1])
    assert POINTS.decode([[None, 1, 2]], COLUMN, Context()) is None


def test_another_number_of_values_is_unreadable_after_fitting_and_refused_in_it() -> None:
    _, columns, _ = make(clouds())
    with pytest.raises(Unreadable, match="points of 3 values in a column of points of 4"):
        POINTS.decode([[1, 2, 3]], columns[0], Context())
    with pytest.raises(SchemaError, match="3 and 4 values"):
        tokenisers.build("neighbourhoods").fit(COLUMN, [[np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)]])


@pytest.mark.parametrize("extra", [0, 2])
def test_contracts(extra: int) -> None:
    cells = [*clouds(extra=extra), None, np.ones((3, 3 + extra), np.float32)]
    tokeniser, columns, module = make(cells)
    packed = tokeniser.pack(columns, {"x": cells}, None)
    assert np.bincount(packed.sample).tolist() == [5, 6, 6, 6, 0, 1] and torch.isfinite(packed.coords).all()
    for row in range(6):
        one = tokeniser.pack(columns, {"x": cells[row : row + 1]}, None)
        torch.testing.assert_close(module(one), module(packed)[packed.sample == row], atol=1e-6, rtol=1e-5)
    check_every_gradient(module, packed)
    check_empty(tokeniser, columns, {"x": [None, None]}, module)
    check_empty(tokeniser, columns, {}, module)


@given(st.integers(0, 1000))
def test_the_order_of_points_does_not_matter(seed: int) -> None:
    cells = clouds()
    tokeniser, columns, module = make(cells, points=20)
    rng = np.random.default_rng(seed)
    shuffled = [c[rng.permutation(len(c))] for c in cells]
    one, two = (tokeniser.pack(columns, {"x": x}, None) for x in (cells, shuffled))
    torch.testing.assert_close(module(one), module(two), atol=1e-5, rtol=1e-4)


def test_pooling_equals_a_loop_over_groups() -> None:
    cells = clouds()
    tokeniser, columns, module = make(cells)
    packed = tokeniser.pack(columns, {"x": cells}, None)
    values = module(packed)
    for t in range(len(packed)):
        centre = packed.inputs["centre"][t]
        each = torch.stack([module.shared(torch.cat([p, centre])) for p in packed.inputs["group"][t]])
        torch.testing.assert_close(values[t], module.out(each.max(0).values) + module.place(centre), atol=1e-5, rtol=1e-4)


def test_farthest_points_are_the_corners() -> None:
    square = np.array([[0, 0, 0], [0, 2, 0], [2, 0, 0], [2, 2, 0], [1, 1, 0], [1.1, 1, 0]], np.float32)
    assert set(farthest_points(square, 4).tolist()) == {0, 1, 2, 3}
    assert len(farthest_points(np.ones((5, 3), np.float32), 4)) == 1


def test_augmentation_depends_on_the_row_alone_and_turning_keeps_height() -> None:
    cells = clouds()
    tokeniser, columns, _ = make(cells, rotate=True, jitter=0.0)
    plain = tokeniser.pack(columns, {"x": cells}, None)
    turned = tokeniser.pack(columns, {"x": cells}, Draw(0, 0, np.arange(4)))
    alone = tokeniser.pack(columns, {"x": cells[2:3]}, Draw(0, 0, np.array([2])))
    assert torch.equal(turned.coords[turned.sample == 2], alone.coords)
    torch.testing.assert_close(plain.coords[:, 2].sort().values, turned.coords[:, 2].sort().values, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain.coords, turned.coords)
