"""Write a stream of batches as Parquet, CSV, JSON Lines or Arrow; a file appears whole or not at all."""

from __future__ import annotations

import base64
import contextlib
import datetime
import errno
import io
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from unisono.core.errors import ResourceError, TableError, nearest
from unisono.table.plain import plain_type

_FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip


class _Sink(Protocol):
    """A writer of one format."""

    def write_batch(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


class TableWriter:
    """Writes batches of one schema to a file or to standard output.

    Used in a ``with`` statement, or closed by ``close``. A file gets its name only when all is written; after an error nothing is left.

    Attributes:
        rows: rows written so far.
        open: False when nobody reads standard output any more; then nothing has to be written either.
    """

    def __init__(self, path: str | os.PathLike[str], schema: pa.Schema, kind: str) -> None:
        """Open the output.

        Args:
            path: the file, or ``-``.
            schema: the columns.
            kind: ``parquet``, ``csv``, ``tsv``, ``jsonl`` or ``arrow``.

        Raises:
            TableError: the file cannot be written.
        """
        self.rows, self.open, self.schema = 0, True, schema
        self._name = os.fspath(path)
        self._target: Path | None = None
        self._temporary: Path | None = None
        self._streaming = self._name == "-" or self._name.startswith("-.")
        self._through = _Through(io.BytesIO())
        self._file: BinaryIO = sys.stdout.buffer if self._streaming else io.BytesIO()
        with self._explained():
            if not self._streaming:
                self._open_file(Path(self._name))
            self._through = _Through(self._file)
            self._sink = _sink(kind, self._through, schema, stream=self._streaming)

    def _open_file(self, path: Path) -> None:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            self._file = path.open("wb")  # a device or a pipe has no name to be put in place of; a folder is refused here
            return
        self._target = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = self._temporary.open("wb")

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    @contextlib.contextmanager
    def _explained(self) -> Any:
        try:
            yield
        except BrokenPipeError:
            if not self._streaming:
                self.abandon()
                raise TableError(f"{self._name}: nobody reads this pipe any more") from None
            self._close_pipe()
        except OSError as error:
            self.abandon()
            raise _disk_error(error, self._name) from None
        except BaseException:
            self.abandon()
            raise

    def _close_pipe(self) -> None:
        """Let nothing more go to standard output, the flush at exit included."""
        self.open = self._through.open = False
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())

    def write(self, batch: pa.RecordBatch) -> bool:
        """Write a batch.

        Args:
            batch: rows with the writer's columns; types are cast to the schema's.

        Returns:
            Whether anybody still reads; False only for standard output whose reader has gone.

        Raises:
            ResourceError: the disk is full.
            TableError: the file cannot be written, or the columns are others.
        """
        if not self.open:
            return False
        if batch.schema.names != self.schema.names:
            raise TableError(f"{self._name}: a batch with the columns {batch.schema.names}, expected {self.schema.names}")
        if batch.schema.types != self.schema.types:
            columns = [c.cast(f.type) for c, f in zip(batch.columns, self.schema, strict=True)]
            batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        with self._explained():
            self._sink.write_batch(batch)
            if self._streaming:
                self._file.flush()
            self.rows += batch.num_rows
        return self.open

    def close(self) -> None:
        """Finish: write the end of the file and give it its name.

        Raises:
            ResourceError: the disk is full.
            TableError: the file cannot be written.
        """
        if not self.open:
            return
        with self._explained():
            self._sink.close()
            self._file.flush()
            if self._streaming:
                return
            if self._target is not None:
                os.fsync(self._file.fileno())
            self._file.close()
            if self._target is not None and self._temporary is not None:
                self._temporary.replace(self._target)
                self._temporary = None
        self.open = False

    def abandon(self) -> None:
        """Stop without leaving a file."""
        self.open = self._through.open = False
        if self._streaming:
            return
        with contextlib.suppress(OSError, ValueError):
            self._file.close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            self._temporary = None


def open_writer(path: str | os.PathLike[str], schema: pa.Schema) -> TableWriter:
    """Open a file, or standard output, to write batches to.

    Args:
        path: a name that ends in .parquet, .csv, .tsv, .jsonl or .arrow; ``-`` for JSON Lines on standard output, ``-.csv``, ``-.tsv``
            or ``-.arrow`` (an Arrow stream) for another format there.
        schema: the columns.

    Raises:
        TableError: an unknown ending, or a file that cannot be written.
    """
    name = os.fspath(path)
    suffix = ".jsonl" if name == "-" else name[1:].lower() if name.startswith("-.") else Path(name).suffix.lower()
    if suffix not in _FORMATS:
        raise TableError(f"{name}: no format is known by the ending {suffix!r}{nearest(suffix, _FORMATS)}")
    if name.startswith("-.") and _FORMATS[suffix] == "parquet":
        raise TableError(f"{name}: Parquet cannot be streamed to standard output; use -.arrow, or a file")
    return TableWriter(path, schema, _FORMATS[suffix])


