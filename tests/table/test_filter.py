"""Filters against a naive evaluator that goes row by row, and refusals that point at the place."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import FilterError
from unisono.table.filter import parse_filter

UTC = datetime.UTC
TABLE = pa.table(
    {
        "split": ["train", "test", None, "my test"],
        "x": [1, 2, None, 4],
        "f": [1.5, float("nan"), None, 2.0],
        "n n": ["1", " 1.0", "abc", None],
        "day": [datetime.date(2024, 1, d) for d in (1, 2, 3, 4)],
        "at": pa.array([datetime.datetime(2024, 1, d, 10) for d in (1, 2, 3, 4)], pa.timestamp("ns")),
        "ok": [True, False, None, True],
        "said": ["True", "false", "", None],
        "iso": ["2024-01-01", "2024-01-02 10:00", "2024-01-03T01:00:00Z", "zz"],
        "tags": [["a"], None, [], ["b"]],
        "big": pa.array([2**63, 5, None, 2**64 - 1], pa.uint64()),
        "id": ["007", "12345678901234567890", "12345678901234567891", None],
        "c": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "and": [1, 2, 3, 4],
        "": ["e", "", None, "e"],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("split=test", "0100"),
        ("split == 'test'", "0100"),
        ('split = "my test"', "0001"),
        ("split != test", "1001"),
        ("split <> test", "1001"),
        ("not (x = 1)", "0101"),
        ("NOT x=1 AND split=test", "0100"),
        ("x in (1, 2.0)", "1100"),
        ("x not in [1]", "0101"),
        ("not x in [1]", "0101"),
        ("split in (test, 'my test')", "0101"),
        ("`n n` = 1", "1100"),
        ('"n n" != 1', "0010"),
        ("'n n' < 5", "1100"),
        ("not `n n` < 5", "0000"),
        ("f is null", "0110"),
        ("f is not null", "1001"),
        ("not f is null", "1001"),
        ("not f > 1", "0000"),
        ("day >= 2024-01-03", "0011"),
        ("day = 2024-01-03", "0010"),
        ("at > 2024-01-03", "0011"),
        ("at > '2024-01-03 10:00'", "0001"),
        ("at >= 2024-01-03T11:00+01:00", "0011"),
        ("iso < 2024-01-03", "1100"),
        ("iso >= '2024-01-02 10:00'", "0110"),
        ("iso != 2024-01-01", "0111"),
        ("ok = true", "1001"),
        ("ok != TRUE", "0100"),
        ("ok = 0", "0100"),
        ("said = true", "1000"),
        ("said != true", "0110"),
        ("said = ''", "0010"),
        ("said is null", "0001"),
        ("x = 1 or x = 2 and split = nothing", "1000"),
        ("(x = 1 or x = 2) and split = test", "0100"),
        ("tags is null", "0100"),
        ("big > 9223372036854775807", "1001"),
        ("big = 18446744073709551615", "0001"),
        ("big < 99999999999999999999999999", "1101"),
        ("big >= -1", "1101"),
        ("x < 1.5", "1000"),
        ("x > -1e3", "1101"),
        ("x < inf", "1101"),
        ("id = 7", "1000"),
        ("id = 007", "1000"),
        ("id = 12345678901234567890", "0100"),
        ("c = u", "1001"),
        ("`and` > 2", "0011"),
        ("'' = e", "1001"),
        ("'it''s' is null or x is not null", None),
        ("split > m", "1101"),
        ("x=1\n or\tx=2", "1100"),
    ],
)
def test_meaning(text, expected):
    if expected is None:
        with pytest.raises(FilterError, match="it's"):
            parse_filter(text).mask(TABLE)
        return
    assert "".join(map(str, parse_filter(text).mask(TABLE).astype(int))) == expected


@pytest.mark.parametrize(
    ("text", "word", "place"),
    [
        ("splt = test", "did you mean 'split'", 0),
        ("x = 1 and splt = 3", "did you mean 'split'", 10),
        ("x = foo", "'foo' is no number", 4),
        ("x in (1, foo)", "'foo' is no number", 9),
        ("day < foo", "no ISO date", 6),
        ("ok = 3", "neither", 5),
        ("ok < true", "no order", 5),
        ("tags = a", "is null", 7),
        ("x = null", "is null", 4),
        ("x =", "expected a value, found the end", 3),
        ("x", "found the end", 1),
        ("x = 1 2", "quotes", 6),
        ("(x = 1", "expected ')'", 6),
        ("x = 1)", "expected 'and'", 5),
        ("x in ()", "expected a value", 6),
        ("x in 1", "expected '('", 5),
        ("x in (1]", "expected ','", 7),
        ("x in (1 2)", "expected ','", 8),
        ("x is 3", "expected 'null'", 5),
        ("x not 3", "expected 'in'", 6),
        ("and = 3", "expected a column", 0),
        ("x = 'a", "never closed", 4),
        ("x ! 3", "'!' means nothing", 2),
        ("5 < x < 6", "expected 'and'", 6),
        ("x = 1 or", "expected a column", 8),
    ],
)
def test_errors_point_at_the_place(text, word, place):
    with pytest.raises(FilterError) as caught:
        parse_filter(text).mask(TABLE)
    message = str(caught.value)
    assert word in message
    _, shown, caret = message.split("\n")
    assert shown == f"  {text}" and caret == "  " + " " * place + "^"


def test_bounds():
    for text in ("", "  ", "x = 1 " * 5000, "(" * 60 + "x=1" + ")" * 60, "not " * 60 + "x=1", f"x in ({','.join(['1'] * 6000)})"):
        with pytest.raises(FilterError):
            parse_filter(text)
    assert parse_filter(" or ".join(["x = 1"] * 1000)).mask(TABLE).tolist() == [True, False, False, False]
    assert parse_filter("a = 1 and (b is null or `c d` in (2))").columns == {"a", "b", "c d"}


def test_chunks_and_empty_tables():
    table = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 2), TABLE.slice(3)])
    assert parse_filter("x > 1 or c = u").mask(table).tolist() == [True, True, False, True]
    assert parse_filter("x > 1").mask(TABLE.slice(0, 0)).tolist() == []


ROWS = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-3, 3),
        "f": st.none() | st.sampled_from([-1.5, 0.0, 2.0, float("nan"), float("inf")]),
        "t": st.none() | st.sampled_from(["a", "b", "1", "1.0", "-2", ""]),
        "b": st.none() | st.booleans(),
    }
)
OPERATORS = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@st.composite
def expressions(draw, depth=3):
    kind = draw(st.sampled_from(["test", "in", "null"] + (["and", "or", "not"] if depth else [])))
    if kind == "not":
        return ("not", draw(expressions(depth=depth - 1)))
    if kind in {"and", "or"}:
        return (kind, *draw(st.lists(expressions(depth=depth - 1), min_size=2, max_size=3)))
    column = draw(st.sampled_from("nftb"))
    if kind == "null":
        return ("null", column, draw(st.booleans()))
    values = {"n": ["-2", "0", "1.0", "3"], "f": ["-1.5", "0", "2"], "t": ["a", "b", "1", "-2"], "b": ["true", "false"]}[column]
    if kind == "in":
        return ("in", column, draw(st.booleans()), draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
    operator = draw(st.sampled_from(["=", "!="] if column == "b" else sorted(OPERATORS)))
    return ("test", column, operator, draw(st.sampled_from(values)))


def written(node) -> str:
    match node:
        case ("not", part):
            return f"not ({written(part)})"
        case ("and" | "or" as word, *parts):
            return f" {word} ".join(f"({written(p)})" for p in parts)
        case ("null", column, negative):
            return f"{column} is {'not ' if negative else ''}null"
        case ("in", column, negative, values):
            return f"{column} {'not ' if negative else ''}in ({', '.join(values)})"
        case ("test", column, operator, value):
            return f"{column} {operator} '{value}'"
    raise AssertionError(node)


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


def compared(cell, operator, value):
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, bool):
        return OPERATORS[operator](cell, value == "true")
    if isinstance(cell, str):
        if number(value) is None:
            return OPERATORS[operator](cell, value)
        if number(cell) is None:
            return {"=": False, "!=": True}.get(operator)
        return OPERATORS[operator](number(cell), number(value))
    return OPERATORS[operator](cell, float(value))


def naive(node, row):
    """True, False or None for unknown."""
    match node:
        case ("not", part):
            value = naive(part, row)
            return None if value is None else not value
        case ("and", *parts):
            values = [naive(p, row) for p in parts]
            return False if False in values else None if None in values else True
        case ("or", *parts):
            values = [naive(p, row) for p in parts]
            return True if True in values else None if None in values else False
        case ("null", column, negative):
            cell = row[column]
            return (cell is None or (isinstance(cell, float) and math.isnan(cell))) != negative
        case ("in", column, negative, values):
            value = naive(("or", *(("test", column, "=", v) for v in values)), row)
            return None if value is None else value != negative
        case ("test", column, operator, value):
            return compared(row[column], operator, value)
    raise AssertionError(node)


@given(expressions(), st.lists(ROWS, min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_against_a_naive_evaluator(node, rows):
    types = {"n": pa.int32(), "f": pa.float64(), "t": pa.string(), "b": pa.bool_()}
    table = pa.table({name: pa.array([r[name] for r in rows], dtype) for name, dtype in types.items()})
    mask = parse_filter(written(node)).mask(table)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [naive(node, row) is True for row in rows]


@given(st.text(alphabet="xf ='\"`()[],<>!andornotinisnull0123-.\n", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_filter_or_refused(text):
    try:
        parse_filter(text).mask(TABLE)
    except FilterError as error:
        assert str(error)
