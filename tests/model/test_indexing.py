"""A real model behind an index: what it is known by, and that queries go the way of a table's cells.

The space of these models is not aligned; tests that say so anyway look at the way of a query, not at what it means.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import unisono
from tests.model.tables import SMALL, fitted, pictures, weather
from unisono.core.errors import IndexFolderError, QueryError
from unisono.core.files import sha256
from unisono.model.indexing import PredictorEmbedder


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PredictorEmbedder, "aligned", True)


@cache
def seeing() -> unisono.Model:
    return unisono.fit(pictures(), "light", settings=[*SMALL, "train.steps=3"], progress=False)


def test_an_index_knows_its_model_by_the_weights_file(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "model")
    assert model.embedder().fingerprint == sha256(tmp_path / "model" / "model.safetensors")
    unisono.load(tmp_path / "model").index(weather(40), tmp_path / "idx")
    index = unisono.open_index(tmp_path / "idx")
    assert index.model_folder == tmp_path / "model"
    assert index.embedder is not None
    assert (index.size, index.key, index.sources) == (40, "key", ("table", "note", "curve"))
    (tmp_path / "model").rename(tmp_path / "moved")
    assert unisono.open_index(tmp_path / "idx").embedder is None
    assert unisono.open_index(tmp_path / "idx", tmp_path / "moved").embedder is not None
    with pytest.raises(IndexFolderError, match="another model"):
        unisono.open_index(tmp_path / "idx", seeing())


def test_the_index_holds_the_models_vectors() -> None:
    model, table = fitted(), weather(50)
    index = model.index(table)
    expected = np.stack(model.embed(table).column("embedding").to_numpy(zero_copy_only=False))
    vectors, present = index.vectors("row")
    assert present.all()
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    alone = model.embed(table).column("embedding.note")
    assert index.vectors("note")[1].tolist() == [v.is_valid for v in alone.combine_chunks()]
    found = index.search(row="k0003", k=3)
    scores = vectors.astype(np.float64) @ vectors[3].astype(np.float64)
    scores[3] = -np.inf
    assert [h.row for h in found] == np.argsort(-scores, kind="stable")[:3].tolist()
    with pytest.raises(QueryError, match="--align"):
        index.search(text="a good day")


@pytest.mark.usefixtures("aligned")
def test_a_part_of_a_query_is_a_row_with_that_cell_alone() -> None:
    model = fitted()
    index = model.index(weather(50))
    for column, value, cell in (
        ("note", "a good day", "a good day"),
        ("number", "3.5", 3.5),
        ("colour", "red", "red"),
        ("curve", str([0.1] * 16), [0.1] * 16),
    ):
        one = model.embed(pa.table({"key": ["x"], column: [cell]})).column("embedding")[0].as_py()
        vectors = index.vectors("row")[0].astype(np.float64)
        expected = np.argsort(-(vectors @ (np.array(one) / np.linalg.norm(one))), kind="stable")[:4].tolist()
        assert [h.row for h in index.search(query={column: value}, k=4)] == expected, column
    with pytest.raises(QueryError, match="reads no image"):
        index.search(image=b"anything")
    with pytest.raises(QueryError, match="three, says nothing"):
        index.search(query={"number": "three"})


@pytest.mark.usefixtures("aligned")
def test_pictures_are_read_and_refused(tmp_path: Path) -> None:
    table = pictures()
    index = seeing().index(table)
    photo = table.column("photo")[1].as_py()
    (tmp_path / "a.png").write_bytes(photo)
    by_bytes, by_path = (index.search(image=given, to="photo", k=5) for given in (photo, tmp_path / "a.png"))
    assert by_bytes.hits == by_path.hits
    assert by_bytes.hits[0].row == 1
    assert by_bytes.hits[0].score == pytest.approx(1, abs=1e-5)
    (tmp_path / "b.png").write_text("this says that it is a picture")
    for bad in (tmp_path / "b.png", photo[:-40], b"\x89PNG"):
        with pytest.raises(QueryError, match="cannot be read as image"):
            index.search(image=bad)
    assert (
        len(index.search(image=[photo, table.column("photo")[2].as_py()], minus={"words": "a big blue dog runs and runs the dog red"}, k=7))
        == 7
    )


def test_keys_and_cells_that_cannot_be_indexed(tmp_path: Path) -> None:
    table = weather(20)
    twice = table.set_column(0, "key", pa.array(["same"] * 20))
    with pytest.raises(unisono.UserError, match="same key 'same'"):
        fitted().index(twice, tmp_path / "idx")
    seen = pictures(10)
    bad = seen.set_column(0, "photo", pa.array([b"no picture"] + [None] * 9, pa.binary()))
    with pytest.raises(unisono.UserError, match="row 0, column 'photo'"):
        seeing().index(bad, tmp_path / "idx")
    assert not list(tmp_path.iterdir())
    index = seeing().index(bad, tmp_path / "idx", reading={"bad_cells": "missing"})
    assert int(index.vectors("photo")[1].sum()) == 0
