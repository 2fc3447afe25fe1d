"""Hashes tell equal content from different content, however it is stored or cut into batches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.table.hashing import array_hashes, codes, row_fingerprints

cell = st.one_of(
    st.none(), st.integers(-3, 3), st.text("ab\0", max_size=20), st.binary(max_size=3), st.lists(st.none() | st.integers(0, 2), max_size=3)
)


@given(st.lists(st.text("ab\0", max_size=20) | st.none(), min_size=1, max_size=30))
@settings(deadline=None)
def test_text_has_equal_hashes_where_it_is_equal(values):
    hashes = array_hashes(pa.array(values, pa.string())).tolist()
    for a, x in zip(values, hashes, strict=True):
        for b, y in zip(values, hashes, strict=True):
            assert (a == b) == (x == y)


@given(st.lists(st.none() | st.lists(st.none() | st.integers(0, 2), max_size=3), min_size=1, max_size=20))
@settings(deadline=None)
def test_lists_have_equal_hashes_where_they_are_equal(values):
    hashes = array_hashes(pa.array(values, pa.list_(pa.int64()))).tolist()
    for a, x in zip(values, hashes, strict=True):
        for b, y in zip(values, hashes, strict=True):
            assert (a == b) == (x == y)


def test_storage_does_not_matter():
    for values, types in (
        ([3, None, -1], [pa.int8(), pa.int64(), pa.float32(), pa.float64()]),
        ([0.5, None, 0.1], [pa.float64()]),
        (["a" * 70, None, ""], [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]),
        ([[1, 2], None, [3, 4]], [pa.list_(pa.int8()), pa.large_list(pa.int32()), pa.list_(pa.float32(), 2)]),
    ):
        found = [array_hashes(pa.array(values, t)).tolist() for t in types]
        assert all(f == found[0] for f in found)
    assert array_hashes(pa.array([-0.0]))[0] == array_hashes(pa.array([0.0]))[0]


def test_slices_hash_as_what_they_hold():
    array = pa.array([["a", None], None, [], ["b" * 100]])
    assert array_hashes(array.slice(1, 3)).tolist() == array_hashes(array).tolist()[1:]
    fixed = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
    assert array_hashes(fixed.slice(1)).tolist() == array_hashes(fixed).tolist()[1:]
    struct = pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}])
    assert array_hashes(struct.slice(1)).tolist() == array_hashes(struct).tolist()[1:]


@given(st.lists(st.tuples(st.integers(0, 2), st.text("ab", max_size=1) | st.none()), min_size=1, max_size=20), st.integers(1, 5))
@settings(deadline=None)
def test_fingerprints_of_rows(rows, size):
    table = pa.table({"k": range(len(rows)), "x": [r[0] for r in rows], "s": pa.array([r[1] for r in rows], pa.string())})
    whole = row_fingerprints(table.to_batches(), exclude=["k"])
    assert whole.dtype == np.uint64
    assert whole.tolist() == row_fingerprints(table.select(["s", "k", "x"]).to_batches(size), exclude=["k"]).tolist()
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert (a == b) == (whole[i] == whole[j])


def test_hashes_spread_and_stay_the_same():
    hashes = array_hashes(pa.array(np.arange(100_000)))
    assert len(np.unique(hashes)) == 100_000
    assert abs((hashes >> np.uint64(63)).mean() - 0.5) < 0.01
    texts = array_hashes(pa.array([f"row {i}" for i in range(100_000)]))
    assert len(np.unique(texts)) == 100_000
    assert len(np.unique(texts & np.uint64(1023))) == 1024


def test_swapped_cells_differ():
    one = row_fingerprints(pa.table({"a": ["x"], "b": ["y"]}).to_batches())
    two = row_fingerprints(pa.table({"a": ["y"], "b": ["x"]}).to_batches())
    assert one[0] != two[0]


def test_codes():
    assert codes(pa.chunked_array([["b", None], ["a", "b"]])).tolist() == [0, -1, 1, 0]
    assert codes(pa.array([1.0, float("nan"), 1.0])).tolist() == [0, -1, 0]
    assert codes(pa.nulls(2)).tolist() == [-1, -1]
