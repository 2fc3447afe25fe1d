from __future__ import annotations

import base64
from typing import Any

import pyarrow as pa
import pytest

from tests.serve.standin import SCHEMA, png
from unisono.core.schema import Column, Schema
from unisono.serve.cells import media_value, rows_table
from unisono.serve.replies import Refused

PICTURE = png((1, 2, 3))
NESTED = Schema((Column("wave", "series", "wave", 0), Column("tags", "text", "tags", 1, many=True), Column("when", "datetime", "table", 2)))


def test_every_column_is_there_in_its_type() -> None:
    rows = [
        {"photo": PICTURE, "price": "3.5", "shop": 7},
        {"photo": {"base64": base64.b64encode(PICTURE).decode()}, "caption": "a", "name": "k"},
    ]
    table = rows_table(rows, SCHEMA)
    assert table.column_names == ["photo", "caption", "price", "shop"]
    assert table.schema.types == [pa.large_binary(), pa.large_string(), pa.float64(), pa.large_string()]
    assert table.to_pylist() == [
        {"photo": PICTURE, "caption": None, "price": 3.5, "shop": "7"},
        {"photo": PICTURE, "caption": "a", "price": None, "shop": None},
    ]


def test_types_do_not_depend_on_what_a_row_leaves_out() -> None:
    assert rows_table([{}], SCHEMA).schema == rows_table([{"photo": PICTURE, "caption": "x", "price": 1, "shop": "y"}], SCHEMA).schema


def test_lists_and_nested_values() -> None:
    table = rows_table([{"wave": [0.5, 1.0], "tags": ["a", "b"], "when": "2024-02-03"}, {"tags": "c"}], NESTED)
    assert table.column("tags").to_pylist() == [["a", "b"], ["c"]]
    assert table.column("wave").to_pylist() == [[0.5, 1.0], None]


@pytest.mark.parametrize(
    ("row", "said", "where"),
    [
        ({"prise": 1}, "no column 'prise'.*price", "column 'prise'"),
        ({"price": "cheap"}, "'cheap' is no finite number", "row 0, column 'price'"),
        ({"price": 1e999}, "no finite number", "column 'price'"),
        ({"price": [1]}, "a list is no finite number", "column 'price'"),
        ({"photo": "/etc/passwd"}, "uploaded file", "column 'photo'"),
        ({"photo": {"path": "/etc/passwd"}}, "uploaded file", "column 'photo'"),
        ({"photo": {"base64": "###"}}, "no base64", "column 'photo'"),
        ({"photo": b"hello"}, "it begins like text", "column 'photo'"),
        ({"photo": b"RIFF0000WAVE"}, "it begins like a sound", "column 'photo'"),
        ({"photo": b""}, "empty", None),
        ({"photo": [PICTURE, PICTURE]}, "takes one file, got 2", "column 'photo'"),
        ({"caption": {"a": 1}}, "takes one value, got an object", "column 'caption'"),
        ({"shop": "x" * 300}, "300 characters is no category", "column 'shop'"),
    ],
)
def test_what_is_no_cell_is_refused_with_the_place(row: dict[str, Any], said: str, where: str | None) -> None:
    if row == {"photo": b""}:
        with pytest.raises(Refused, match=said):
            media_value(b"", "image", "photo")
        return
    with pytest.raises(Refused, match=said) as refused:
        rows_table([row], SCHEMA)
    assert refused.value.status == 422
    assert where is not None
    assert where in str(refused.value.where)


@pytest.mark.parametrize("value", ["/etc/passwd", "points.npy", {"path": "x.csv"}])
def test_no_text_is_taken_for_a_path(value: Any) -> None:
    with pytest.raises(Refused, match="lists of numbers"):
        rows_table([{"wave": value}], NESTED)


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        rows_table([{}, {"when": "soon"}], NESTED)
    assert refused.value.where == "row 1, column 'when'"
