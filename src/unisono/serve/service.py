"""A model, with or without an index, behind a queue: what is asked at the same time runs as one batch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from unisono.core.schema import Schema
from unisono.model.stream import Predictor
from unisono.retrieve.index import Index
from unisono.serve.batcher import Batcher
from unisono.serve.cells import rows_table
from unisono.serve.gallery import Gallery
from unisono.serve.metrics import Metrics
from unisono.serve.replies import Refused
from unisono.serve.together import can_share, read, search_together
from unisono.table.write import plain_value

#: The most rows in one request.
MAX_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server allows.

    Attributes:
        queue: the most requests for the model at once, waiting or running.
        upload: the most bytes of a request.
        seconds: the longest that a request may take to arrive, and then to be answered.
        batch: the most rows of a batch.
        window: seconds that a batch waits for requests which are on their way.
    """

    queue: int = 128
    upload: int = 20 << 20
    seconds: float = 30.0
    batch: int = 32
    window: float = 0.005


class Gate:
    """Lets in a limited number of requests for the model."""

    def __init__(self, limit: int, wait: Callable[[], float]) -> None:
        """Begin empty.

        Args:
            limit: the most requests inside.
            wait: about how many seconds until those inside are done.
        """
        self.limit, self.inside, self._wait = limit, 0, wait

    def enter(self) -> None:
        """Let one in.

        Raises:
            Refused: too many are inside (429, with ``Retry-After``).
        """
        if self.inside >= self.limit:
            seconds = max(1, math.ceil(self._wait()))
            raise Refused(
                429, f"{self.limit} requests are waiting already; try again in {seconds} s", headers={"Retry-After": str(seconds)}
            )
        self.inside += 1

    def leave(self) -> None:
        """Let one out."""
        self.inside -= 1


