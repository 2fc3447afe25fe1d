"""Files of a folder that is kept: written whole or not at all, bounded and checked when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from unisono.core.errors import ModelFolderError, ResourceError

_MAX_JSON = 256 << 20


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old or the new one, never half.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        forget(temporary)
        raise ResourceError(f"{path} cannot be written: {error.strerror}") from None


def forget(temporary: Path) -> None:
    """Remove a file that was not finished, if it can be."""
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, folder: Path, kind: str, error: type[Exception] = ModelFolderError) -> dict[str, Any]:
    """Read a JSON object of a folder.

    Args:
        path: the file.
        folder: the folder, for messages.
        kind: what the folder is, in words.
        error: what is raised.
    """
    if not path.is_file():
        raise error(f"{folder}: {path.name} is missing; this is no {kind}")
    if path.stat().st_size > _MAX_JSON:
        raise error(f"{path}: larger than {_MAX_JSON:,} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: not valid JSON ({reason}); the file is damaged") from None
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object")
    return content
