"""The files of an index: raw arrays and Arrow tables that are only ever added to, and one manifest that says how much of them counts.

A change writes behind the end of what the manifest names, or new files, and then the manifest in one step: a reader sees the index before
or after it, and what an interrupted change left behind is written over by the next.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from unisono.core.errors import IndexFolderError, ResourceError
from unisono.core.files import read_json, write_text

#: Grows when older programs could misread a folder.
FORMAT = 1
MANIFEST, KIND = "index.json", "index"
_LOCK = ".lock"
#: Folders of up to so many bytes are hashed whenever they are opened; of larger ones only the sizes are looked at.
HASHED = 1 << 28
_BLOCK = 1 << 22


class Files:
    """Files that are added to, with the SHA-256 of every piece.

    Attributes:
        folder: where they are.
        pieces: file name -> [[bytes, SHA-256], ...] in order.
    """

    def __init__(self, folder: Path, pieces: Mapping[str, Any] | None = None) -> None:
        """Begin with what a manifest records.

        Args:
            folder: where the files are.
            pieces: what is there already.
        """
        self.folder = folder
        self.pieces: dict[str, list[tuple[int, str]]] = {n: [(int(b), str(h)) for b, h in p] for n, p in (pieces or {}).items()}
        self._open: dict[str, tuple[Any, Any, int]] = {}

    def size(self, name: str) -> int:
        """The bytes of a file that count."""
        return sum(size for size, _ in self.pieces.get(name, []))

    def append(self, name: str, data: bytes | memoryview) -> None:
        """Write behind the end of a file; ``settle`` makes it count."""
        if name not in self._open:
            path = self.folder / name
            file = path.open("r+b" if path.exists() else "w+b")
            file.truncate(self.size(name))
            file.seek(0, os.SEEK_END)
            self._open[name] = (file, hashlib.sha256(), 0)
        file, digest, size = self._open[name]
        file.write(data)
        digest.update(data)
        self._open[name] = (file, digest, size + memoryview(data).nbytes)

    def settle(self) -> None:
        """End the pieces that were being written."""
        for name, (file, digest, size) in self._open.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self.pieces.setdefault(name, []).append((size, digest.hexdigest()))
        self._open.clear()

    def abandon(self) -> None:
        """Close what was being written without counting it."""
        for file, _, _ in self._open.values():
            file.close()
        self._open.clear()

    def check(self, *, content: bool) -> None:
        """Hold the files against what is recorded of them.

        Args:
            content: also their hashes.

        Raises:
            IndexFolderError: one is missing, too short or changed.
        """
        for name, pieces in self.pieces.items():
            path = self.folder / name
            if not path.is_file():
                raise IndexFolderError(f"{self.folder}: {name} is missing; the index is damaged, build it again")
            if path.stat().st_size < self.size(name):
                raise IndexFolderError(
                    f"{path}: {path.stat().st_size:,} bytes, fewer than the {self.size(name):,} of the index; build it again"
                )
            if content and not all(_same(path, begin, size, known) for begin, size, known in _places(pieces)):
                raise IndexFolderError(f"{path}: its content is not what {MANIFEST} records; the index is damaged, build it again")

    @property
    def total(self) -> int:
        """The bytes of all files."""
        return sum(self.size(name) for name in self.pieces)


def _places(pieces: list[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    begin = 0
    for size, known in pieces:
        yield begin, size, known
        begin += size


def _same(path: Path, begin: int, size: int, known: str) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(begin)
        while size and (block := file.read(min(size, _BLOCK))):
            digest.update(block)
            size -= len(block)
    return size == 0 and digest.hexdigest() == known


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an index says of itself.

    Raises:
        IndexFolderError: there is no index, it is damaged, or made by a newer version.
    """
    if not folder.is_dir():
        raise IndexFolderError(f"{folder}: there is no such index; make one with: unisono index DIR TABLE --out {folder}")
    content = read_json(folder / MANIFEST, folder, KIND, IndexFolderError)
    version = content.get("format")
    if not isinstance(version, int) or version < 1:
        raise IndexFolderError(f"{folder / MANIFEST}: 'format' is {version!r}; this is no index")
    if version > FORMAT:
        raise IndexFolderError(f"{folder}: made by a newer version (format {version}, this program reads up to {FORMAT}): upgrade unisono")
    kinds = {"files": dict, "sides": list, "parts": list, "model": dict, "columns": dict, "rows": int, "dimension": int, "generation": int}
    wrong = next((name for name, kind in kinds.items() if not isinstance(content.get(name), kind)), None)
    if wrong is not None or any("/" in name or name.startswith("..") for name in content["files"]):
        raise IndexFolderError(f"{folder / MANIFEST}: {wrong or 'files'!r} is malformed; the index is damaged, build it again")
    try:
        named = [p[kind] for p in content["parts"] for kind in ("fields", "keys")] + [g["file"] for g in content["graphs"].values()]
        named += [content["dead_file"]] if content["dead_file"] else []
    except (KeyError, TypeError, AttributeError):
        named = [""]
    if not set(named) <= set(content["files"]):
        raise IndexFolderError(f"{folder / MANIFEST}: it names files that it does not record; the index is damaged, build it again")
    return content


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Make a change count."""
    write_text(folder / MANIFEST, json.dumps({"format": FORMAT, **content}, ensure_ascii=False) + "\n")


class ArrowFile:
    """An Arrow file that is written batch by batch."""

    def __init__(self, files: Files, name: str, schema: pa.Schema) -> None:
        """Begin the file.

        Args:
            files: where it belongs.
            name: its name.
            schema: its columns.
        """
        self.name, self.schema = name, schema
        self._writer = pa.ipc.new_file(pa.PythonFile(_Sink(files, name), mode="w"), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the end."""
        self._writer.close()


class _Sink:
    """What Arrow writes to."""

    closed = False

    def __init__(self, files: Files, name: str) -> None:
        self._files, self._name, self._size = files, name, 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._files.append(self._name, data)
        self._size += size
        return size

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


def open_arrow(path: Path) -> pa.Table:
    """An Arrow file, memory-mapped.

    Raises:
        IndexFolderError: it is no Arrow file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise IndexFolderError(f"{path}: damaged ({error}); build the index again") from None


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Let one process change an index at a time.

    Raises:
        ResourceError: another one is at it, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    try:
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResourceError(f"{folder}: another process is changing this index; try again when it is done") from None
        yield
