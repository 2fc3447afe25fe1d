"""A made-up model whose space is known: words and colours of pictures lie on the same axes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from unisono.core.errors import CellError, Unreadable
from unisono.core.media import media_bytes
from unisono.table.read import TableSource, open_table

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIZE = 8


def picture(colour: str, seed: int = 0) -> bytes:
    """A PNG of one colour with a little noise."""
    rng = np.random.default_rng(seed)
    values = np.clip(np.array(COLOURS[colour]) + rng.integers(-20, 20, (4, 4, 3)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


class Stub:
    """Vectors of 8 numbers: three for colours, one for the price, the rest a little of each word."""

    def __init__(self, *, aligned: bool = True, fingerprint: str = "f" * 64, key: str | None = "id") -> None:
        self.sources: tuple[str, ...] = ("note", "photo", "table")
        self.columns = {"note": "text", "photo": "image", "price": "number"}
        self.key, self.fingerprint, self.aligned = key, fingerprint, aligned
        self.folder: Path | None = None

    def open(self, data: Any) -> TableSource:
        return open_table(data)

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        source, begin = open_table(data), 0
        for batch in source.batches():
            table = {name: batch.column(k).to_pylist() for k, name in enumerate(batch.schema.names)}
            none = [None] * batch.num_rows
            words = [self._words(v) for v in table.get("note", none)]
            photos = [self._photo(v, source, begin + row) for row, v in enumerate(table.get("photo", none))]
            prices = [None if v is None else _unit([0, 0, 0, 1, float(v) / 100, 0, 0, 0]) for v in table.get("price", none)]
            whole = [
                _unit(np.sum(some, 0)) if (some := [v for v in row if v is not None]) else None
                for row in zip(words, photos, prices, strict=True)
            ]
            keyed = self.key is not None and self.key in table
            keys = pa.array(table[self.key] if keyed else range(begin, begin + batch.num_rows))
            names = [self.key if keyed else "row", "embedding", *(f"embedding.{s}" for s in self.sources)]
            yield pa.record_batch([keys, *map(_lists, (whole, words, photos, prices))], names=names)
            begin += batch.num_rows

    @staticmethod
    def _words(text: str | None) -> Any:
        if not text or not text.strip():
            return None
        vector = np.zeros(SIZE)
        for word in text.split():
            vector[list(COLOURS).index(word) if word in COLOURS else 5 + sum(map(ord, word)) % 3] += 1 if word in COLOURS else 0.2
        return _unit(vector)

    @staticmethod
    def _photo(cell: Any, source: TableSource, row: int) -> Any:
        if cell is None:
            return None
        try:
            pixels = np.asarray(Image.open(io.BytesIO(media_bytes(cell, source.root))).convert("RGB"), float)
        except Unreadable as error:
            raise CellError(source.name, row, "photo", error.reason) from None
        except UnidentifiedImageError:
            raise CellError(source.name, row, "photo", "no picture that can be decoded") from None
        return _unit([*pixels.mean((0, 1)), 0, 0, 0, 0, 0])


def _unit(vector: Any) -> Any:
    vector = np.asarray(vector, float)
    return vector / np.linalg.norm(vector)


def _mean(vectors: list[Any]) -> Any:
    return _unit(np.sum(vectors, 0)) if vectors else None


def _lists(vectors: list[Any]) -> pa.Array:
    flat = np.stack([np.zeros(SIZE) if v is None else v for v in vectors]).astype(np.float32)
    mask = pa.array([v is None for v in vectors])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), SIZE, mask=mask)


def things(n: int = 30, first: int = 0) -> pa.Table:
    """Things of three colours, each with some of note, photo and price; the last has none."""
    rows, last = range(first, first + n), first + n - 1
    colour = [list(COLOURS)[k % 3] for k in rows]
    photos = [picture(c, k) if k % 7 and k < last else None for k, c in zip(rows, colour, strict=True)]
    return pa.table(
        {
            "id": [f"t{k:03d}" for k in rows],
            "note": [f"a {c} thing" if k % 5 and k < last else None for k, c in zip(rows, colour, strict=True)],
            "photo": pa.array(photos, pa.binary()),
            "price": [float(k % 10) if k % 2 and k < last else None for k in rows],
            "colour": colour,
            "curve": [[0.0, 1.0]] * n,
        }
    )
