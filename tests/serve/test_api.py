from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.serve import standin
from unisono.serve.app import build
from unisono.serve.service import Limits


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """Forty squares, one of them deleted."""
    service = standin.service(limits=Limits(upload=200_000, batch=8), dead=20)
    yield TestClient(build(service, hosts={"testserver"}))
    service.close()


def found(reply: Any) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [h["key"] for h in reply.json()["hits"]]


def error(reply: Any, status: int) -> str:
    assert reply.status_code == status, reply.text
    content = reply.json()["error"]
    assert set(content) == {"message", "where"}
    return str(content["message"])


def test_every_answer_carries_the_headers_of_safety(client: TestClient) -> None:
    for path in ("/", "/health", "/page/main.js", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_search_by_words_pictures_items_and_several_of_these(client: TestClient) -> None:
    red = {f"item/{k}" for k in range(0, 40, 5)}
    assert set(found(client.post("/search", json={"text": "red", "k": 3}))) <= red
    picture = standin.png(standin.COLOURS["red"])
    assert set(found(client.post("/search", files={"image": ("a.png", picture)}, data={"k": "3"}))) <= red
    assert set(found(client.post("/search", json={"image": {"base64": base64.b64encode(picture).decode()}, "k": 3}))) <= red
    assert found(client.post("/search", json={"row": "item/5", "k": 1})) == ["item/5"]
    both = client.post("/search", data={"query.caption": ["red", "yellow"], "k": "4"})
    lean = client.post("/search", data={"text": "red", "minus.caption": "yellow", "k": "4"})
    assert found(both) != found(lean)
    assert found(client.post("/search", json={"text": "red", "to": "photo", "k": 2})) != []


def test_weights_and_filters(client: TestClient) -> None:
    heavy = client.post("/search", data={"text": "red", "weight.caption": "0.5", "k": "5", "where": 'price < 12 and shop = "north"'})
    assert set(found(heavy)) <= {f"item/{k}" for k in range(0, 12, 3)}
    assert "filter" in error(client.post("/search", json={"text": "red", "where": "price <"}), 422)
    assert error(client.post("/search", json={"text": "red", "where": "__import__('os')"}), 422)
    assert "prise" in error(client.post("/gallery/rows", json={"where": "prise < 3"}), 422)


def test_hits_carry_the_items_number(client: TestClient) -> None:
    hits = client.post("/search", json={"text": "blue", "k": 5}).json()["hits"]
    assert [h["key"] for h in hits] == [f"item/{h['row']}" for h in hits]
    assert 20 not in {h["row"] for h in client.post("/search", json={"text": "red", "k": 100}).json()["hits"]}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "empty"),
        ({"text": " "}, "not empty"),
        ({"k": 0, "text": "red"}, "k: Input should be"),
        ({"txt": "red"}, "no such key.*text"),
        ({"row": "nobody"}, "no item 'nobody'"),
        ({"query": {"colour": "red"}}, "no column 'colour'"),
        ({"image": "/etc/passwd"}, "uploaded file"),
        ({"image": {"base64": base64.b64encode(b"GIF87 no").decode()[:-2] + "="}}, "base64|begins like"),
    ],
)
def test_a_query_that_is_none_is_refused(client: TestClient, asked: dict[str, Any], said: str) -> None:
    import re

    assert re.search(said, error(client.post("/search", json=asked), 422))


