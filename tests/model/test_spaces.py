"""Measuring a shared space on a table, with a model that is planted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.model.tables import fitted, weather
from unisono.core.errors import CellError, UserError
from unisono.core.schema import Column, Schema
from unisono.model.spaces import SpaceQuestions, evaluate_space
from unisono.table.read import open_table

WORDS = ("red", "green", "blue", "white")


class Planted:
    """A model that knows four words and how a vector stands for each; it stumbles over the word it is told to."""

    aligned = True
    product = False
    schema = Schema((Column("shape", "vector", "shape", 0), Column("words", "text", "words", 1), Column("price", "number", "table", 2)))

    def __init__(self, bad: str | None = None) -> None:
        self.bad = bad

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        begin = 0
        for batch in open_table(data).batches(5):
            sides: dict[str, list[Any]] = {"embedding.shape": [], "embedding.words": [], "embedding.table": []}
            for place, row in enumerate(batch.to_pylist()):
                if self.bad is not None and row.get("words") == self.bad:
                    raise CellError("t", begin + place, "words", "planted")
                known = [w for w in WORDS if row.get("words") is not None and w in row["words"]]
                sides["embedding.words"].append(np.eye(4)[WORDS.index(known[0])] if known else None)
                sides["embedding.shape"].append(row.get("shape"))
                sides["embedding.table"].append(None)
            begin += batch.num_rows
            kind = pa.list_(pa.float32(), 4)
            yield pa.record_batch({n: pa.array([None if x is None else list(x) for x in v], kind) for n, v in sides.items()})


def table() -> pa.Table:
    """Three rows of each word, one shape of twelve wrong."""
    words = [w for w in WORDS for _ in range(3)]
    shape = [np.eye(4)[WORDS.index(w)].tolist() for w in words]
    shape[0] = np.eye(4)[1].tolist()
    return pa.table(
        {
            "shape": shape, "words": [f"so {w}" for w in words], "price": np.arange(12.0), "class": words,
            "made": ["x", None, *["y"] * 10], "split": ["train", *["test"] * 11],
        }
    )  # fmt: skip


def measured(model: Any = None, data: Any = None, **questions: Any) -> dict[str, Any]:
    return evaluate_space(model or Planted(), open_table(table() if data is None else data), SpaceQuestions(**questions))


def between(found: dict[str, Any], a: str, b: str) -> dict[str, Any]:
    return next(r for r in found["retrieval"] if (r["from"], r["to"]) == (a, b))


def test_equal_cells_are_found_together_and_the_wrong_one_is_a_miss() -> None:
    row = between(found := measured(), "words", "shape")
    assert row["r@1"] == 1.0  # every green shape stands for 'so green', the one of the row that says red too
    assert between(found, "shape", "words")["n"] == 12
    assert set(found) == {"retrieval", "space"}
    assert found["space"]["rows"] == 12
    clean = measured(where='split = "test"')
    assert clean["space"]["rows"] == 11
    assert between(clean, "words", "shape")["map"] == pytest.approx(1.0)
    assert between(clean, "words", "shape")["map"] > row["map"]


def test_a_group_makes_rows_one_item() -> None:
    plain, grouped = (between(measured(group=g), "shape", "words")["map"] for g in (None, "made"))
    assert plain < grouped == pytest.approx(1.0)  # rows of 'y' hold every word
    alone = between(measured(group="class"), "shape", "words")
    assert alone["map"] == pytest.approx(plain)


def test_classes_by_their_names() -> None:
    (row,) = measured(zero_shot="class", templates=["a {} thing", "{}"])["zero_shot"][:1]
    assert (row["from"], row["text"], row["classes"], row["n"]) == ("shape", "words", 4, 12)
    assert row["accuracy"] == pytest.approx(11 / 12)
    with pytest.raises(UserError, match="the model makes nothing of 'x'"):
        measured(zero_shot="made")


def test_the_row_in_an_error_is_that_of_the_table(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "t.parquet")
    with pytest.raises(CellError) as caught:
        measured(Planted(bad="so green"), str(tmp_path / "t.parquet"), where='split = "test"')
    assert caught.value.row == 3


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ({"group": "mad"}, "did you mean 'made'"),
        ({"zero_shot": "clas"}, "did you mean 'class'"),
        ({"zero_shot": "class", "templates": ["a picture"]}, "write {} where"),
        ({"templates": ["{}"]}, "--zero-shot"),
        ({"zero_shot": "class", "text": "shape"}, "no text column"),
        ({"zero_shot": "shape"}, "names no classes"),
        ({"where": "price > 100"}, "no row satisfies"),
        ({"where": "price = 3"}, "at least two rows"),
    ],
)
def test_questions_that_have_no_answer_are_refused(questions: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(**questions)


def test_a_model_without_a_shared_space_names_the_step_that_is_missing() -> None:
    with pytest.raises(UserError, match="--align"):
        fitted().evaluate(weather(), retrieval=True)
    with pytest.raises(UserError, match="belongs to --retrieval"):
        fitted().evaluate(weather(), group="key")


def test_an_aligned_model_is_measured_from_python_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from tests.model import aligned
    from unisono.cli.main import main

    table = aligned.codes(240)
    found = aligned.fitted().evaluate(table, where='split = "test"', retrieval=True, zero_shot="kind", report=tmp_path / "page.html")
    assert {(r["from"], r["to"]) for r in found["retrieval"]} == {(a, b) for a in SIDES for b in SIDES if a != b}
    assert np.mean([r["r@10"] for r in found["retrieval"]]) > 0.5
    assert {r["from"] for r in found["zero_shot"]} == {"left", "right"}
    page = (tmp_path / "page.html").read_text()
    assert "The worst misses" in page
    assert re.search(r"<bdi>k\d{3}</bdi>", page)
    aligned.fitted().evaluate(table, retrieval=True, report=tmp_path / "bare.html", examples=False)
    assert not re.search(r"k\d{3}", (tmp_path / "bare.html").read_text())
    model = aligned.fit(table, out=tmp_path / "m", settings=("train.steps=5",))
    assert model.metrics["space"]["rows"] == 48
    assert "Search across sources" in (tmp_path / "m" / "report.html").read_text()
    pq.write_table(table, tmp_path / "t.parquet")
    words = ["evaluate", str(tmp_path / "m"), str(tmp_path / "t.parquet"), "--where", 'split = "test"', "--retrieval", "--quiet"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"retrieval", "space"}
    assert [r["map"] for r in told["retrieval"]] == pytest.approx([r["map"] for r in model.metrics["retrieval"]])
    assert main(words) == 0
    assert "note to left" in capsys.readouterr().out
    assert main([*words, "--zero-shot", "no"]) == 2
    assert "no column 'no'" in capsys.readouterr().err


SIDES = ("note", "left", "right")
