"""What each address answers. Endpoints take a request and return a ``Reply``; they know no web framework."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from unisono import __version__
from unisono.serve.asked import ExportAsked, ItemsAsked, WhereAsked, checked, read_body, read_rows, read_search, simple
from unisono.serve.media import Media
from unisono.serve.page import files
from unisono.serve.replies import BINARY, Refused, Reply, json_reply
from unisono.serve.service import Service, embedding_rows, prediction_rows
from unisono.table.write import write_batches

Endpoint = Callable[[Any], Awaitable[Reply]]
_EXPORTS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet", "jsonl": "application/jsonl"}
_GROUPS = 500


class Endpoints:
    """Every address of a service."""

    def __init__(self, service: Service, openapi: dict[str, Any]) -> None:
        """Bind a service.

        Args:
            service: answers.
            openapi: describes the addresses.
        """
        self.service, self.openapi, self.media, self.files = service, openapi, Media(), files()

    def table(self) -> list[tuple[str, str, Endpoint]]:
        """(method, path, endpoint) of every address."""
        return [
            ("GET", "/", self.page), ("GET", "/docs", self.docs), ("GET", "/page/{name}", self.file),
            ("GET", "/openapi.json", self.description), ("GET", "/health", self.health), ("GET", "/metrics", self.metrics),
            ("GET", "/schema", self.schema), ("POST", "/predict", self.predict), ("POST", "/embed", self.embed),
            ("POST", "/search", self.search), ("GET", "/items/{key:path}/media/{column}", self.item_media),
            ("GET", "/items/{key:path}", self.item), ("POST", "/gallery/items", self.items), ("POST", "/gallery/rows", self.rows),
            ("GET", "/gallery/facets", self.facets), ("GET", "/gallery/codes", self.codes), ("GET", "/gallery/map", self.map),
            ("GET", "/gallery/duplicates", self.duplicates), ("POST", "/gallery/export", self.export),
        ]  # fmt: skip

    # -- what is served -----------------------------------------------------------------------------------------------------

    async def health(self, request: Any) -> Reply:
        """Whether it lives, and what it serves."""
        gallery = self.service.gallery
        return json_reply(
            {"status": "ok", "model": self.service.name, "items": None if gallery is None else gallery.size, "version": __version__}
        )

    async def metrics(self, request: Any) -> Reply:
        """Counters for Prometheus."""
        gauges = {"queue_length": len(self.service.batcher), "requests_inside": self.service.gate.inside}
        return Reply(self.service.metrics.text(**gauges).encode(), "text/plain; version=0.0.4; charset=utf-8")

    async def description(self, request: Any) -> Reply:
        """The OpenAPI document."""
        return json_reply(self.openapi)

    async def schema(self, request: Any) -> Reply:
        """Columns, targets, sides and limits."""
        schema, gallery, limits = self.service.schema, self.service.gallery, self.service.limits
        columns = [
            {"name": c.name, "modality": c.modality, "source": c.source, "many": c.many, "choices": _choices(c)} for c in schema.columns
        ]
        content: dict[str, Any] = {
            "model": self.service.name,
            "columns": columns,
            "targets": [{"name": t.name, "task": t.task} for t in schema.targets],
            "short": simple({c.name: c for c in schema.columns}),
            "limits": {"upload": limits.upload, "seconds": limits.seconds},
            "gallery": None,
        }
        if gallery is not None:
            fields = [{"name": n, "kind": k} for n, k in gallery.kinds.items()]
            content["gallery"] = {
                "size": gallery.size,
                "key": gallery.index.key,
                "sides": gallery.sides,
                "aligned": gallery.index.aligned,
                "fields": fields,
            }
        return json_reply(content)

    # -- the model ----------------------------------------------------------------------------------------------------------

    async def predict(self, request: Any) -> Reply:
        """Answers for rows."""
        if not self.service.schema.targets:
            raise Refused(409, "this model has no target, so it predicts nothing; it embeds and searches")
        table = await self._gated(lambda: self._rows("predict", request))
        return json_reply({"predictions": prediction_rows(table, self.service.schema)})

    async def embed(self, request: Any) -> Reply:
        """Vectors of rows."""
        table = await self._gated(lambda: self._rows("embed", request))
        return json_reply({"embeddings": embedding_rows(table)})

    async def search(self, request: Any) -> Reply:
        """The items most like a query."""
        self.service.need_gallery()

        async def work() -> dict[str, Any]:
            return await self.service.search(await read_search(request, self.service.schema))

        return json_reply(await self._gated(work))

    async def _rows(self, kind: str, request: Any) -> Any:
        return await self.service.rows(kind, await read_rows(request, self.service.schema))

    async def _gated(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Work that counts as one request for the model."""
        self.service.gate.enter()
        try:
            return await work()
        finally:
            self.service.gate.leave()

    # -- items --------------------------------------------------------------------------------------------------------------

    async def item(self, request: Any) -> Reply:
        """One item with all its fields."""
        gallery = self.service.need_gallery()
        row = gallery.row_of(request.path_params["key"])
        return json_reply(gallery.items(np.array([row]), whole=True)[0])

    async def item_media(self, request: Any) -> Reply:
        """A media cell: the file itself, or with ``?size=`` a thumbnail or sketch of it."""
        gallery = self.service.need_gallery()
        name, size = request.path_params["column"], request.query_params.get("size")
        row = gallery.row_of(request.path_params["key"])
        if name not in gallery.media:
            raise Refused(404, f"{name!r} is no column of media", f"column {name!r}")
        if size is None:
            reply: Reply = await self.service.aside(lambda: self.media.original(gallery.cell(row, name)))
            return reply
        side, column = int(_number(size, "size", 1, 4096)), gallery.columns[name]
        reply = await self.service.aside(lambda: self.media.small((row, name), lambda: gallery.cell(row, name), column, side))
        return reply

    async def items(self, request: Any) -> Reply:
        """Items by number, for a page."""
        gallery = self.service.need_gallery()
        asked = checked(ItemsAsked, await read_body(request))
        return json_reply({"items": gallery.items(gallery.rows(asked.rows))})

    async def rows(self, request: Any) -> Reply:
        """The numbers of the items that a filter chooses, as little-endian 32-bit integers."""
        gallery = self.service.need_gallery()
        asked = checked(WhereAsked, await read_body(request))
        chosen = await self.service.aside(lambda: gallery.where(asked.where))
        return Reply(chosen.astype("<u4").tobytes(), BINARY)

    async def facets(self, request: Any) -> Reply:
        """What items can be filtered and coloured by."""
        gallery = self.service.need_gallery()
        return json_reply({"facets": [f.to_json() for f in gallery.facets]})

    async def codes(self, request: Any) -> Reply:
        """What items are coloured by, as little-endian 32-bit floats."""
        gallery, name = self.service.need_gallery(), request.query_params.get("column", "")
        codes = await self.service.aside(lambda: gallery.codes(name))
        return Reply(codes.astype("<f4").tobytes(), BINARY)

    async def map(self, request: Any) -> Reply:
        """Places of the items in two dimensions, as little-endian 32-bit floats; the header says whether a better map is to come."""
        gallery, side = self.service.need_gallery(), request.query_params.get("side", "row")
        places, final = await self.service.aside(lambda: gallery.map(side))
        return Reply(places.astype("<f4").tobytes(), BINARY, headers={"X-Map": "final" if final else "first"})

    async def duplicates(self, request: Any) -> Reply:
        """Groups of items that are almost alike."""
        gallery, given = self.service.need_gallery(), request.query_params
        threshold = _number(given.get("threshold", "0.95"), "threshold", 0.5, 1.0)
        groups, exact = await self.service.aside(lambda: gallery.duplicates(given.get("side", "row"), threshold))
        items = sum(len(g) for g in groups)
        return json_reply(
            {"groups": [g.tolist()[:_GROUPS] for g in groups[:_GROUPS]], "items": items, "count": len(groups), "exact": exact}
        )

    async def export(self, request: Any) -> Reply:
        """Items as a file: Parquet with their media, CSV and JSON Lines without."""
        gallery = self.service.need_gallery()
        asked = checked(ExportAsked, await read_body(request))
        rows = gallery.rows(asked.rows)
        content = await self.service.aside(lambda: _written(gallery.batches(rows, media=asked.format == "parquet"), asked.format))
        return Reply(content, _EXPORTS[asked.format], headers={"Content-Disposition": f'attachment; filename="items.{asked.format}"'})

    # -- the page -----------------------------------------------------------------------------------------------------------

    async def page(self, request: Any) -> Reply:
        """The page."""
        return self._file("index.html")

    async def docs(self, request: Any) -> Reply:
        """The addresses, for people."""
        return self._file("docs.html")

    async def file(self, request: Any) -> Reply:
        """A file of the page."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Reply:
        if name not in self.files:
            raise Refused(404, f"the page has no file {name!r}")
        content, kind = self.files[name]
        return Reply(content, kind, headers={"Cache-Control": "no-cache"})


def _choices(column: Any) -> list[str]:
    """The words of a category that the fit saw, the first hundred."""
    words = column.statistics.get("vocabulary") or column.statistics.get("words") or column.statistics.get("classes") or []
    return [str(w) for w in words][:100] if column.modality in {"category", "boolean"} else []


def _number(text: str, name: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise Refused(422, f"a number from {low:g} to {high:g} is expected, got {text[:40]!r}", name)
    return value


def _written(batches: Any, kind: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="unisono-") as folder:
        path = Path(folder) / f"items.{kind}"
        write_batches(path, batches)
        return path.read_bytes()
