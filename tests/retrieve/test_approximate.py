"""Approximate search: its recall is measured, filters and later rows are honoured, damage is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.retrieve.stub import Stub, things
from unisono.core.errors import DependencyError, IndexFolderError
from unisono.retrieve import approximate
from unisono.retrieve.approximate import Graph
from unisono.retrieve.exact import search
from unisono.retrieve.index import Index
from unisono.retrieve.make import build_index
from unisono.retrieve.scan import Gallery

pytest.importorskip("faiss")


def clustered(n: int, e: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, e))[rng.integers(0, 40, n)] + 0.4 * rng.normal(size=(n, e))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_recall_is_that_of_the_rows_themselves() -> None:
    vectors = clustered(3000)
    present = np.arange(3000) % 3 > 0
    graph = Graph.build(Gallery.of(vectors), present)
    queries = vectors[np.flatnonzero(present)[5::10]]
    _, found = graph.nearest(queries, 10)
    assert present[found].all()
    _, truth = search(Gallery.of(vectors), queries, 10, present)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert graph.recall >= Graph.WANTED
    assert recall == pytest.approx(graph.recall, abs=0.03)
    allowed = np.arange(3000) % 2 == 0
    assert allowed[graph.nearest(queries, 10, allowed)[1]].all()


def test_an_index_with_a_graph_finds_what_exact_search_finds(tmp_path: Path) -> None:
    index = build_index(Stub(), things(120), tmp_path / "idx", approximate=True)
    assert set(index.approximate) == set(index.sides)
    assert all(r > 0.9 for r in index.approximate.values())
    for asked in ({"text": "red", "to": "photo"}, {"row": "t003"}, {"text": "blue", "where": "colour = blue"}):
        some, every = index.search(k=3, **asked), index.search(k=3, exact=True, **asked)
        assert [h.score for h in some] == pytest.approx([h.score for h in every], abs=1e-3)
    index.add(things(6, 300))
    assert index.search(row="t301", k=1).hits[0].score == pytest.approx(index.search(row="t301", k=1, exact=True).hits[0].score)
    index.delete([h.key for h in index.search(text="red", to="photo", k=5)])
    again = Index(tmp_path / "idx", embedder=Stub(), verify=True)
    hits = again.search(text="red", to="photo", k=200)
    assert [h.key for h in hits] == [h.key for h in again.search(text="red", to="photo", k=200, exact=True)]
    index.add(things(60, 400))
    assert {g["rows"] for g in index._content["graphs"].values()} == {index.rows}, "too many rows were outside the graph"


def test_a_damaged_graph_and_an_absent_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = build_index(Stub(), things(40), tmp_path / "idx", approximate=True)
    path = tmp_path / "idx" / index._content["graphs"]["row"]["file"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(IndexFolderError, match="content is not what"):
        Index(tmp_path / "idx")
    path.write_bytes(data[:100])
    with pytest.raises(IndexFolderError, match="damaged"):
        Graph.from_file(path, np.arange(40), recall=1, effort=16)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(DependencyError, match=r"unisono\[ann\]"):
        approximate.library()
    with pytest.raises(DependencyError, match=r"unisono\[ann\]"):
        build_index(Stub(), things(10), tmp_path / "other", approximate=True)
    assert not (tmp_path / "other").exists()


def test_vectors_that_are_all_alike(tmp_path: Path) -> None:
    table = pa.concat_tables([things(3).slice(1, 1)] * 50).set_column(0, "id", pa.array([f"s{k:02d}" for k in range(50)]))
    index = build_index(Stub(), table, tmp_path / "idx", approximate=True)
    assert len(index.search(text="red", k=5)) == 5