def write_batches(path: str | os.PathLike[str], batches: Iterable[pa.RecordBatch]) -> int:
    """Write a stream of batches; the first says what the columns are.

    Args:
        path: as in ``open_writer``.
        batches: the rows.

    Returns:
        The number of rows written.

    Raises:
        ResourceError: the disk is full.
        TableError: the file cannot be written, or there is no batch at all.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None:
        raise TableError(f"{os.fspath(path)}: there are no rows to write")
    with open_writer(path, first.schema) as writer:
        going = writer.write(first)
        while going and (batch := next(stream, None)) is not None:
            going = writer.write(batch)
    return writer.rows


def _disk_error(error: OSError, name: str) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceError(f"{name}: no space left on the disk; free some, or write elsewhere")
    if error.errno == errno.ENOENT:
        return TableError(f"{name}: cannot be written: its folder does not exist; make it first")
    return TableError(f"{name}: cannot be written: {error.strerror or error}; choose a file you may write to")


def _sink(kind: str, file: _Through, schema: pa.Schema, *, stream: bool) -> _Sink:
    if kind == "parquet":
        return _Parquet(file, schema)
    if kind == "arrow":
        return _Arrow(file, schema, stream=stream)
    return _Lines(file) if kind == "jsonl" else _Separated(file, schema, "\t" if kind == "tsv" else ",")


class _Through:
    """Hands bytes on to a file without closing it, keeps the file's own error, and hands on nothing once it is not ``open``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size, self.closed, self.open = file, 0, False, True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.open:
            self._file.write(data)
        self._size += size
        return size

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        if self.open:
            self._file.flush()

    def close(self) -> None:
        self.closed = True


class _Parquet:
    def __init__(self, file: _Through, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Arrow:
    def __init__(self, file: _Through, schema: pa.Schema, *, stream: bool) -> None:
        self._writer = (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, schema)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Separated:
    """CSV: text in quotes, so that empty text and null stay apart; lists and structs as JSON, bytes in base64."""

    def __init__(self, file: _Through, schema: pa.Schema, delimiter: str) -> None:
        self._types = [_csv_type(f.type) for f in schema]
        self._schema = pa.schema([pa.field(f.name, t) for f, t in zip(schema, self._types, strict=True)])
        options = pa.csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
        self._writer = pa.csv.CSVWriter(file, self._schema, write_options=options)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        columns = [_csv_column(c, t) for c, t in zip(batch.columns, self._types, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _csv_type(dtype: pa.DataType) -> pa.DataType:
    plain = plain_type(dtype)
    t = pa.types
    if t.is_null(plain) or t.is_nested(plain) or t.is_large_binary(plain) or t.is_fixed_size_binary(plain) or t.is_duration(plain):
        return pa.large_string()
    return pa.float32() if t.is_float16(plain) else plain


def _csv_column(column: pa.Array, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_large_string(dtype) and not pa.types.is_large_string(plain_type(column.type)):
        values = [plain_value(v) for v in column.to_pylist()]
        return pa.array([v if v is None or isinstance(v, str) else _json(v) for v in values], dtype)
    return column.cast(dtype)


class _Lines:
    """JSON Lines: dates as ISO text, bytes in base64; JSON knows neither NaN nor infinity, which become null."""

    def __init__(self, file: _Through) -> None:
        self._file = file

    def write_batch(self, batch: pa.RecordBatch) -> None:
        names = batch.schema.names
        columns = [c.to_pylist() for c in batch.columns]
        lines = (_json({n: plain_value(v) for n, v in zip(names, row, strict=True)}) for row in zip(*columns, strict=True))
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def plain_value(value: Any, binary: Callable[[bytes], Any] = _base64) -> Any:
    """Return a value as JSON can write it: dates as ISO text, null for what is not finite.

    Args:
        value: a Python value as Arrow gives it.
        binary: what becomes of bytes.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return binary(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, list):
        return [plain_value(v, binary) for v in value]
    if isinstance(value, dict):
        return {k: plain_value(v, binary) for k, v in value.items()}
    return value if isinstance(value, str | int | bool) or value is None else str(value)
