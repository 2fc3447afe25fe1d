"""A fitted model over tables: predictions, probabilities and embeddings row by row, streaming; evaluation on a cached table.

Letters: N rows, S sources.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import CellError, SchemaError, TableError, UserError
from unisono.core.memory import kept_heap
from unisono.core.schema import ROW, Schema
from unisono.model.aligning import lay_out
from unisono.model.encoders import keep_features, open_features
from unisono.model.evaluate import Evaluator
from unisono.model.prepare import open_store, scan_cells, warn_of_cells
from unisono.model.scoring import Scored, batches_of, pool, score
from unisono.network import Network
from unisono.recipe import Recipe
from unisono.table.batching import Assembler
from unisono.table.cache import TableCache
from unisono.table.filter import parse_filter
from unisono.table.read import TableSource, open_table
from unisono.table.store import BadCell, Store
from unisono.tasks.base import decode_target
from unisono.train.devices import choose_device, choose_precision

logger = logging.getLogger("unisono")


class _Slice:
    """Some rows in memory, with columns that the table lacks as nulls."""

    def __init__(self, table: pa.Table) -> None:
        self._table, self.num_rows = table, table.num_rows

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The given rows, in that order."""
        names = list(columns) if columns is not None else self._table.column_names
        absent = pa.nulls(self.num_rows)
        chosen = {n: self._table.column(n) if n in self._table.column_names else absent for n in names}
        table = pa.table(chosen)
        return table if len(rows) == self.num_rows and bool((np.diff(rows) == 1).all()) else table.take(pa.array(rows))