class Batched:
    """An index's embedder whose tables run in the server's batches."""

    def __init__(self, embedder: Any, batcher: Batcher, seconds: float) -> None:
        """Wrap an embedder.

        Args:
            embedder: the index's own.
            batcher: runs its tables.
            seconds: the longest wait.
        """
        self._embedder, self._batcher, self._seconds = embedder, batcher, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embeddings(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        """Embedding columns of a query's rows."""
        if table.num_rows > self._batcher.rows:
            yield from self._embedder.embeddings(table)
            return
        yield from self._batcher.submit("embed", table, table.num_rows).result(self._seconds).to_batches()


class Service:
    """Answers requests.

    Attributes:
        predictor: the model.
        name: what is served, for people.
        gallery: the items, where an index is served.
        limits: what is allowed.
        metrics: what was done.
        batcher: the queue of the model.
        gate: counts requests.
    """

    def __init__(self, predictor: Predictor, name: str, index: Index | None = None, limits: Limits | None = None) -> None:
        """Start the thread of the model.

        Args:
            predictor: the model.
            name: what is served.
            index: an index of that model.
            limits: what is allowed.
        """
        self.predictor, self.name, self.limits, self.metrics = predictor, name, limits or Limits(), Metrics()
        self._embedder: Any = predictor if index is None else index.embedder
        self.gate = Gate(self.limits.queue, self._wait)
        self.batcher = Batcher(
            self._run, rows=self.limits.batch, window=self.limits.window, queue=2 * self.limits.queue,
            expected=lambda: self.gate.inside, ran=self.metrics.batch,
        )  # fmt: skip
        self.gallery = None if index is None else Gallery(index, self.schema.columns)
        if index is not None:
            batched: Any = Batched(self._embedder, self.batcher, self.limits.seconds)
            index.embedder = batched
        self._threads = ThreadPoolExecutor(max(4, min(self.limits.batch, self.limits.queue)), thread_name_prefix="unisono-search")
        self._aside = ThreadPoolExecutor(4, thread_name_prefix="unisono-page")

    @property
    def schema(self) -> Schema:
        """The model's columns and targets."""
        return self.predictor.schema

    def close(self) -> None:
        """Finish what was begun, then stop the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._aside.shutdown(wait=False, cancel_futures=True)
        self.batcher.stop(self.limits.seconds)

    def need_gallery(self) -> Gallery:
        """The items.

        Raises:
            Refused: a model is served without an index (409).
        """
        if self.gallery is None:
            raise Refused(
                409, "a model without an index is served, so there is nothing to search: make an index with unisono index, and serve it"
            )
        return self.gallery

    def _wait(self) -> float:
        return self.batcher.seconds * (1 + len(self.batcher) / self.limits.batch)

    # -- the thread of the model --------------------------------------------------------------------------------------------

    def _run(self, kind: Hashable, contents: Sequence[Any]) -> Sequence[Any]:
        """Run a batch: queries as one search, or tables of any of the model's columns as one."""
        if kind == "search":
            return search_together(self.need_gallery().index, self._embedder, contents)
        return self._tables(kind, contents)

    def _tables(self, kind: Hashable, tables: Sequence[pa.Table]) -> list[pa.Table]:
        names = [c.name for c in self.schema.columns]
        whole = [pa.table({n: t.column(n) if n in t.column_names else pa.nulls(t.num_rows) for n in names}) for t in tables]
        joint = pa.concat_tables(whole, promote_options="default").combine_chunks()
        batches = self.predictor.predictions(joint) if kind == "predict" else self._embedder.embeddings(joint)
        answer = pa.Table.from_batches(list(batches))
        begins = [0]
        for table in tables:
            begins.append(begins[-1] + table.num_rows)
        return [answer.slice(a, b - a) for a, b in pairwise(begins)]

    # -- what is asked ------------------------------------------------------------------------------------------------------

    async def rows(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Predict or embed rows.

        Args:
            kind: ``predict`` or ``embed``.
            rows: column -> value.

        Raises:
            Refused: a value is none of its column, there are too many rows, or the answer took too long.
        """
        if not 1 <= len(rows) <= MAX_ROWS:
            raise Refused(422, f"a request holds from 1 to {MAX_ROWS} rows, this one {len(rows)}", "rows")
        table = rows_table(rows, self.schema)
        future = asyncio.wrap_future(self.batcher.submit(kind, table, len(rows)))
        return await self._in_time(future)

    async def search(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Search the index; see ``Index.search`` for what can be asked."""
        gallery = self.need_gallery()
        index, query = gallery.index, read(gallery.index, asked)
        if can_share(index, query):
            answer = asyncio.wrap_future(self.batcher.submit("search", query, len(query.parts)))
        else:
            answer = asyncio.get_running_loop().run_in_executor(self._threads, lambda: index.search(**asked))
        return gallery.found(await self._in_time(answer))

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Run something that needs no model beside the event loop."""
        return await self._in_time(asyncio.get_running_loop().run_in_executor(self._aside, work))

    async def _in_time(self, future: Any) -> Any:
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await future
        except TimeoutError:
            raise Refused(503, f"the answer took longer than {self.limits.seconds:g} s", headers={"Retry-After": "5"}) from None


def prediction_rows(table: pa.Table, schema: Schema) -> list[dict[str, Any]]:
    """Predictions row by row: target -> ``{"value": v, "probability": p, "probabilities": {class: p}}`` as far as it has them."""
    columns = {n: [plain_value(v) for v in table.column(n).to_pylist()] for n in table.column_names}
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for target in schema.targets:
        chance, classes = f"{target.name}.probability", f"{target.name}.probability."
        for k, row in enumerate(rows):
            found: dict[str, Any] = {"value": columns[target.name][k]}
            if chance in columns:
                found["probability"] = columns[chance][k]
            each = {n.removeprefix(classes): v[k] for n, v in columns.items() if n.startswith(classes)}
            row[target.name] = {**found, "probabilities": each} if each else found
    return rows


def embedding_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Vectors row by row: ``embedding`` of the row and ``embedding.SOURCE`` of each source, null where it is missing."""
    names = [n for n in table.column_names if n.split(".")[0] == "embedding"]
    return [dict(zip(names, values, strict=True)) for values in zip(*(table.column(n).to_pylist() for n in names), strict=True)]
