"""A real model and its index, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import unisono
from tests.serve import standin
from unisono.serve.app import build
from unisono.serve.service import Service
from unisono.serve.together import can_share, read, search_together

QUICK = ("width=16", "defaults.mixer=attention(heads=2)", "train.steps=3", "train.batch=16")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Squares in a space that was learned for three steps, one of them deleted."""
    folder = tmp_path_factory.mktemp("real")
    model = unisono.fit(
        standin.items(60), key="name", align=True, columns={"caption": "text"}, settings=QUICK, progress=False, out=folder / "model"
    )
    index = model.index(standin.items(60), folder / "index")
    index.delete(["item/7"])
    service = Service(model.predictor(), "squares", index)
    yield TestClient(build(service))
    service.close()


def hits(client: TestClient, **asked: object) -> list[str]:
    reply = client.post("/search", json=asked)
    assert reply.status_code == 200, reply.text
    return [h["key"] for h in reply.json()["hits"]]


def test_a_picture_finds_captions(client: TestClient) -> None:
    picture = standin.png(standin.COLOURS["red"])
    by_file = client.post("/search", files={"image": ("a.png", picture)}, data={"k": "5", "to": "caption"}).json()["hits"]
    assert len(by_file) == 5
    assert all(-1.0 <= h["score"] <= 1.0001 for h in by_file)
    assert [h["row"] for h in by_file] == [int(h["key"].split("/")[1]) for h in by_file]


def test_words_items_and_both(client: TestClient) -> None:
    assert len(hits(client, text="a red square", k=5)) == 5
    assert "item/3" not in hits(client, row="item/3", k=59)
    assert (
        len(hits(client, query={"caption": ["a red square", "a blue square"]}, minus={"row": "item/4"}, row=["item/1", "item/2"], k=4)) == 4
    )
    assert set(hits(client, text="red", k=50, where="price < 3")) == {"item/0", "item/1", "item/2"}
    assert "item/7" not in hits(client, text="red", k=60)


def test_embedding_is_the_models_own(client: TestClient) -> None:
    rows = client.post("/embed", json={"rows": [{"caption": "a red square"}]}).json()["embeddings"]
    vector = np.array(rows[0]["embedding"])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)
    assert rows[0]["embedding.photo"] is None


def test_the_gallery_leaves_out_what_is_deleted(client: TestClient) -> None:
    assert client.get("/health").json()["items"] == 59
    assert 7 not in np.frombuffer(client.post("/gallery/rows", json={}).content, "<u4")
    assert np.isnan(np.frombuffer(client.get("/gallery/map").content, "<f4").reshape(-1, 2)[7]).all()
    assert client.get("/items/item/8/media/photo?size=64").headers["content-type"] == "image/jpeg"
    assert client.get("/items/item/7").status_code == 404
    assert client.get("/gallery/duplicates?side=photo").status_code == 200


def test_refusals_of_the_index_are_said(client: TestClient) -> None:
    for asked in (
        {"text": "red", "to": "nowhere"},
        {"row": "nobody"},
        {"text": "red", "weights": {"audio": 1}},
        {"minus": {"caption": "red"}},
    ):
        reply = client.post("/search", json=asked)
        assert reply.status_code == 422, asked
        assert reply.json()["error"]["message"]


def test_no_path_of_the_server_is_read(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(standin.png((1, 2, 3)))
    for asked in (
        {"image": str(tmp_path / "secret.png")},
        {"query": {"photo": str(tmp_path / "secret.png")}},
        {"query": {"photo": {"path": "x"}}},
    ):
        assert "uploaded file" in client.post("/search", json=asked).json()["error"]["message"]


def test_searches_together_find_what_each_finds_alone(tmp_path: Path) -> None:
    model = unisono.fit(standin.items(30), key="name", align=True, columns={"caption": "text"}, settings=QUICK, progress=False)
    index = model.index(standin.items(30), tmp_path / "index")
    index.delete(["item/4"])
    asked: list[dict[str, Any]] = [
        {"text": "a red square", "k": 5},
        {"image": standin.png((10, 200, 30)), "k": 3, "to": "caption"},
        {"query": [{"caption": "a"}, {"caption": "blue"}], "minus": {"caption": "grey"}, "weights": {"caption": 0.5}, "k": 50},
    ]
    queries = [read(index, a) for a in asked]
    assert all(can_share(index, q) for q in queries)
    assert not can_share(index, read(index, {"text": "red", "where": "price < 3"}))
    assert not can_share(index, read(index, {"text": "red", "row": "item/1"}))
    together = search_together(index, model.embedder(), queries)
    for found, alone in zip(together, (index.search(**a) for a in asked), strict=True):
        assert found.query == alone.query
        assert [h.key for h in found] == [h.key for h in alone]
        assert [h.fields for h in found] == [h.fields for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone], abs=1e-5)
