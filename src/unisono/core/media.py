"""From a media cell to its bytes: bytes, ``{bytes, path}`` structs and paths relative to the table, confined and bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unisono.core.errors import Unreadable

#: The largest media file that is read, in bytes.
MAX_MEDIA_BYTES = 512 * 1024 * 1024


def media_bytes(cell: Any, root: Path | None, *, limit: int = MAX_MEDIA_BYTES) -> bytes:
    """The content of a media cell.

    Args:
        cell: bytes, a path as text, or a mapping with ``bytes`` or ``path``.
        root: the folder that paths are relative to; a path that leaves it is refused.
        limit: the largest size accepted, in bytes.

    Raises:
        Unreadable: nothing there, too large, outside the root, or not a media cell at all.
    """
    if isinstance(cell, dict):
        content = cell.get("bytes")
        cell = content if content is not None else cell.get("path")
    if isinstance(cell, bytes | bytearray | memoryview):
        if len(cell) > limit:
            raise Unreadable(f"{len(cell):,} bytes are more than the {limit:,} allowed")
        return bytes(cell)
    if isinstance(cell, str):
        return _file_bytes(media_path(cell, root), cell, limit)
    raise Unreadable(f"expected bytes, a path, or a struct with bytes or path, got {type(cell).__name__}")


def media_path(text: str, root: Path | None) -> Path:
    """Resolve a path relative to the table's folder.

    Raises:
        Unreadable: the table has no folder, or the path leaves it.
    """
    if root is None:
        raise Unreadable(f"the path {text!r} has nothing to be relative to: the table is in memory (give a media root)")
    base = root.resolve()
    path = (base / text).resolve()
    if not path.is_relative_to(base):
        raise Unreadable(f"the path {text!r} leaves the folder {root} (allow a wider folder with --media-root)")
    return path


def _file_bytes(path: Path, text: str, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise Unreadable(f"{text!r} has {size:,} bytes, more than the {limit:,} allowed")
        if not path.is_file():
            raise Unreadable(f"{text!r} is no file")
        return path.read_bytes()
    except FileNotFoundError:
        raise Unreadable(f"the file {text!r} does not exist") from None
    except OSError as error:
        raise Unreadable(f"the file {text!r} cannot be read: {error.strerror}") from None
