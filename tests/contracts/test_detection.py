"""Every example column is taken for what it is, against the claims of all modalities at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.examples import COLUMNS, ROWS
from unisono.core.schema import Column
from unisono.modalities.base import Context, modalities
from unisono.table.infer import describe_columns, detect


@pytest.mark.parametrize("what", sorted(COLUMNS))
def test_a_column_is_taken_for_what_it_is(what: str, tmp_path: Path) -> None:
    example = COLUMNS[what]
    array = example.make(tmp_path)
    found = detect(example.name, array, hint=None, root=tmp_path)
    assert found is not None
    assert found.options["modality"] == example.expect, found.reason
    assert found.many is example.many
    assert found.reason
    assert found.doubt if example.doubt else True
    assert 0 < found.confidence <= 1
    options = {k: v for k, v in found.options.items() if k != "modality"}
    column = Column(example.name, example.expect, "s", 0, many=found.many, options=options)
    cells = modalities.build(example.expect).decode_many(array, column, Context(tmp_path))
    assert not cells.bad
    assert len(cells.cells) == len(array)


@pytest.mark.parametrize("what", sorted(COLUMNS))
def test_nulls_do_not_change_what_a_column_is(what: str, tmp_path: Path) -> None:
    example = COLUMNS[what]
    array = example.make(tmp_path)
    holes = array.take(pa.array([None if k % 3 == 1 else k for k in range(len(array))], pa.int64()))
    found = detect(example.name, holes, hint=None, root=tmp_path)
    assert found is not None
    assert found.options["modality"] == example.expect, found.reason


@pytest.mark.parametrize("word", sorted(modalities.entries))
def test_a_person_goes_before_content(word: str) -> None:
    array = pa.array([[0.5] * 4] * ROWS)
    found = detect("column", array, hint=None, root=None, forced=word)
    assert found is not None
    assert found.options["modality"] == word
    assert found.reason == "as told"


@pytest.mark.parametrize("word", sorted(modalities.entries))
def test_detection_survives_columns_of_any_type(word: str) -> None:
    odd = [
        pa.nulls(5),
        pa.array([], pa.string()),
        pa.array([None, ""]),
        pa.array([[], [], None]),
        pa.array([[[]], [[], []]]),
        pa.array([{"a": 1}, None, {"a": None}]),
        pa.array([b"", b"\x00\xff"]),
        pa.array([{}, {}], pa.struct([])),
        pa.array([[None, 1.0], [2.0]]),
        pa.array([[["a"], None], None]),
        pa.array([float("nan"), float("inf")]),
        pa.array([1, 2], pa.duration("s")),
        pa.array([[{"x": 1}], None]),
        pa.array(["é" * 300, "\x00", "\n"]),
    ]
    for array in odd:
        found = detect("column", array, hint=None, root=None)
        if found is not None:
            assert found.options["modality"] in modalities.entries


def test_identifiers_are_left_out_and_said_aloud() -> None:
    n = 60
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "customer_id": [f"c{k:05d}" for k in range(n)],
            "row": list(range(n)),
            "uuid": [f"{rng.integers(1 << 60):016x}" for _ in range(n)],
            "price": np.round(rng.normal(size=n), 6),
            "year": rng.integers(1950, 2020, n),
            "zip": [f"0{rng.integers(1000, 1020)}" for _ in range(n)],
            "constant": [1.0] * n,
            "copy": ["yes" if k % 3 else "no" for k in range(n)],
            "target": ["good" if k % 3 else "bad" for k in range(n)],
        }
    )
    reports = {r.name: r for r in describe_columns(table, roles={"target": "target"}, overrides={}, hints={}, root=None)}
    for name in ("customer_id", "row", "uuid"):
        assert reports[name].role == "left out", name
        assert "identifier" in reports[name].suspicion
    assert reports["copy"].role == "left out"
    assert "leaked target" in reports["copy"].suspicion
    assert "constant" in reports["constant"].suspicion
    for name in ("price", "year", "zip"):
        assert reports[name].role == "input", name
    kept = describe_columns(table, roles={"target": "target"}, overrides={"customer_id": ""}, hints={}, root=None)
    assert next(r for r in kept if r.name == "customer_id").role == "input"