class _Lacking:
    """A cached table, with columns that it lacks as nulls."""

    def __init__(self, cache: TableCache, names: Sequence[str]) -> None:
        self._cache, self.num_rows, self._has = cache, cache.num_rows, set(names)

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The given rows, in that order."""
        names = list(columns or ())
        table = self._cache.take(rows, [n for n in names if n in self._has])
        return pa.table({n: table.column(n) if n in self._has else pa.nulls(len(rows)) for n in names})


@dataclass
class Predictor:
    """Runs a model.

    Attributes:
        network: the model.
        recipe: its recipe.
        schema: its columns and targets.
        bad_cells: fail at an unreadable cell, or go on with it missing.
        null_words: words that mean null.
        encoding: of text files.
        media_root: the folder that media paths are relative to, when not the table's own.
        bad: unreadable cells met so far.
        features: the folder where features of frozen encoders are kept; None for the user's cache, ``off`` to keep none on disk.
    """

    network: Network
    recipe: Recipe
    schema: Schema
    bad_cells: Literal["fail", "missing"] = "fail"
    null_words: Sequence[str] = ()
    encoding: str = "utf-8"
    media_root: Path | None = None
    bad: list[BadCell] = field(default_factory=list)
    features: str | Path | None = None

    def __post_init__(self) -> None:
        keep_features(self.network.groups, open_features(self.features))
        self.device = choose_device()
        self.network.to(self.device)
        precision = str(self.recipe.settings.get("train", {}).get("precision", "auto"))
        self.bf16 = choose_precision(precision, self.device) == "bf16"
        self.assembler = Assembler(self.schema, self.network.groups, self.network.trunk)

    @property
    def aligned(self) -> bool:
        """Whether sources share a space, so that any one may be sought by any other."""
        return self.network.aligned

    @property
    def product(self) -> bool:
        """Whether the space is one of products, in which several sources together seek another."""
        alignments = self.network.alignments
        return alignments is not None and alignments.product

    # -- tables -------------------------------------------------------------------------------------------------------------

    def open(self, data: Any) -> TableSource:
        """Open a table and say which columns are missing or extra.

        Raises:
            TableError: none of the model's columns is there.
        """
        source = open_table(data, null_words=self.null_words, encoding=self.encoding, media_root=self.media_root)
        names = set(source.schema.names)
        wanted = [c.name for c in self.schema.columns]
        absent = [n for n in wanted if n not in names]
        if len(absent) == len(wanted):
            raise TableError(f"{source.name}: none of the model's columns is there ({', '.join(wanted[:10])})")
        if absent:
            logger.warning("%s: without the column%s %s, which counts as missing", source.name, "s" * (len(absent) > 1), ", ".join(absent))
        known = {*wanted, *(t.name for t in self.schema.targets), *self.schema.left_out, *self.schema.roles.values(), self.schema.key}
        extra = [n for n in source.schema.names if n not in known]
        if extra:
            logger.warning("%s: not used: %s", source.name, ", ".join(extra))
        return source

    def open_to_predict(self, data: Any) -> TableSource:
        """Open a table whose predictions are wanted.

        Raises:
            UserError: the model was fitted without targets.
            SchemaError: the column of row numbers and a target's would have one name.
        """
        if not self.schema.targets:
            raise UserError("this model predicts nothing, it was fitted without targets: use embed, or fit it again with --target COL too")
        source = self.open(data)
        key = self.schema.key
        if key not in source.schema.names and any(t.name == ROW for t in self.schema.targets):
            raise SchemaError(
                f"{source.name}: without the key column {key!r} the numbers of the rows would take the place of the target {ROW!r}; "
                "give the table that column"
            )
        return source

    def _chunks(self, source: TableSource) -> Iterator[tuple[int, pa.RecordBatch, Store]]:
        """Chunk by chunk: the first row's number, the rows, and their decoded cells."""
        with kept_heap():
            yield from self._decoded(source)

    def _decoded(self, source: TableSource) -> Iterator[tuple[int, pa.RecordBatch, Store]]:
        begin = 0
        for batch in source.batches():
            store = open_store(_Slice(pa.Table.from_batches([batch])), self.schema, self.recipe, source.root)
            try:
                found = scan_cells(store, source.name, self.bad_cells)
            except CellError as error:
                raise CellError(error.file, error.row + begin, error.column, error.reason) from None
            self.bad += [BadCell(b.row + begin, b.column, b.reason) for b in found]
            warn_of_cells(store, source.name, np.arange(batch.num_rows, dtype=np.int64))
            yield begin, batch, store
            begin += batch.num_rows

    def _scored(self, store: Store, num_rows: int) -> Scored:
        rows = np.arange(num_rows, dtype=np.int64)
        return score(self.network, batches_of(self.assembler, store, rows), device=self.device, bf16=self.bf16)

    def _pooled(self, store: Store, num_rows: int, only: Sequence[str] | None = None) -> NDArray[np.float32]:
        rows = np.arange(num_rows, dtype=np.int64)
        return pool(self.network, batches_of(self.assembler, store, rows, only), device=self.device, bf16=self.bf16)

    def _keys(self, begin: int, batch: pa.RecordBatch) -> tuple[str, pa.Array]:
        key = self.schema.key
        if key is not None and key in batch.schema.names:
            return key, batch.column(batch.schema.names.index(key))
        return ROW, pa.array(np.arange(begin, begin + batch.num_rows, dtype=np.int64))

    # -- what a person asks for ---------------------------------------------------------------------------------------------

    def predictions(self, data: Any) -> Iterator[pa.RecordBatch]:
        """Prediction columns, chunk by chunk, in the order of the rows."""
        for begin, batch, store in self._chunks(self.open_to_predict(data)):
            scored = self._scored(store, batch.num_rows)
            name, keys = self._keys(begin, batch)
            columns: dict[str, Any] = {name: keys}
            for target in self.schema.targets:
                task = self.network.tasks[target.name]
                columns.update(task.columns(target.name, scored.scores[target.name], target.statistics))
            yield pa.RecordBatch.from_pydict(columns)

    def predict(self, data: Any) -> pa.Table:
        """All predictions as a table."""
        return pa.Table.from_batches(list(self.predictions(data)))

    def probabilities(self, data: Any) -> NDArray[np.float64]:
        """Probabilities (N, classes) of the first target."""
        target = self.schema.targets[0]
        task = self.network.tasks[target.name]
        parts = [
            task.probabilities(self._scored(store, batch.num_rows).scores[target.name], target.statistics)
            for _, batch, store in self._chunks(self.open(data))
        ]
        return np.concatenate(parts).astype(np.float64)

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        """Embedding columns, chunk by chunk: ``embedding`` of the row, ``embedding.SOURCE`` of the row with that source alone.

        Of an aligned model all are unit vectors of one space, and the row's is the normalised mean of its sources'.
        """
        if self.aligned:
            yield from self._in_space(data)
            return
        sources = self.schema.sources
        for begin, batch, store in self._chunks(self.open(data)):
            name, keys = self._keys(begin, batch)
            rows = np.arange(batch.num_rows, dtype=np.int64)
            present = self.assembler.present(store.cells(rows), batch.num_rows)
            whole = self._pooled(store, batch.num_rows)
            columns: dict[str, Any] = {name: keys, "embedding": _vectors(whole, present.any(1))}
            for place, source in enumerate(sources):
                alone = self._pooled(store, batch.num_rows, [source]) if len(sources) > 1 else whole
                columns[f"embedding.{source}"] = _vectors(alone, present[:, place])
            yield pa.RecordBatch.from_pydict(columns)

    def _in_space(self, data: Any) -> Iterator[pa.RecordBatch]:
        for begin, batch, store in self._chunks(self.open(data)):
            name, keys = self._keys(begin, batch)
            rows = np.arange(batch.num_rows, dtype=np.int64)
            laid = lay_out(self.network, batches_of(self.assembler, store, rows), device=self.device, bf16=self.bf16)
            any_source = np.stack(list(laid.present.values())).any(0)
            columns: dict[str, Any] = {name: keys, "embedding": _vectors(laid.whole, any_source)}
            columns.update({f"embedding.{source}": _vectors(laid.vectors[source], laid.present[source]) for source in laid.vectors})
            yield pa.RecordBatch.from_pydict(columns)

    def embed(self, data: Any) -> pa.Table:
        """All embeddings as a table."""
        return pa.Table.from_batches(list(self.embeddings(data)))

    def evaluate(self, data: Any, *, where: str | None = None, missing: bool = True) -> dict[str, Any]:
        """Metrics on a table that holds the targets; see ``Model.evaluate``.

        Raises:
            SchemaError: a target column is absent, or no row is left.
        """
        source = self.open(data)
        for target in self.schema.targets:
            if target.name not in source.schema.names:
                raise SchemaError(f"{source.name}: the target column {target.name!r} is absent, so there is nothing to measure")
        with tempfile.TemporaryDirectory(prefix="unisono-") as folder:
            cache = TableCache.write(source, Path(folder))
            measured, rows = self.measured(cache, source, where)
            return measured.report(rows, missing=missing)

    def measured(self, cache: TableCache, source: TableSource, where: str | None) -> tuple[Evaluator, NDArray[np.int64]]:
        """The model with a cached table's cells and targets, and the rows that a filter leaves."""
        rows = np.arange(cache.num_rows, dtype=np.int64)
        if where is not None:
            chosen = parse_filter(where)
            chosen.check(source.schema.names)
            mask = [chosen.mask(pa.Table.from_batches([b])) for b in cache.batches(sorted(chosen.columns))]
            rows = rows[np.concatenate(mask)]
            if len(rows) == 0:
                raise SchemaError(f"{source.name}: no row satisfies {where!r}")
        store = open_store(_Lacking(cache, source.schema.names), self.schema, self.recipe, source.root)
        self.bad += scan_cells(store, source.name, self.bad_cells)
        warn_of_cells(store, source.name, rows)
        targets: dict[str, Any] = {}
        for target in self.schema.targets:
            task = self.network.tasks[target.name]
            column = decode_target(task, cache.scalars(target.name))
            if column.bad and self.bad_cells == "fail":
                raise CellError(source.name, column.bad[0][0], target.name, column.bad[0][1])
            targets[target.name] = task.encode(column.cells, target.statistics)
        return Evaluator(self.network, self.schema, self.assembler, store, targets, self.device, self.bf16), rows


def _vectors(values_ND: NDArray[np.float32], present: Any) -> pa.Array:
    """Rows as a fixed-size list of float32, null where not present."""
    flat = pa.array(np.ascontiguousarray(values_ND, np.float32).reshape(-1))
    mask = pa.array(~present) if not present.all() else None
    return pa.FixedSizeListArray.from_arrays(flat, values_ND.shape[1], mask=mask)
