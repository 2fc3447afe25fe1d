"""Tables in memory: frames, Arrow, datasets, dicts and lists."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import TableError
from unisono.table.read import open_table
from unisono.table.values import common_type, values_array


def whole(data, **options) -> pa.Table:
    return pa.Table.from_batches(list(open_table(data, **options).batches()))


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "n": [1.5, float("nan"), 2],
            "mixed": [1, "x", None],
            "c": pd.Categorical(["u", None, "u"]),
            "t": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
            "a": [np.array([1.0, 2.0]), None, np.array([3.0])],
            "m": [np.ones((2, 2)), None, np.ones((1, 2))],
            "i": pd.array([1, None, 3], dtype="Int64"),
            3: [b"x", None, b""],
        },
        index=[7, 8, 9],
    )
    before = frame.copy(deep=True)
    table = whole(frame)
    assert table.column("n").to_pylist() == [1.5, None, 2.0]
    assert table.column("mixed").to_pylist() == ["1", "x", None]
    assert table.column("c").to_pylist() == ["u", None, "u"]
    assert table.column("a").to_pylist() == [[1.0, 2.0], None, [3.0]]
    assert table.column("m").to_pylist() == [[[1.0, 1.0], [1.0, 1.0]], None, [[1.0, 1.0]]]
    assert table.column("i").to_pylist() == [1, None, 3]
    assert table.column("3").to_pylist() == [b"x", None, b""]
    assert table.column("t").null_count == 1
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(TableError, match="twice"):
        open_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(TableError, match="no rows"):
        open_table(pd.DataFrame({"a": []}))
    with pytest.raises(TableError, match="no columns"):
        open_table(pd.DataFrame())


def test_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, None], "c": pl.Series(["u", "v"], dtype=pl.Categorical), "l": [[1.0], None], "s": ["", None]})
    expected = {"a": [1, None], "c": ["u", "v"], "l": [[1.0], None], "s": ["", None]}
    assert whole(frame).to_pydict() == expected
    assert whole(frame.lazy()).to_pydict() == expected


def test_arrow_objects():
    table = pa.table({"a": [1, 2]})
    assert whole(table).to_pydict() == {"a": [1, 2]}
    assert whole(table.to_batches()[0]).to_pydict() == {"a": [1, 2]}
    source = open_table(table.to_reader())
    assert pa.Table.from_batches(list(source.batches())).to_pydict() == {"a": [1, 2]}
    with pytest.raises(TableError, match="only once"):
        list(source.batches())


def test_dicts_and_lists():
    table = whole(
        {"a": [1, "x"], "v": np.arange(4.0).reshape(2, 2), "p": [Path("a.png"), None], "d": np.array(["2024-01-01"] * 2, "M8[D]")}
    )
    assert table.column("a").to_pylist() == ["1", "x"]
    assert table.schema.field("v").type == pa.list_(pa.float64(), 2)
    assert table.column("p").to_pylist() == ["a.png", None]
    assert table.column("d").to_pylist() == [datetime.date(2024, 1, 1)] * 2
    assert whole([{"a": 1}, {"b": b"x"}]).to_pydict() == {"a": [1, None], "b": [None, b"x"]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"a": [1], "b": [1, 2]}, ["differ in length"]),
        ({"a": [1, object()]}, ["row 1", "'a'", "object"]),
        ({"a": "text"}, ["'a'", "str"]),
        ({"a": []}, ["no rows"]),
        ({}, ["no columns"]),
        ([], ["list"]),
        (5, ["int is no table"]),
        ([1, 2], ["list is no table"]),
        (pa.table([[1], [2]], names=["a", "a"]), ["occurs twice"]),
        (pa.table({"a": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}), ["'a'", "union"]),
    ],
)
def test_what_is_no_table_is_refused(data, words):
    with pytest.raises(TableError) as caught:
        open_table(data)
    for word in words:
        assert word in str(caught.value)


class Image:
    pass


class ClassLabel:
    names = ("cat", "dog")


class Features(dict):
    arrow_schema = pa.schema([("pic", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])


class Dataset:
    """Has what is used of a Hugging Face dataset."""

    features = Features(pic=Image(), label=ClassLabel())
    rows = pa.table({"pic": [{"bytes": b"x", "path": None}] * 3, "label": [0, 1, -1]})

    def with_format(self, word):
        assert word == "arrow"
        return self

    def iter(self, batch_size):
        for start in range(0, 3, min(batch_size, 2)):
            yield self.rows.slice(start, 2)

    def __len__(self):
        return 3


def test_hugging_face_dataset():
    source = open_table(Dataset())
    assert source.hints == {"pic": "image", "label": "category"} and source.num_rows == 3
    assert pa.Table.from_batches(list(source.batches())).column("label").to_pylist() == ["cat", "dog", None]


def test_real_hugging_face_dataset():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"x": datasets.Value("int64"), "y": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"x": [1, 2, 3], "y": [0, 1, 1]}, features=features).select([2, 0])
    source = open_table(data)
    assert source.hints == {"y": "category"}
    assert pa.Table.from_batches(list(source.batches())).to_pydict() == {"x": [3, 1], "y": ["yes", "no"]}


scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
)
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2), max_leaves=5
)


@given(st.lists(value, max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_values_make_a_column(values):
    array = values_array(values, common_type(values))
    assert len(array) == len(values)
    assert [v is None for v in values] == array.is_null().to_pylist()
    array.validate(full=True)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_integers_stay_exact(values):
    assert values_array(values, common_type(values)).to_pylist() == values