def test_bodies_that_cannot_be_read(client: TestClient) -> None:
    post = client.post
    assert "no JSON" in error(post("/search", content=b"{", headers={"content-type": "application/json"}), 400)
    assert "no JSON" in error(post("/search", content=b'{"k": NaN}', headers={"content-type": "application/json"}), 400)
    assert "no JSON" in error(post("/search", content=b"[" * 100_000, headers={"content-type": "application/json"}), 400)
    assert "no JSON object" in error(post("/search", json=[1]), 400)
    assert "image/png" in error(post("/search", content=b"x", headers={"content-type": "image/png"}), 415)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert error(post("/search", content=b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", headers=broken), 400)


def test_who_may_ask(client: TestClient) -> None:
    assert "not called 'evil.example'" in error(client.get("/health", headers={"host": "evil.example"}), 403)
    assert "elsewhere" in error(client.post("/search", json={"text": "red"}, headers={"origin": "http://evil.example"}), 403)
    assert client.post("/search", json={"text": "red"}, headers={"origin": "http://testserver"}).status_code == 200


def test_addresses_that_are_not_there(client: TestClient) -> None:
    assert "/docs" in error(client.get("/nothing"), 404)
    assert "GET" in error(client.get("/search"), 405)
    assert "no file" in error(client.get("/page/app.py"), 404)
    assert error(client.get("/page/..%2Fapp.py"), 404)
    assert error(client.get("/items/nobody"), 404)
    assert error(client.get("/items/item/20"), 404)
    assert error(client.get("/items/item/1/media/caption"), 404)


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    assert "200,000" in error(client.post("/search", files={"image": ("a.png", bytes(300_000))}), 413)

    def stream() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(10_000)

    said = client.post("/search", content=stream(), headers={"content-type": "application/json"})
    assert "200,000" in error(said, 413)


def test_items_with_their_fields_and_media(client: TestClient) -> None:
    item = client.get("/items/item/3").json()
    assert item["fields"]["caption"] == "a <b>yellow</b> square & nothing else"
    assert (item["row"], item["key"], item["media"]) == (3, "item/3", ["photo"])
    assert "price" not in item["fields"]
    whole = client.get("/items/item/3/media/photo")
    assert whole.headers["content-type"] == "image/png"
    assert "sandbox" in whole.headers["content-security-policy"]
    small = Image.open(io.BytesIO(client.get("/items/item/3/media/photo?size=50").content))
    assert max(small.size) <= 64
    assert error(client.get("/items/item/10/media/photo?size=64"), 404)
    assert "size" in client.get("/items/item/3/media/photo?size=huge").json()["error"]["where"]


def test_the_gallery_for_a_page(client: TestClient) -> None:
    rows = np.frombuffer(client.post("/gallery/rows", json={"where": None}).content, "<u4")
    assert len(rows) == 39
    assert 20 not in rows
    dear = np.frombuffer(client.post("/gallery/rows", json={"where": "price >= 37"}).content, "<u4")
    assert dear.tolist() == [37, 38, 39]
    items = client.post("/gallery/items", json={"rows": [5, 3]}).json()["items"]
    assert [i["row"] for i in items] == [5, 3]
    assert error(client.post("/gallery/items", json={"rows": [40]}), 422)
    places = np.frombuffer(client.get("/gallery/map").content, "<f4").reshape(-1, 2)
    assert len(places) == 40
    assert np.isnan(places[20]).all()
    assert error(client.get("/gallery/map?side=nowhere"), 422)


def test_facets_and_the_codes_of_their_colours(client: TestClient) -> None:
    facets = {f["name"]: f for f in client.get("/gallery/facets").json()["facets"]}
    assert set(facets) == {"price", "shop", "day"}
    assert (facets["price"]["low"], facets["price"]["high"], facets["price"]["missing"], facets["price"]["whole"]) == (0, 39, 1, True)
    assert sum(facets["price"]["counts"]) == 38
    assert (facets["day"]["kind"], facets["day"]["low"], facets["day"]["high"]) == ("date", "2024-01-01", "2024-02-09")
    words = [w for w, _ in facets["shop"]["values"]]
    assert sorted(words) == ["north", 'say "x"', "south"]
    codes = np.frombuffer(client.get("/gallery/codes", params={"column": "shop"}).content, "<f4")
    assert [words[int(c)] for c in codes[:3]] == ["north", "south", 'say "x"']
    assert np.isnan(np.frombuffer(client.get("/gallery/codes", params={"column": "price"}).content, "<f4")[3])
    assert error(client.get("/gallery/codes", params={"column": "caption"}), 404)


def test_near_duplicates_are_of_one_colour(client: TestClient) -> None:
    groups = client.get("/gallery/duplicates", params={"threshold": 0.999}).json()
    assert groups["exact"] is True
    assert all(len({row % 5 for row in group}) == 1 for group in groups["groups"])
    assert groups["items"] > 20
    assert error(client.get("/gallery/duplicates", params={"threshold": 3}), 422)


def test_export_of_a_selection(client: TestClient) -> None:
    wanted = {"rows": [7, 2]}
    table = pq.read_table(pa.BufferReader(client.post("/gallery/export", json={**wanted, "format": "parquet"}).content))
    assert table.to_pylist() == standin.items().take([7, 2]).to_pylist()
    lines = [json.loads(line) for line in client.post("/gallery/export", json={**wanted, "format": "jsonl"}).text.splitlines()]
    assert [line["name"] for line in lines] == ["item/7", "item/2"]
    reply = client.post("/gallery/export", json={**wanted, "format": "csv"})
    assert reply.headers["content-disposition"] == 'attachment; filename="items.csv"'
    assert reply.text.count("\n") == 3
    assert error(client.post("/gallery/export", json={"rows": []}), 422)


def test_what_describes_itself(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    assert {"/embed", "/search", "/items/{key}/media/{column}"} <= set(described["paths"])
    assert "/predict" not in described["paths"]
    cells = described["paths"]["/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"query.photo", "minus.caption", "where"} <= set(cells)
    schema = client.get("/schema").json()
    assert schema["gallery"]["sides"] == ["row", "photo", "caption"]
    assert schema["short"] == {"text": "caption", "image": "photo"}
    assert "no target" in error(client.post("/predict", json={"rows": [{}]}), 409)
    assert client.get("/health").json()["items"] == 39
    text = client.get("/metrics").text
    assert 'unisono_requests_total{route="/health",status="200"}' in text
    assert "/items/nobody" not in text


def test_embedding_gives_each_source_its_vector(client: TestClient) -> None:
    rows = client.post("/embed", json={"rows": [{"caption": "red"}, {"photo": None}]}).json()["embeddings"]
    assert rows[0]["embedding"] == pytest.approx(rows[0]["embedding.caption"])
    assert rows[0]["embedding.photo"] is None
    assert rows[1]["embedding"] is None
    assert "from 1 to" in error(client.post("/embed", json={"rows": []}), 422)


def test_too_many_requests_are_told_when_to_come_again() -> None:
    service = standin.service(limits=Limits(queue=1))
    client = TestClient(build(service))
    service.gate.enter()
    reply = client.post("/search", json={"text": "red"})
    assert "try again" in error(reply, 429)
    assert int(reply.headers["retry-after"]) >= 1
    service.gate.leave()
    assert client.post("/search", json={"text": "red"}).status_code == 200
    service.close()


def test_a_failure_of_the_server_is_no_traceback() -> None:
    class Broken(standin.Embedder):
        def embeddings(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
            if table.num_rows == 1:
                raise ZeroDivisionError("inside")
            yield from super().embeddings(table)

    service = standin.service(embedder=Broken())
    said = TestClient(build(service)).post("/search", json={"text": "red"})
    assert error(said, 500) == "the server failed; its log says more"
    service.close()


@pytest.mark.parametrize("count", [1, 2])
def test_a_table_of_one_or_two_items_is_served(count: int) -> None:
    service = standin.service(count)
    client = TestClient(build(service))
    assert len(np.frombuffer(client.get("/gallery/map").content, "<f4")) == 2 * count
    assert client.get("/gallery/duplicates").json()["exact"] is True
    assert len(found(client.post("/search", json={"text": "red"}))) == count
    service.close()
