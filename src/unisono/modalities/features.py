"""What frozen encoders said, kept on disk: found again by content, shared between runs, bounded, and whole after a killed process.

One SQLite file in a folder. An entry's key is a hash of the encoder, its settings and the cell's content, so an entry never grows stale; an
entry is written within a transaction and read back under a checksum. When the file reaches its limit the entries written first go first. A
folder that cannot be used costs time, never an answer: the encoder runs again.

Letters: K states of a cell, F features of a state.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import UserError

logger = logging.getLogger("unisono")

States = NDArray[np.float32]
T = TypeVar("T")

#: The most that the file takes unless told otherwise.
LIMIT_BYTES = 8 << 30
#: Names the folder of all that may be thrown away; ``off`` keeps nothing on disk.
VARIABLE = "UNISONO_CACHE"
OFF = "off"
_FILE = "features.db"
_ASKED, _DROPPED = 400, 256
#: Connections of a parent process, kept so that a child never closes them.
_ABANDONED: list[sqlite3.Connection | None] = []
_TABLE = (
    "CREATE TABLE IF NOT EXISTS features (id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, "
    "k INTEGER NOT NULL, f INTEGER NOT NULL, sum INTEGER NOT NULL, data BLOB NOT NULL)"
)


def default_folder() -> Path | None:
    """``features`` in the folder that ``UNISONO_CACHE`` names, else in the user's cache; None where it is ``off``."""
    named = os.environ.get(VARIABLE, "")
    if named == OFF:
        return None
    if named:
        return Path(named).expanduser() / "features"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "unisono" / "features"


class FeatureCache:
    """States of cells by key.

    Args:
        folder: where the file lies; made if need be.
        limit_bytes: the most that it takes, give or take what one call writes.

    Raises:
        UserError: the folder is a file, or the limit is none.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"features {folder}: this is a file, not a folder")
        if limit_bytes <= 0:
            raise UserError(f"features {folder}: a limit of {limit_bytes} bytes keeps nothing")
        self.folder, self.limit_bytes, self.usable = folder, limit_bytes, True
        self._lock = threading.Lock()
        self._base: sqlite3.Connection | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "limit_bytes": self.limit_bytes, "usable": self.usable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._base, self._process = threading.Lock(), None, 0

    def read(self, keys: Sequence[bytes]) -> dict[bytes, States]:
        """The states (K, F) of those keys that are there and whole."""
        rows = self._done(lambda base: [row for part in _parts(keys, _ASKED) for row in _select(base, part)]) or []
        found = {}
        for key, k, f, checksum, data in rows:
            if len(data) == 4 * k * f and zlib.crc32(data) == checksum:
                found[bytes(key)] = np.frombuffer(data, "<f4").astype(np.float32).reshape(k, f)
        return found

    def write(self, made: Mapping[bytes, States]) -> None:
        """Keep states; those of a key that is there already stay as they are."""
        rows = []
        for key, states in made.items():
            data = np.ascontiguousarray(states, "<f4").tobytes()
            rows.append((key, *states.shape, zlib.crc32(data), data))

        def add(base: sqlite3.Connection) -> None:
            base.execute("BEGIN IMMEDIATE")
            base.executemany("INSERT OR IGNORE INTO features (key, k, f, sum, data) VALUES (?, ?, ?, ?, ?)", rows)
            while _used(base) > self.limit_bytes:
                if base.execute(f"DELETE FROM features WHERE id IN (SELECT id FROM features ORDER BY id LIMIT {_DROPPED})").rowcount == 0:
                    break
            base.execute("COMMIT")

        self._done(add)

    def count(self) -> int:
        """How many cells there are."""
        return int(self._done(lambda base: base.execute("SELECT count(*) FROM features").fetchone()[0]) or 0)

    def size(self) -> int:
        """Bytes in use."""
        return int(self._done(_used) or 0)

    def remove(self) -> None:
        """Delete the file, and the folder if nothing else is in it."""
        self._close()
        for name in (_FILE, f"{_FILE}-wal", f"{_FILE}-shm"):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _done(self, work: Any) -> Any:
        """Do something with the file; None where it cannot be used, which is said once."""
        if not self.usable:
            return None
        try:
            with self._guard():
                try:
                    return work(self._open())
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError as error:
                    logger.warning("features: %s is damaged (%s) and is begun anew", self.folder / _FILE, error)
                    self.remove()
                    return work(self._open())
        except (sqlite3.Error, OSError) as error:
            self.usable = False
            self._close()
            logger.warning("features: %s cannot be used (%s); encoders run again instead", self.folder, error)
            return None

    def _guard(self) -> threading.Lock:
        """The lock of this process: one that a parent held when it forked would never open, and its connection must not be closed here."""
        if self._process != os.getpid():
            _ABANDONED.append(self._base)
            self._lock, self._base, self._process = threading.Lock(), None, os.getpid()
        return self._lock

    def _open(self) -> sqlite3.Connection:
        if self._base is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(self.folder / _FILE, timeout=60.0, isolation_level=None, check_same_thread=False)
            try:
                base.execute("PRAGMA journal_mode=WAL")
                base.execute("PRAGMA synchronous=NORMAL")
                base.execute(_TABLE)
            except sqlite3.Error:
                base.close()
                raise
            self._base = base
        return self._base

    def _close(self) -> None:
        if self._base is not None:
            with contextlib.suppress(sqlite3.Error):
                self._base.close()
            self._base = None


def _parts(values: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (values[k : k + size] for k in range(0, len(values), size))


def _select(base: sqlite3.Connection, keys: Sequence[bytes]) -> list[Any]:
    marks = ", ".join("?" * len(keys))
    return base.execute(f"SELECT key, k, f, sum, data FROM features WHERE key IN ({marks})", list(keys)).fetchall()


def _used(base: sqlite3.Connection) -> int:
    """Bytes of pages that hold something."""
    pages, free, size = (int(base.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size
