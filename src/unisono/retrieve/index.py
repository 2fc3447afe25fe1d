"""An index: one vector for each row and one for each of its sources, with keys and fields, in a folder that is memory-mapped.

Letters: N rows, E dimensions of a vector, K hits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unisono.core.errors import IndexFolderError, QueryError, SchemaError, Unreadable, nearest
from unisono.core.media import media_bytes
from unisono.core.schema import ROW
from unisono.retrieve import change
from unisono.retrieve.approximate import Graph
from unisono.retrieve.build import present_file, side_gallery
from unisono.retrieve.corrected import CorrectedSide
from unisono.retrieve.embedder import Embedder
from unisono.retrieve.exact import search as search_exactly
from unisono.retrieve.fields import field_schema
from unisono.retrieve.hits import Hit, Hits
from unisono.retrieve.query import Query, combine, embed_parts, read_query
from unisono.retrieve.scan import Gallery, mapped
from unisono.retrieve.store import HASHED, MANIFEST, Files, only_writer, open_arrow, read_manifest
from unisono.table.filter import parse_filter

#: The share of deleted rows above which an index is written anew.
DEAD = 0.25
#: A filter that leaves a smaller share of the rows is searched exactly.
_FILTERED = 0.1
_GIVE = ", whose folder is not where the index expects it; name it (--model DIR, or open_index(..., model=...))"


class Index:
    """Rows that can be searched.

    Attributes:
        folder: where it is.
        sides: what can be searched: ``row``, then each source.
        sources: the sources.
        columns: input column of the model -> modality.
        dimension: of its vectors.
        aligned: whether queries of one source find rows by another.
        rows: how many rows it holds, deleted ones included: what ``vectors`` and row numbers count.
    """

    def __init__(self, folder: str | Path, *, embedder: Embedder | None = None, verify: bool | None = None) -> None:
        """Open an index.

        Args:
            folder: the index's folder.
            embedder: the model that made it; without one it can be searched by row alone.
            verify: hash all files; None for when they are not too large for that.

        Raises:
            IndexFolderError: there is none, it is damaged, made by a newer version, or by another model.
        """
        self.folder, self.embedder = Path(folder), embedder
        self._load(verify)

    def _load(self, verify: bool | None = False) -> None:
        content = read_manifest(self.folder)
        try:
            files = Files(self.folder, content["files"])
            files.check(content=files.total <= HASHED if verify is None else verify)
            self._content = content
            self.rows, self.dimension = int(content["rows"]), int(content["dimension"])
            self.sides = tuple(str(side["name"]) for side in content["sides"])
            self.sources, self.columns = self.sides[1:], dict(content["columns"])
            self.aligned = bool(content["model"]["aligned"])
            self._read_rows()
        except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowInvalid) as error:
            raise IndexFolderError(f"{self.folder / MANIFEST}: malformed ({error}); the index is damaged, build it again") from None
        self._galleries: dict[str, Gallery] = {}
        self._graphs: dict[str, Graph] = {}
        self._have: dict[str, NDArray[np.bool_]] = {}
        self._corrected: dict[str, CorrectedSide] = {}
        self.check_model(self.embedder)

    def _read_rows(self) -> None:
        content = self._content
        self._present = mapped(self.folder / present_file(content["generation"]), np.bool_, (self.rows, len(self.sides)))
        self._dead = np.zeros(self.rows, np.bool_)
        if content["dead_file"]:
            dead = np.fromfile(self.folder / str(content["dead_file"]), np.bool_)
            self._dead[: len(dead)] = dead
        parts = content["parts"]
        self._keys = pa.chunked_array([c for p in parts for c in open_arrow(self.folder / p["keys"]).column("key").chunks])
        self._fields = pa.concat_tables([open_arrow(self.folder / p["fields"]) for p in parts])
        shown = self._fields.num_rows if self._fields.num_columns else self.rows  # a table without columns has no rows
        if not self.rows == len(self._keys) == shown == sum(p["rows"] for p in parts):
            raise ValueError("its parts do not have the same number of rows")

    def check_model(self, embedder: Embedder | None) -> None:
        """Refuse a model that did not make this index.

        Raises:
            IndexFolderError: it is another one.
        """
        made_by = self._content["model"]["sha256"]
        if embedder is not None and embedder.fingerprint != made_by:
            raise IndexFolderError(
                f"{self.folder}: this index was made by another model (weights {made_by[:12]}…, not {embedder.fingerprint[:12]}…); "
                "give that model, or build the index again"
            )

    def use(self, embedder: Embedder) -> None:
        """Search and grow by a model.

        Raises:
            IndexFolderError: it did not make this index.
        """
        self.check_model(embedder)
        self.embedder = embedder

    # -- what is there ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}, {self.size} rows, sides {', '.join(self.sides)})"

    @property
    def size(self) -> int:
        """How many rows there are, without deleted ones."""
        return self.rows - int(self._content["dead"])

    @property
    def model_folder(self) -> Path | None:
        """The folder of the model that made it, where that was in one."""
        made_by = self._content["model"]["folder"]
        return None if made_by is None else Path(os.path.normpath(self.folder / made_by))

    @property
    def key(self) -> str | None:
        """The column of the keys; None where rows are named by numbers."""
        return None if self._content["key"] is None else str(self._content["key"])

    @property
    def fields(self) -> pa.Schema:
        """The columns that are kept, to show and to filter by."""
        return self._fields.schema

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of every row (N,), deleted ones included."""
        return self._keys

    @property
    def live(self) -> NDArray[np.bool_]:
        """(N,) which rows are not deleted."""
        return ~self._dead

    @property
    def approximate(self) -> dict[str, float]:
        """Side -> the recall at ten of its graph, as measured on the index's own rows; empty where search is exact."""
        return {name: float(graph["recall"]) for name, graph in self._content["graphs"].items()}

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The fields of every row (N), deleted ones included, memory-mapped."""
        return self._fields if columns is None else self._fields.select(list(columns))

    @property
    def correction(self) -> str | None:
        """What is done against hubs and crowding when the index is searched; scores are then the corrected ones."""
        return change.settings_of(self._content).correction

    @property
    def without_vector(self) -> int:
        """How many rows have no cell that the model reads; no search finds them."""
        return int((~self._present[:, 0] & ~self._dead).sum())

    def _side(self, name: str) -> int:
        if name not in self.sides:
            raise QueryError(f"the index has no side {name!r}{nearest(name, self.sides)}")
        return self.sides.index(name)

    def gallery(self, side: str) -> Gallery:
        """One side's vectors with their copy for a fast first look."""
        if side not in self._galleries:
            self._galleries[side] = side_gallery(self.folder, self._content, self._side(side))
        return self._galleries[side]

    def vectors(self, side: str = ROW) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The vectors (N, E) of a side, memory-mapped, and which rows (N,) have one and are not deleted.

        Raises:
            QueryError: there is no such side.
        """
        if side not in self._have:
            self._have[side] = self._present[:, self._side(side)] & ~self._dead
        return self.gallery(side).vectors, self._have[side].copy()

    def find(self, keys: Iterable[Any]) -> NDArray[np.int64]:
        """The row number of each key.

        Raises:
            QueryError: there is no row of that key.
        """
        asked = list(keys)
        wanted = self._as_keys(asked)
        place = pc.index_in(self._keys, value_set=pc.unique(wanted))
        hit = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False) & ~self._dead)
        known = {k.as_py(): int(r) for k, r in zip(self._keys.take(pa.array(hit)), hit, strict=True)}
        for given, key in zip(asked, wanted.to_pylist(), strict=True):
            if key not in known:
                hint = nearest(str(given), map(str, self._keys.to_pylist())) if self.rows <= 1000 else ""
                raise QueryError(f"there is no row with the key {given!r} in the index{hint}")
        return np.array([known[key] for key in wanted.to_pylist()], np.int64)

    def _as_keys(self, given: Sequence[Any]) -> pa.Array:
        numbers = pa.types.is_integer(self._keys.type)
        values: list[Any] = []
        for key in given:
            try:
                values.append(int(key) if numbers else str(key))
            except (TypeError, ValueError):
                raise QueryError(f"there is no row with the key {key!r} in the index, whose keys are numbers") from None
        return pa.array(values, self._keys.type)

    def take(self, keys_or_rows: Any) -> pa.Table:
        """The fields of some rows, in that order.

        Args:
            keys_or_rows: row numbers as a numpy array, or keys as a list.

        Raises:
            QueryError: there is no such key.
        """
        rows = keys_or_rows if isinstance(keys_or_rows, np.ndarray) else self.find(keys_or_rows)
        return self._fields.take(pa.array(rows, pa.int64()))

    def media(self, row: int, column: str) -> bytes:
        """The content of a media cell, from the index or from the file that the table named.

        Args:
            row: its number.
            column: one of the fields.

        Raises:
            Unreadable: there is nothing, or it is no media cell.
        """
        if column not in self._fields.schema.names:
            raise Unreadable(f"the index keeps no column {column!r}")
        cell = self._fields.column(column)[int(row)].as_py()
        for part in self._content["parts"]:
            if row < part["rows"]:
                root = None if part["root"] is None else Path(os.path.normpath(self.folder / part["root"]))
                return media_bytes(cell[0] if isinstance(cell, list) and cell else cell, root)
            row -= part["rows"]
        raise Unreadable(f"there is no row {row}")

    # -- search -------------------------------------------------------------------------------------------------------------

    def search(
        self,
        *,
        text: Any = None,
        image: Any = None,
        audio: Any = None,
        row: Any = None,
        query: Any = None,
        minus: Any = None,
        weights: Mapping[str, float] | None = None,
        to: str | None = None,
        k: int = 10,
        where: str | None = None,
        exact: bool = False,
    ) -> Hits:
        """Find the rows nearest to a query; the rows that are part of the query are not among them.

        Args:
            text: what the only text column would hold; a list for several examples, as with the others.
            image: a picture for the only image column: bytes or a path (of this machine: never pass on a text that somebody else wrote).
            audio: the same for sound.
            row: the key of a row to find more like it.
            query: column -> cell, or a list of such mappings for several examples.
            minus: column -> cell to look away from; ``row`` stands for a key.
            weights: column, ``text``, ``image``, ``audio`` or ``row`` -> weight; 1 where nothing is said.
            to: the side that is searched: ``row`` (default) or a source.
            k: how many hits.
            where: a filter on the fields, such as ``price < 20 and colour = red``.
            exact: leave the graph aside, should the index have one.

        Raises:
            QueryError: the query is empty, names what is not there, or asks an index without an aligned space for more than a row.
            FilterError: the filter is no expression, or is about a column that is not kept.
        """
        short = {"text": text, "image": image, "audio": audio}
        asked = read_query(
            self.columns, self.sides, short=short, row=row, query=query, minus=minus, weights=weights, to=to, k=k, where=where
        )
        vector, excluded = self.vector(asked)
        allowed = self.chosen(where) if where is not None else np.ones(self.rows, np.bool_)
        left = int((allowed & ~self._dead).sum())
        _, present = self.vectors(asked.to)
        allowed = allowed & present
        without = left - int(allowed.sum())
        allowed[excluded] = False
        scores, rows = self.nearest(vector[None], min(k, self.rows), to=asked.to, allowed=allowed, exact=exact)
        found = rows[0][rows[0] >= 0]
        told = {**asked.to_json(), "searched": int(allowed.sum()), "without_vector": without}
        fields, keys = self.take(found).to_pylist(), self._keys.take(pa.array(found)).to_pylist()
        hits = (Hit(n + 1, int(r), keys[n], float(scores[0, n]), fields[n] if fields else {}) for n, r in enumerate(found))
        return Hits(told, tuple(hits))

    def vector(self, asked: Query) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The unit vector (E,) that a query looks for, and the rows that are part of it.

        Raises:
            QueryError: see ``search``.
        """
        by_row, by_cell = [p for p in asked.parts if p.column is None], [p for p in asked.parts if p.column is not None]
        if not self.aligned and (by_cell or asked.to != ROW):
            raise QueryError(
                f"{self.folder}: the model of this index has no aligned space, so it finds rows by a row alone (--row KEY); to search by "
                "text, pictures and the like, fit with align (unisono fit TABLE --align --out DIR) and build the index again"
            )
        rows = self.find(p.value for p in by_row)
        vectors, present = self.vectors(ROW)
        for part, row in zip(by_row, rows, strict=True):
            if not present[row]:
                raise QueryError(f"the row {part.value!r} has no cell that the model reads, so nothing is like it")
        given = [np.asarray(vectors[rows])] if by_row else []
        if by_cell:
            if self.embedder is None:
                raise QueryError(f"{self.folder}: searching by anything but a row needs the model{_GIVE}")
            given.append(embed_parts(self.embedder, by_cell))
        weights = [asked.weight(p) for p in (*by_row, *by_cell)]
        return combine(np.concatenate(given), weights), rows

    def chosen(self, where: str) -> NDArray[np.bool_]:
        """(N,) the rows that satisfy a filter.

        Raises:
            FilterError: it is no expression, or is about a column that is not kept.
        """
        expression = parse_filter(where)
        expression.check(self._fields.schema.names)
        return expression.mask(self._fields.select(sorted(expression.columns)))

    def nearest(
        self,
        queries_PE: NDArray[np.float32],
        k: int,
        *,
        to: str = ROW,
        allowed: NDArray[np.bool_] | None = None,
        exact: bool = False,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The k rows nearest to each of several vectors.

        Args:
            queries_PE: unit vectors.
            k: how many.
            to: the side.
            allowed: (N,) which rows may be found; None for all that have a vector.
            exact: leave the graph aside.

        Returns:
            (P, K) cosines and (P, K) row numbers, best first; -1 where there are fewer rows.
        """
        _, present = self.vectors(to)
        may = present if allowed is None else present & allowed
        if self.correction is not None:
            side = self._correct(to)
            return search_exactly(side.gallery, side.by.queries(queries_PE), k, may)
        if exact or to not in self._content["graphs"] or may.sum() < _FILTERED * self.rows:
            return search_exactly(self.gallery(to), queries_PE, k, may)
        return self._by_graph(queries_PE, k, to, may)

    def _correct(self, side: str) -> CorrectedSide:
        if side not in self._corrected:
            others = [self.vectors(name) for name in self.sources if name != side] if self.aligned else []
            self._corrected[side] = CorrectedSide.of(str(self.correction), self.vectors(side), others)
        return self._corrected[side]

    def _by_graph(self, queries_PE: NDArray[np.float32], k: int, to: str, may: NDArray[np.bool_]) -> tuple[Any, NDArray[np.int64]]:
        """What the graph finds, and exactly what was added since it was built."""
        told, number = self._content["graphs"][to], self._side(to)
        covered = int(told["rows"])
        if to not in self._graphs:
            rows = np.flatnonzero(self._present[:covered, number])
            self._graphs[to] = Graph.from_file(self.folder / str(told["file"]), rows, recall=told["recall"], effort=told["effort"])
        scores, found = self._graphs[to].nearest(queries_PE, k, may)
        if covered == self.rows:
            return scores, found
        tail = may.copy()
        tail[:covered] = False
        late = search_exactly(self.gallery(to), queries_PE, k, tail)
        scores, found = np.concatenate([scores, late[0]], 1), np.concatenate([found, late[1]], 1)
        order = np.lexsort((found, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)

    # -- changes ------------------------------------------------------------------------------------------------------------

    def add(self, table: Any) -> int:
        """Add rows, whose keys must be new; returns how many.

        Raises:
            SchemaError: a key is there already, or the table's fields are not those of the index.
        """
        return self._grow(table, replace=False)

    def update(self, table: Any) -> int:
        """Replace the rows that have the keys of a table's rows; returns how many.

        Raises:
            SchemaError: the rows have no keys.
            QueryError: there is no row of a key.
        """
        if self.key is None:
            raise SchemaError(f"{self.folder}: rows without a key column have only numbers; delete rows and add new ones")
        return self._grow(table, replace=True)

    def _grow(self, table: Any, *, replace: bool) -> int:
        if self.embedder is None:
            raise IndexFolderError(f"{self.folder}: rows are added by the model that made the index{_GIVE}")
        with only_writer(self.folder):
            self._load()
            source = self.embedder.open(table)
            self._check_fields(source.schema, source.name)
            content, keys = change.grow(self.folder, self._content, self.embedder, source)
            if replace:
                dead = self._with_dead(self.find(keys.to_pylist()), len(keys))
                content = change.with_dead(self.folder, content, dead)
            else:
                self._refuse_known(keys, source.name)
            self._commit(content)
        return len(keys)

    def _refuse_known(self, keys: pa.ChunkedArray, name: str) -> None:
        known = pc.is_in(keys, value_set=self._keys.filter(pa.array(~self._dead))).to_numpy(zero_copy_only=False)
        if known.any():
            row = int(np.flatnonzero(known)[0])
            raise SchemaError(f"{name}: row {row}: the key {keys[row].as_py()!r} is in the index already; use update to replace it")

    def delete(self, keys: Iterable[Any]) -> int:
        """Delete rows by their keys; returns how many.

        Raises:
            QueryError: there is no row of a key.
        """
        with only_writer(self.folder):
            self._load()
            rows = np.unique(self.find(keys))
            if len(rows) == self.size:
                raise QueryError(f"{self.folder}: these are all rows; an index without rows is of no use, delete the folder instead")
            if len(rows):
                self._commit(change.with_dead(self.folder, self._content, self._with_dead(rows, 0)))
        return len(rows)

    def compact(self) -> None:
        """Write the index anew without deleted rows; rows get new numbers."""
        with only_writer(self.folder):
            self._load()
            change.commit(self.folder, change.compacted(self.folder, self._content, self._dead))
            self._load()

    def _with_dead(self, rows: NDArray[np.int64], added: int) -> NDArray[np.bool_]:
        dead = np.concatenate([self._dead, np.zeros(added, np.bool_)])
        dead[rows] = True
        return dead

    def _commit(self, content: dict[str, Any]) -> None:
        change.commit(self.folder, content)
        self._load()
        if self._content["dead"] > DEAD * self.rows:
            change.commit(self.folder, change.compacted(self.folder, self._content, self._dead))
            self._load()

    def _check_fields(self, schema: pa.Schema, name: str) -> None:
        kept = self._fields.schema
        absent = [n for n in kept.names if n not in schema.names]
        if absent:
            raise SchemaError(f"{name}: the column {absent[0]!r} of the index is not there; give a table with the same columns")
        for field in field_schema(schema, kept.names, self.columns):
            if field.type not in (kept.field(field.name).type, pa.null()):
                raise SchemaError(f"{name}: column {field.name!r} holds {field.type}, but {kept.field(field.name).type} in the index")
