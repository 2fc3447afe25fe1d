"""A gallery of coloured squares with a planted space, in memory: a word and a picture of one colour have one vector."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from unisono.core.errors import Unreadable, UserError
from unisono.core.schema import Column, Schema
from unisono.serve.service import Limits, Service
from unisono.table.filter import parse_filter

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 70), "blue": (50, 80, 220), "yellow": (240, 210, 40), "grey": (128, 128, 128)}
SCHEMA = Schema(
    (
        Column("photo", "image", "photo", 0),
        Column("caption", "text", "caption", 1),
        Column("price", "number", "table", 2),
        Column("shop", "category", "table", 3),
    ),
    key="name",
)


def png(colour: Sequence[int], size: int = 24) -> bytes:
    """A square."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), tuple(colour)).save(stream, "PNG")
    return stream.getvalue()


def items(count: int = 40) -> pa.Table:
    """Squares with captions, prices, shops and days; some cells missing."""
    random, words = np.random.default_rng(0), list(COLOURS)
    rows = []
    for k in range(count):
        word = words[k % len(words)]
        colour = [int(np.clip(c + random.integers(-12, 13), 0, 255)) for c in COLOURS[word]]
        rows.append(
            {
                "name": f"item/{k}",
                "photo": None if k % 11 == 10 else png(colour),
                "caption": None if k % 7 == 6 else f"a <b>{word}</b> square & nothing else",
                "price": None if k == 3 else float(k),
                "shop": ["north", "south", 'say "x"'][k % 3],
                "day": datetime.date(2024, 1, 1) + datetime.timedelta(days=k),
            }
        )
    return pa.Table.from_pylist(rows)


def _unit(values: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(values, np.float32)
    return array / max(float(np.linalg.norm(array)), 1e-9)


class Embedder:
    """Colours as vectors: of a picture its mean, of a text the first colour word."""

    key, fingerprint, aligned, sources = "name", "planted", True, ("photo", "caption")
    columns: ClassVar = {c.name: c.modality for c in SCHEMA.columns}

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embeddings(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        """One batch."""
        self.batches.append(table.num_rows)
        found: dict[str, list[Any]] = {"embedding": [], "embedding.photo": [], "embedding.caption": []}
        for row in table.to_pylist():
            photo = (
                None if row.get("photo") is None else _unit(np.asarray(Image.open(io.BytesIO(row["photo"]))).reshape(-1, 3).mean(0) - 90)
            )
            text = row.get("caption")
            word = None if text is None else next((w for w in COLOURS if w in text), None)
            caption = None if word is None else _unit(np.array(COLOURS[word]) - 90.0)
            parts = [v for v in (photo, caption) if v is not None]
            whole = _unit(np.sum(parts, 0)) if parts else None
            for name, value in zip(found, (whole, photo, caption), strict=True):
                found[name].append(None if value is None else value.tolist())
        kind = pa.list_(pa.float32(), 3)
        yield pa.RecordBatch.from_pydict({n: pa.array(v, kind) for n, v in found.items()})


class Hits(list[Any]):
    """What was found."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"query": {}, "hits": [{"rank": k + 1, "key": h.key, "score": h.score, "fields": {}} for k, h in enumerate(self)]}


class Index:
    """Exact search over the planted space; one item is deleted."""

    key, sources, aligned, sides = "name", ("photo", "caption"), True, ("row", "photo", "caption")
    columns = Embedder.columns

    def __init__(self, table: pa.Table, embedder: Any = None, dead: int | None = None) -> None:
        self.whole, self.embedder = table, embedder or Embedder()
        self.rows, self.fields, self.keys = table.num_rows, table.schema, table.column("name")
        self.live = np.arange(self.rows) != (-1 if dead is None else dead)
        self._sides = pa.Table.from_batches(list(self.embedder.embeddings(table)))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Fields."""
        return self.whole if columns is None else self.whole.select(list(columns))

    def media(self, row: int, column: str) -> bytes:
        """A file."""
        value = self.whole.column(column)[row].as_py()
        if value is None:
            raise Unreadable("there is nothing")
        return bytes(value)

    def vectors(self, side: str = "row") -> tuple[Any, Any]:
        """Vectors and presence."""
        values = self._sides.column("embedding" if side == "row" else f"embedding.{side}").to_pylist()
        present = np.array([v is not None for v in values]) & self.live
        return np.array([v or [0.0] * 3 for v in values], np.float32), present

    @property
    def size(self) -> int:
        """Without what is deleted."""
        return int(self.live.sum())

    def take(self, rows: Any) -> pa.Table:
        """Fields of some items."""
        return self.whole.take(pa.array(rows))

    def nearest(self, queries: Any, k: int, *, to: str = "row") -> tuple[Any, Any]:
        """Cosines and numbers of the nearest, -1 where there are fewer."""
        vectors, present = self.vectors(to)
        scores = np.where(present, np.einsum("pe,ne->pn", queries.astype(float), vectors.astype(float)), -np.inf)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, rows, 1)
        return scores, np.where(np.isfinite(scores), rows, -1)

    def _vector(self, name: str, value: Any) -> Any:
        if name == "row":
            keys = self.keys.to_pylist()
            if value not in keys:
                raise UserError(f"there is no item {value!r}")
            return self.vectors()[0][keys.index(value)]
        batch = next(iter(self.embedder.embeddings(pa.table({name: [value]}))))
        found = batch.column("embedding").to_pylist()[0]
        return np.zeros(3) if found is None else np.array(found)

    def search(self, *, k: int, to: str | None, where: str | None, weights: Any, **asked: Any) -> Hits:
        """Add up the parts and rank."""
        names = {"text": "caption", "image": "photo", "row": "row"}
        parts = [(1.0, names[w], v) for w in names for v in _each(asked.get(w))]
        for sign, given in ((1.0, asked["query"]), (-1.0, asked["minus"])):
            parts += [(sign, n, v) for each in given or () for n, v in each.items()]
        if not parts:
            raise UserError("the query is empty")
        vector = _unit(sum(s * (weights or {}).get(n, 1.0) * self._vector(n, v) for s, n, v in parts))
        vectors, present = self.vectors(to or "row")
        if where:
            present = present & parse_filter(where).mask(self.whole.drop(["photo"]))
        scores = np.where(present, vectors @ vector, -np.inf)
        best = [int(r) for r in np.argsort(-scores, kind="stable")[:k] if np.isfinite(scores[r])]
        return Hits(SimpleNamespace(row=r, key=self.keys[r].as_py(), score=float(scores[r])) for r in best)


def _each(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def service(count: int = 40, limits: Limits | None = None, embedder: Any = None, dead: int | None = None) -> Service:
    """The gallery, served without a model."""
    return Service(SimpleNamespace(schema=SCHEMA), "squares", Index(items(count), embedder, dead), limits)  # type: ignore[arg-type]
