from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.modalities.shape_helpers import WIDTH, check_alone_equals_batched, check_empty, check_every_gradient, fitted
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.schema import Column
from unisono.modalities.arrays import npy_array
from unisono.modalities.base import ColumnSample, Context, modalities, tokenisers

VECTOR = modalities.build("vector")
COLUMN = Column("x", "vector", "x", 3, options={"length": 3})


def sample(array: pa.Array, root: Path | None = None) -> ColumnSample:
    return ColumnSample("x", array.type, array, [v for v in array.to_pylist() if v is not None], root=root)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype == object)
    return stream.getvalue()


def test_detection(tmp_path: Path) -> None:
    fixed = VECTOR.detect(sample(pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))))
    assert fixed is not None and fixed.options == {"length": 2} and fixed.confidence > 0.9
    constant = VECTOR.detect(sample(pa.array([[1.0, 2.0], [3.0, 4.0]])))
    assert constant is not None and "series" in constant.doubt
    np.save(tmp_path / "a.npy", np.zeros(4))
    file = VECTOR.detect(sample(pa.array(["a.npy", "a.npy"]), tmp_path))
    assert file is not None and file.options == {"length": 4}
    np.save(tmp_path / "b.npy", np.zeros((4, 3)))
    for array in (pa.array([[1.0], [1.0, 2.0]]), pa.array([["a"]]), pa.array([1.0]), pa.array(["b.npy"])):
        assert VECTOR.detect(sample(array, tmp_path)) is None


@pytest.mark.parametrize(("cell", "reason"), [
    ([1.0, 2.0], "2 values in a column of vectors of 3"),
    ([1.0, float("inf"), 0.0], "value 1 of the cell is infinite"),
    ([1.0, 1e300, 0.0], "too large for 32 bits"),
    ([[1.0, 2.0], [3.0]], "ragged"),
    ([[1.0, 2.0, 3.0]], "one dimension"),
    (["a", "b", "c"], "no numbers"),
    ([], "0 values"),
    (b"nonsense", "no .npy file"),
    (npy(np.array([1.0, 2.0, 3.0]))[:-1], "truncated"),
    (npy(np.array([object()])), "not numbers"),
])  # fmt: skip
def test_unreadable_cells_say_why(cell: object, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        VECTOR.decode(cell, COLUMN, Context())


def test_files_and_structs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2, 3]))
    for cell in ("a.npy", {"path": "a.npy", "bytes": None}, {"bytes": npy(np.array([1, 2, 3]))}, {"values": [1, 2, 3]}):
        np.testing.assert_array_equal(VECTOR.decode(cell, COLUMN, Context(root=tmp_path)), [1, 2, 3])
    with pytest.raises(Unreadable, match="leaves the folder"):
        VECTOR.decode("../a.npy", COLUMN, Context(root=tmp_path))
    with pytest.raises(Unreadable, match="does not exist"):
        VECTOR.decode("b.npy", COLUMN, Context(root=tmp_path))


def test_a_header_that_announces_more_than_the_file_allocates_nothing() -> None:
    content = bytearray(npy(np.zeros(3)))
    at = content.index(b"(3,)")
    content[at : at + 4] = b"(3,)"
    huge = bytes(content).replace(b"(3,), }           ", b"(9999999999999,), }")[: len(content)]
    with pytest.raises(Unreadable):
        npy_array(huge)


values = st.one_of(st.none(), st.floats(width=32, allow_infinity=False))


@given(st.lists(st.one_of(st.none(), st.lists(values, min_size=3, max_size=3)), max_size=6))
def test_fixed_and_variable_lists_decode_alike(rows: list[list[float | None] | None]) -> None:
    one = VECTOR.decode_many(pa.array(rows, pa.list_(pa.float32(), 3)), COLUMN, Context())
    two = VECTOR.decode_many(pa.array(rows, pa.list_(pa.float32())), COLUMN, Context())
    assert one.bad == two.bad == ()
    for a, b, row in zip(one.cells, two.cells, rows, strict=True):
        assert (a is None) == (b is None) == (row is None or all(v is None or np.isnan(v) for v in row))
        if a is not None:
            np.testing.assert_array_equal(a, b)


def test_bad_rows_of_a_block_are_named() -> None:
    block = pa.array([[1.0, 2.0, 3.0], [np.inf, 0.0, 0.0], [np.nan] * 3], pa.list_(pa.float64(), 3))
    decoded = VECTOR.decode_many(block, COLUMN, Context())
    assert [row for row, _ in decoded.bad] == [1] and decoded.cells[2] is None
    np.testing.assert_array_equal(decoded.cells[0], [1, 2, 3])


@pytest.mark.parametrize("hidden", [0, 8])
def test_contracts(hidden: int) -> None:
    rng = np.random.default_rng(0)
    cells = [rng.normal(5, 3, 3).astype(np.float32) for _ in range(6)] + [None]
    cells[1][2] = np.nan
    tokeniser = tokenisers.build({"type": "projection", "hidden": hidden, "tokens": 2})
    columns = fitted(tokeniser, [COLUMN], {"x": cells})
    torch.manual_seed(0)
    module = tokeniser.module(columns, WIDTH)
    packed = tokeniser.pack(columns, {"x": cells}, None)
    assert len(packed) == 12 and packed.column.unique().tolist() == [3] and packed.place[:2, 0].tolist() == [0, 1]
    check_alone_equals_batched(tokeniser, columns, {"x": cells}, module)
    check_every_gradient(module, packed)
    check_empty(tokeniser, columns, {"x": [None, None]}, module)
    check_empty(tokeniser, columns, {}, module)


def test_a_missing_value_adds_what_the_mean_adds_and_constants_do_no_harm() -> None:
    tokeniser = tokenisers.build("projection")
    cells = [np.array([i, 7.0, 1e-3 * i], np.float32) for i in range(5)]
    statistics = tokeniser.fit(COLUMN, [cells[:2], cells[2:]])
    assert statistics["scale"][1] == 1.0 and statistics["mean"][0] == 2.0
    np.testing.assert_allclose(statistics["scale"][0], np.std(range(5)))
    column = replace(COLUMN, statistics=statistics)
    packed = tokeniser.pack([column], {"x": [np.array([np.nan, 7, 0.002], np.float32)]}, None)
    np.testing.assert_allclose(packed.inputs["value"], 0, atol=1e-5)


def test_lengths_that_differ_are_refused_with_both() -> None:
    with pytest.raises(SchemaError, match="lengths 2 and 3"):
        tokenisers.build("projection").fit(COLUMN, [[np.zeros(2, np.float32)], [np.zeros(3, np.float32)]])


def test_list_cells() -> None:
    tokeniser = tokenisers.build("projection(tokens=1)")
    column = replace(COLUMN, many=True, statistics={"mean": [0.0] * 3, "scale": [1.0] * 3})
    decoded = VECTOR.decode_many(pa.array([[[1.0, 2, 3], [4, 5, 6]], None, [[7, 8, 9]]]), column, Context())
    packed = tokeniser.pack([column], {"x": decoded.cells}, None)
    assert packed.sample.tolist() == [0, 0, 2] and packed.item.tolist() == [0, 1, 0]
