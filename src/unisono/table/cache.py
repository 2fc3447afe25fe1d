"""A table on disk, memory-mapped: any row at once, memory that does not grow with the number of rows.

A folder with ``table.arrow`` (an Arrow IPC file of record batches) and ``cache.json`` (what it is a copy of). A batch holds at most
``_ROWS`` rows and about ``_BYTES`` bytes, so that tables of large media are written in bounded memory too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from unisono.core.errors import ResourceError, SchemaError, TableError, nearest
from unisono.table.gather import Node, gather, locate
from unisono.table.source import TableSource

_FORMAT = 1
_TABLE, _INFO = "table.arrow", "cache.json"
_ROWS, _BYTES = 16384, 16 << 20
#: The most that a cache takes on disk unless told otherwise.
LIMIT_BYTES = 256 << 30


class TableCache:
    """The rows of a table in one memory-mapped file.

    Attributes:
        folder: where the cache lies.
        name: the name of the table it is a copy of.
        root: the folder against which the table's relative media paths resolve; None if there is none.
        num_rows: the number of rows.
        schema: the columns with their plain types.
        fingerprint: the source's fingerprint, or, for a stream, a hash of the content.
        hints: modality words that the source's format named.
        key: the column that names a row, where the source said so.
    """

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        """Map the file.

        Args:
            folder: where the cache lies.
            info: the content of ``cache.json``.
        """
        self.folder, self.name = folder, str(info["name"])
        self.root = None if info["root"] is None else Path(info["root"])
        self.fingerprint, self.hints, self.key = str(info["fingerprint"]), dict(info["hints"]), info["key"]
        self._map = pa.memory_map(str(folder / _TABLE))
        reader = pa.ipc.open_file(self._map)
        self.schema: pa.Schema = reader.schema
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(b.num_rows for b in self._batches)], dtype=np.int64)
        self.num_rows = int(self._starts[-1])
        if self.num_rows != info["rows"]:
            raise ValueError("the number of rows differs")
        self._map.seek(0)
        whole = self._map.read_buffer()
        self._file: NDArray[np.uint8] = np.frombuffer(whole, np.uint8)
        self._base = whole.address
        self._nodes: dict[str, Node] = {}

    @classmethod
    def write(cls, source: TableSource, folder: str | os.PathLike[str], *, limit_bytes: int = LIMIT_BYTES) -> TableCache:
        """Copy a table into a folder, in place of a cache that is there.

        Args:
            source: the table.
            folder: where to write; made if need be.
            limit_bytes: the most that the cache may take.

        Raises:
            ResourceError: the disk is full, or the table needs more than ``limit_bytes``.
            TableError: the table cannot be read, or the folder cannot be written.
        """
        path = Path(folder)
        temporary = path / f"{_TABLE}.{os.getpid()}.tmp"
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / _INFO).unlink(missing_ok=True)
            rows, content = _write_batches(source, temporary, path, limit_bytes)
            temporary.replace(path / _TABLE)
            info = {
                "format": _FORMAT,
                "name": source.name,
                "root": None if source.root is None else str(source.root.resolve()),
                "rows": rows,
                "fingerprint": source.fingerprint or content,
                "content": content,
                "hints": source.hints,
                "key": source.key,
            }
            _write_json(path / _INFO, info)
        except OSError as error:
            raise _disk_error(error, path) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return cls.open(path)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> TableCache:
        """Open a cache that was written before.

        Args:
            folder: where it lies.

        Raises:
            TableError: there is none, or it is damaged or of another version.
        """
        path = Path(folder)
        try:
            info = json.loads((path / _INFO).read_text(encoding="utf-8"))
            if info["format"] != _FORMAT:
                raise TableError(f"{path}: the table cache has format {info['format']}, not {_FORMAT}; remove it to write it anew")
            return cls(path, info)
        except FileNotFoundError:
            raise TableError(f"{path}: there is no table cache; it is written anew from the table") from None
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise TableError(f"{path}: the table cache is damaged ({error}); remove it to write it anew") from None

    def remove(self) -> None:
        """Delete the cache's files, and its folder if nothing else is in it."""
        self._nodes, self._batches = {}, []
        for name in (_INFO, _TABLE):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """Return some rows, in the order asked for; repeats are allowed.

        Args:
            rows: (R,) row indices.
            columns: the columns wanted; all by default.

        Raises:
            IndexError: a row that the table does not have.
            SchemaError: a column that the table does not have.
        """
        rows = np.asarray(rows, np.int64)
        names = self._names(columns)
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= self.num_rows):
            raise IndexError(f"rows go from 0 to {self.num_rows - 1}, asked for {int(rows.min())} to {int(rows.max())}")
        batch = np.searchsorted(self._starts, rows, side="right") - 1
        local = rows - self._starts[batch]
        schema = pa.schema([self.schema.field(n) for n in names])
        return pa.Table.from_arrays([gather(self._file, self._node(n), batch, local) for n in names], schema=schema)

    def scalars(self, column: str) -> pa.ChunkedArray:
        """Return a whole column without copying it.

        Args:
            column: its name.

        Raises:
            SchemaError: there is no such column.
        """
        (name,) = self._names([column])
        position = self.schema.get_field_index(name)
        return pa.chunked_array([b.column(position) for b in self._batches], type=self.schema.field(position).type)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the table in order, without copying it.

        Args:
            columns: the columns wanted; all by default.

        Raises:
            SchemaError: a column that the table does not have.
        """
        names = self._names(columns)
        for batch in self._batches:
            yield batch.select(names)

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return list(self.schema.names)
        for column in columns:
            if column not in self.schema.names:
                raise SchemaError(f"{self.name}: there is no column {column!r}{nearest(column, self.schema.names)}")
        return list(columns)

    def _node(self, column: str) -> Node:
        if column not in self._nodes:
            position = self.schema.get_field_index(column)
            self._nodes[column] = locate([b.column(position) for b in self._batches], self._base)
        return self._nodes[column]


def _write_batches(source: TableSource, target: Path, folder: Path, limit: int) -> tuple[int, str]:
    """Write the rows; return how many there were and a hash of them."""
    state = hashlib.blake2b(str(source.schema).encode(), digest_size=16)
    rows = 0
    with target.open("wb") as file, pa.ipc.new_file(_HashingFile(file, state), source.schema) as writer:
        for batch in _regrouped(source):
            writer.write_batch(batch)
            rows += batch.num_rows
            used = file.tell()
            if used > limit:
                known = source.num_rows
                need = f"about {used * known // rows / 1e9:.2f} GB" if known else f"more than {used / 1e9:.2f} GB"
                raise ResourceError(
                    f"{source.name}: the table cache in {folder} needs {need}, its limit is {limit / 1e9:.2f} GB; "
                    "raise the limit, or keep media in files and name them in the table"
                )
        file.flush()
    return rows, state.hexdigest()


def _regrouped(source: TableSource) -> Iterator[pa.RecordBatch]:
    """Join small batches.

    Yields:
        The rows in few and large batches.
    """
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in source.batches(_ROWS):
        if waiting and (rows + batch.num_rows > _ROWS or size + batch.nbytes > _BYTES):
            yield _joined(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


class _HashingFile(contextlib.AbstractContextManager["_HashingFile"]):
    """A file to write to that hashes what it is given."""

    def __init__(self, file: Any, state: Any) -> None:
        self._file, self._state = file, state
        self.closed = False

    def write(self, data: Any) -> int:
        self._state.update(data)
        return int(self._file.write(data))

    def tell(self) -> int:
        return int(self._file.tell())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    temporary.replace(path)


def _disk_error(error: OSError, folder: Path) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        return ResourceError(f"{folder}: no space left on the disk for the table cache ({free / 1e9:.2f} GB free); free some")
    return TableError(f"{folder}: the table cache cannot be written: {error.strerror or error}; choose a folder you may write to")
