"""Open a table, whatever it is: a file, a folder, standard input, or something in memory."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from unisono.core.errors import ResourceError, TableError
from unisono.table.arrow_format import open_arrow_pipe, open_parts
from unisono.table.csv_format import open_csv
from unisono.table.folders import SUFFIXES, find_metadata, find_tables, folder_values, open_classes
from unisono.table.json_format import open_json
from unisono.table.memory import NAME, open_memory
from unisono.table.source import Raw, TableSource

__all__ = ["TableSource", "open_table"]

STDIN = "standard input"
_MAGIC = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"))
_FOREIGN = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as CSV"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV or Parquet"),
    (b"\x89HDF", "an HDF5 file; write the table as Parquet"),
    (b"\x93NUMPY", "a numpy array; a table names it in a cell, or give it as a dict of arrays"),
    (b"FEA1", "a Feather file of version 1; write it again as Arrow or Parquet"),
    (b"ORC", "an ORC file; write the table as Parquet"),
    (b"Obj\x01", "an Avro file; write the table as Parquet"),
    (b"%PDF", "a PDF document; give a table that names it in a cell"),
    (b"\x89PNG", "a PNG image; give a table that names it in a cell, or a folder of class folders"),
    (b"\xff\xd8\xff", "a JPEG image; give a table that names it in a cell, or a folder of class folders"),
    (b"RIFF", "a sound or image file; give a table that names it in a cell, or a folder of class folders"),
    (b"\x7fELF", "a program"),
)


def open_table(data: Any, *, null_words: Sequence[str] = (), encoding: str = "utf-8", media_root: Path | None = None) -> TableSource:
    """Open a table as a stream of Arrow batches.

    Args:
        data: a path to CSV, TSV, JSON Lines, Parquet (a file or a folder of parts), Arrow or Feather; ``-`` for standard input; a folder
            that holds one table or one folder a class; a pandas or polars frame, an Arrow table, batch or reader, a Hugging Face
            dataset, a dict of lists or a list of dicts; or a table that is open already, which stays as it is.
        null_words: texts that stand for a missing cell, in text columns of every format.
        encoding: the encoding of text files; a byte-order mark goes before it.
        media_root: the folder against which relative media paths resolve; by default the table's own.

    Returns:
        The table, of which little more than the head has been read.

    Raises:
        TableError: there is no such table, or it cannot be read; the message says where and what to do.
    """
    if isinstance(data, TableSource):
        return data
    if not isinstance(data, str | os.PathLike):
        raw, name, root = open_memory(data), NAME, None
    elif os.fspath(data) == "-":
        raw, name, root = _open_pipe(sys.stdin.buffer, encoding), STDIN, Path()
    else:
        name = os.fspath(data)
        raw, name, root = _open_path(Path(name), name, encoding)
    if raw.fingerprint is not None:
        told = json.dumps([raw.fingerprint, list(null_words), encoding, str(raw.schema)])
        raw.fingerprint = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    return TableSource(raw, name=name, root=media_root if media_root is not None else root, null_words=null_words)


def _open_path(path: Path, name: str, encoding: str) -> tuple[Raw, str, Path]:
    try:
        if path.is_dir():
            raw, name = _open_folder(path, name, encoding)
            return raw, name, path
        return _open_file(path, name, encoding), name, path.parent
    except FileNotFoundError:
        raise TableError(f"{name}: there is no such file or folder; check the path (the current folder is {Path.cwd()})") from None
    except (PermissionError, IsADirectoryError) as error:
        raise TableError(f"{name}: cannot be opened: {error.strerror}") from None
    except OSError as error:
        raise TableError(f"{name}: cannot be read: {error.strerror or error}") from None


def _open_folder(path: Path, name: str, encoding: str) -> tuple[Raw, str]:
    """Return the reader, and the file that it reads if it is a single one."""
    metadata = find_metadata(path)
    if metadata is not None:
        return _open_file(metadata, str(metadata), encoding), str(metadata)
    found = find_tables(path)
    if found is None:
        return open_classes(path, name), name
    files, kind = found
    if kind not in {"parquet", "arrow"}:
        return _open_file(files[0], str(files[0]), encoding), str(files[0])
    raw = open_parts(name, [(str(p), p, folder_values(p, path)) for p in files], kind)
    raw.fingerprint = _mark(files)
    if len(files) > 1:
        raw.notes.append(f"{len(files)} files are read one behind the other: {files[0].name} to {files[-1].name}")
    return raw, name


def _open_file(path: Path, name: str, encoding: str) -> Raw:
    with path.open("rb") as file:
        head = file.read(4096)
    if not path.is_file():
        raise TableError(f"{name}: this is no regular file; give a file, a folder, or - for standard input")
    kind = _kind(head, SUFFIXES.get(path.suffix.lower()), name)
    if kind in {"parquet", "arrow"}:
        raw = open_parts(name, [(name, path, {})], kind)
    elif kind == "json":
        raw = open_json(name, lambda: path.open("rb"), encoding=encoding)
    else:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else None
        raw = open_csv(name, lambda: path.open("rb"), encoding=encoding, delimiter=delimiter)
    raw.fingerprint = _mark([path])
    return raw


def _mark(files: Sequence[Path]) -> str:
    states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.blake2b(repr(states).encode(), digest_size=16).hexdigest()


def _kind(head: bytes, by_suffix: str | None, name: str) -> str:
    """Return the format: by its first bytes, then the file's ending, then the look of the text."""
    if not head:
        raise TableError(f"{name}: the file is empty; give a table with a header and at least two rows")
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise TableError(f"{name}: this is {what} (it begins with the bytes {head[:4].hex(' ')})")
    if by_suffix in {"parquet", "arrow"}:
        raise TableError(f"{name}: this is no {by_suffix.capitalize()} file: it begins with the bytes {head[:4].hex(' ')}; write it again")
    if by_suffix is not None:
        return by_suffix
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.replace(b"\0", b"") if marked else head
    if not marked and b"\0" in head:
        raise TableError(
            f"{name}: the format is unknown (it begins with the bytes {head[:4].hex(' ')}); "
            "give CSV, TSV, JSON Lines, Parquet or Arrow, and UTF-16 text with a byte-order mark"
        )
    start = text.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "json" if start.startswith((b"{", b"[{")) or start[:2] in {b"[\n", b"[ ", b"[\r"} else "csv"


