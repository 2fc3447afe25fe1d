"""A table as a stream of batches, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from unisono.core.errors import TableError
from unisono.table.plain import plain_array, plain_schema, slices

Opener = Callable[[int], Iterator[pa.RecordBatch]]


@dataclass
class Raw:
    """What a reader knows of a table before it is cleaned.

    Attributes:
        schema: the schema as the format gives it.
        opener: ``opener(max_rows)`` starts a stream of batches of that schema.
        num_rows: the number of rows where the format says so.
        hints: modality words that the format names (column -> word).
        classes: names of integer categories (column -> names), to be written in place of the integers.
        notes: what was guessed or changed, to be said aloud.
        fingerprint: a hash by which the same table is known again; None where it cannot be known.
        once: whether the stream can be read a single time only.
        key: the column that names a row, where the format says so.
    """

    schema: pa.Schema
    opener: Opener
    num_rows: int | None = None
    hints: dict[str, str] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    once: bool = False
    key: str | None = None


class TableSource:
    """A table that is read as a stream of Arrow batches with plain types.

    Attributes:
        name: the file as it was written, or "table in memory".
        root: the folder against which relative media paths resolve; None for a table in memory.
        schema: the columns with their plain types.
        hints: modality words that the format itself names (column -> word).
        num_rows: the number of rows, where it is known before reading.
        notes: what was guessed or changed on reading, to be said aloud.
        key: the column that names a row, where the format says so (a folder of classes does).
        fingerprint: a hash by which the same table is known again; None for a stream.
        watch: is shown every batch before whoever reads the table.
    """

    watch: Callable[[pa.RecordBatch], None] | None = None

    def __init__(self, raw: Raw, *, name: str, root: Path | None, null_words: Sequence[str] = ()) -> None:
        """Wrap a reader.

        Args:
            raw: the reader.
            name: the table's name in messages.
            root: the folder of relative media paths.
            null_words: texts that stand for a missing cell.
        """
        self.name, self.root, self.key = name, root, raw.key
        self.hints, self.num_rows, self.notes, self.fingerprint = dict(raw.hints), raw.num_rows, raw.notes, raw.fingerprint
        self.schema = plain_schema(raw.schema, name)
        self._raw, self._words, self._started = raw, tuple(null_words), False
        for column in raw.classes:
            position = self.schema.get_field_index(column)
            if position >= 0:
                self.schema = self.schema.set(position, pa.field(column, pa.large_string()))
        if raw.num_rows == 0:
            raise TableError(f"{name}: the table has no rows; give one with a header and at least two rows")

    def batches(self, max_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Read the table from its first row, a bounded number of rows and bytes at a time.

        Args:
            max_rows: the most rows in a batch; batches of long cells have fewer.

        Yields:
            Batches with ``self.schema``, none of them empty.

        Raises:
            TableError: the table cannot be read further, or has no rows.
        """
        if self._raw.once and self._started:
            raise TableError(f"{self.name}: this stream can be read only once; write it to a file first")
        self._started = True
        rows = 0
        for raw in self._raw.opener(max_rows):
            for piece in slices(raw, max_rows):
                rows += piece.num_rows
                batch = self._clean(piece)
                if self.watch is not None:
                    self.watch(batch)
                yield batch
        if rows == 0:
            raise TableError(f"{self.name}: the table has no rows; give one with a header and at least two rows")

    def _clean(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = []
        for column, spec in zip(batch.columns, self.schema, strict=True):
            if spec.name in self._raw.classes:
                column = self._class_names(column, spec.name)
            array = plain_array(column, spec.type)
            if self._words and pa.types.is_large_string(array.type):
                array = pc.if_else(pc.is_in(array, pa.array(self._words, pa.large_string())), pa.scalar(None, array.type), array)
            columns.append(array)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _class_names(self, column: pa.Array, name: str) -> pa.Array:
        """Write class names in place of class numbers; -1 is a missing label."""
        if not pa.types.is_integer(column.type):
            return column
        names = self._raw.classes[name]
        numbers = column.cast(pa.int64())
        out_of_range = pc.or_(pc.less(numbers, -1), pc.greater_equal(numbers, len(names)))
        if pc.any(out_of_range).as_py():
            raise TableError(f"{self.name}: column {name!r} holds a class number outside 0..{len(names) - 1}; mend it")
        numbers = pc.if_else(pc.less(numbers, 0), pa.scalar(None, pa.int64()), numbers)
        return pa.array(names, pa.large_string()).take(numbers)
