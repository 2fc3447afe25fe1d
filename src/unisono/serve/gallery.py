"""The items behind an index as a page needs them: fields, facets, filters, colours, the map, duplicates, export.

Letters: N items, E dimensions of the space.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import Unreadable
from unisono.core.schema import ROW, SCALARS, Column
from unisono.retrieve.hits import Hits
from unisono.retrieve.index import Index
from unisono.serve.cells import MEDIA
from unisono.serve.facets import Facet, codes_of, facet_of, kind_of
from unisono.serve.layout import near_duplicates, neighbourly, principal
from unisono.serve.replies import Refused
from unisono.table.filter import parse_filter
from unisono.table.write import plain_value

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]
_BLOCK = 256
_TEXT = 1000
_MORE = " …"


class Gallery:
    """An index with what a page shows of it.

    Attributes:
        index: the index.
        kinds: column -> how it is shown (see ``kind_of``).
        table: the columns that hold no media.
        keys: the items' names, in order.
        live: the numbers of the items that are not deleted.
        facets: what items can be filtered and coloured by.
    """

    def __init__(self, index: Index, columns: Sequence[Column] = ()) -> None:
        """Read the items once.

        Args:
            index: the index.
            columns: the model's columns, which say what a field is.
        """
        known = {c.name: c for c in columns}
        self.index = index
        self.columns = {f.name: known.get(f.name) or _guessed(f) for f in index.fields}
        light = [f.name for f in index.fields if self.columns[f.name].modality in {*SCALARS, "text", "sequence"}]
        self.media = [f.name for f in index.fields if f.name not in light]
        self.table = index.table(light)
        self.live = np.flatnonzero(index.live)
        self.present = {n: index.table([n]).column(0).is_valid().to_numpy() for n in self.media}
        self.keys: list[Any] = index.keys.to_pylist()
        self._rows = {str(self.keys[row]): int(row) for row in self.live}
        shown = self.table.take(pa.array(self.live))
        self.kinds = {n: kind_of(self.columns[n], shown.column(n) if n in light else None, known=n in known) for n in index.fields.names}
        found = [facet_of(n, self.kinds[n], shown.column(n)) for n in light if n != index.key]
        self.facets: list[Facet] = [f for f in found if f is not None]
        self._maps: dict[str, Floats] = {}
        self._final: set[str] = set()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The number of items."""
        return len(self.live)

    @property
    def sides(self) -> list[str]:
        """What can be searched: the row, and every source when there are several."""
        return [ROW, *self.index.sources] if self.index.aligned else [ROW]

    def row_of(self, key: str) -> int:
        """An item's number by its key.

        Raises:
            Refused: there is no such item (404).
        """
        if key not in self._rows:
            raise Refused(404, f"there is no item {key!r}", "key")
        return self._rows[key]

    def rows(self, given: Sequence[int]) -> Indices:
        """Numbers of items, checked.

        Raises:
            Refused: one is no item.
        """
        rows = np.asarray(given, np.int64).reshape(-1)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.index.rows):
            raise Refused(422, f"rows are numbers from 0 to {self.index.rows - 1}", "rows")
        return rows

    def where(self, text: str | None) -> Indices:
        """The items that a filter chooses, in order.

        Raises:
            FilterError: it is no filter, or names no field.
        """
        if text is None or not text.strip():
            return self.live
        return self.live[parse_filter(text).mask(self.table)[self.live]]

    def items(self, rows: Indices, *, whole: bool = False) -> list[dict[str, Any]]:
        """Items as plain values: their number, key, fields without media, and which media they have.

        Args:
            rows: numbers.
            whole: texts are not cut.
        """
        found = self.table.take(pa.array(rows)).to_pylist()
        items = []
        for row, fields in zip(rows.tolist(), found, strict=True):
            shown = {n: _shown(plain_value(v), whole) for n, v in fields.items() if v is not None}
            media = [n for n in self.media if self.present[n][row]]
            items.append({"row": row, "key": plain_value(self.keys[row]), "fields": shown, "media": media})
        return items

    def cell(self, row: int, name: str) -> Any:
        """One cell: the bytes of a file, or a Python value.

        Raises:
            Refused: there is no such column, or its file cannot be read (404).
        """
        if name not in self.kinds:
            raise Refused(404, f"there is no field {name!r}", f"column {name!r}")
        value = self.index.table([name]).column(0)[row].as_py()
        if self.columns[name].modality in MEDIA or isinstance(value, str | bytes):
            try:
                return self.index.media(row, name)
            except Unreadable as error:
                raise Refused(404, error.reason, f"column {name!r}") from None
        return value

    def codes(self, name: str) -> Floats:
        """(N,) numbers to colour items by: a number itself, a moment in seconds, a category's place in its facet; NaN where missing.

        Raises:
            Refused: no facet has that name (404).
        """
        facet = next((f for f in self.facets if f.name == name), None)
        if facet is None:
            raise Refused(404, f"items cannot be coloured by {name!r}", f"column {name!r}")
        return codes_of(facet, self.table.column(name))

    def vectors(self, side: str) -> tuple[Floats, NDArray[np.bool_]]:
        """Vectors of a side.

        Raises:
            Refused: there is no such side.
        """
        if side not in self.sides:
            raise Refused(422, f"there is no side {side!r}; there are {', '.join(self.sides)}", "side")
        return self.index.vectors(side)

    def map(self, side: str) -> tuple[Floats, bool]:
        """Places (N, 2) of the items of one side, NaN for those without a vector, and whether they are final.

        The first answer is the principal plane; a better map is made in the background.
        """
        vectors, present = self.vectors(side)
        with self._lock:
            if side not in self._maps:
                self._maps[side] = _spread(principal(_only(vectors, present)), present)
                threading.Thread(target=self._better, args=(side,), name="unisono-map", daemon=True).start()
            return self._maps[side], side in self._final

    def _better(self, side: str) -> None:
        vectors, present = self.vectors(side)
        places = _spread(neighbourly(_only(vectors, present)), present)
        with self._lock:
            self._maps[side] = places
            self._final.add(side)

    def duplicates(self, side: str, threshold: float) -> tuple[list[Indices], bool]:
        """Groups of items whose vectors are almost the same, and whether every pair was compared."""
        vectors, present = self.vectors(side)
        places = np.flatnonzero(present)
        groups, exact = near_duplicates(_only(vectors, present), threshold)
        return [places[g] for g in groups], exact

    def batches(self, rows: Indices, *, media: bool) -> Iterator[pa.RecordBatch]:
        """Items as a table, block by block.

        Args:
            rows: numbers.
            media: with the columns of media.
        """
        names = [n for n in self.index.fields.names if media or n not in self.media]
        for begin in range(0, len(rows), _BLOCK):
            yield from self.index.table(names).take(pa.array(rows[begin : begin + _BLOCK])).combine_chunks().to_batches()

    def found(self, hits: Hits) -> dict[str, Any]:
        """A search's answer with each hit's number beside its key."""
        answer = hits.to_json()
        for told, hit in zip(answer["hits"], hits, strict=True):
            told["row"] = hit.row
        return answer


def _only(vectors: Floats, present: NDArray[np.bool_]) -> Floats:
    """The vectors that are there; not copied where all are."""
    return vectors if present.all() else np.ascontiguousarray(vectors[present])


def _spread(places: Floats, present: NDArray[np.bool_]) -> Floats:
    found = np.full((len(present), 2), np.nan, np.float32)
    found[present] = places
    return found


def _shown(value: Any, whole: bool) -> Any:
    if isinstance(value, str) and len(value) > _TEXT and not whole:
        return value[:_TEXT] + _MORE
    return value


def _guessed(field: pa.Field) -> Column:
    """A column that the model does not know, by its type."""
    t, dtype = pa.types, field.type
    if t.is_boolean(dtype):
        word = "boolean"
    elif t.is_integer(dtype) or t.is_floating(dtype) or t.is_decimal(dtype):
        word = "number"
    elif t.is_temporal(dtype):
        word = "datetime"
    elif t.is_binary(dtype) or t.is_large_binary(dtype) or t.is_struct(dtype):
        word = "image"
    else:
        word = "text"
    return Column(field.name, word, field.name, 0)