class _Prefixed(io.RawIOBase):
    """Bytes that were read already, and then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        size = len(self._head) if size < 0 else size
        out, self._head = self._head[:size], self._head[size:]
        return out + (self._rest.read(size - len(out)) if len(out) < size else b"")


def _open_pipe(stdin: BinaryIO, encoding: str) -> Raw:
    """Open standard input: separated text and Arrow streams as they come; what has to be read twice goes to a temporary file."""
    head = stdin.read(4096)
    kind = _kind(head, None, STDIN)
    pipe: Any = _Prefixed(head, stdin)
    if kind == "csv":
        return open_csv(STDIN, lambda: pipe, encoding=encoding, once=True)
    if kind == "arrow" and not head.startswith(b"ARROW1"):
        return open_arrow_pipe(STDIN, pipe)
    file = tempfile.TemporaryFile(prefix="unisono-")  # noqa: SIM115 - lives as long as the reader
    try:
        shutil.copyfileobj(pipe, file, 1 << 20)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ResourceError(f"no space left in {tempfile.gettempdir()} to keep standard input; set TMPDIR to a larger disk") from None
        raise
    file.flush()
    if kind == "json":
        return open_json(STDIN, lambda: _rewound(file), encoding=encoding)
    whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return open_parts(STDIN, [(STDIN, whole, {})], kind)


def _rewound(file: Any) -> Any:
    """Return a second handle on an open file, at its beginning."""
    again = os.fdopen(os.dup(file.fileno()), "rb")
    again.seek(0)
    return again
