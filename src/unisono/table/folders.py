"""Folders as tables: one table inside, the parts of one table, or folders of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from unisono.core.errors import TableError
from unisono.table.source import Raw

SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_PARTS = {"train", "val", "valid", "validation", "dev", "test"}
_ASIDE = {"state.json", "dataset_info.json", "dataset_dict.json"}


def find_metadata(folder: Path) -> Path | None:
    """Return the folder's ``metadata.csv`` (or .jsonl, .parquet), which has a column ``file_name``; None if there is none.

    Args:
        folder: the folder.
    """
    return next((folder / name for name in _METADATA if (folder / name).is_file()), None)


def find_tables(folder: Path) -> tuple[list[Path], str] | None:
    """Return the table files of a folder and their kind: a single one, or the Parquet or Arrow parts of one table.

    Args:
        folder: the folder.

    Raises:
        TableError: there are several tables.
    """
    inside = sorted(p for p in folder.iterdir() if p.is_file() and _is_table(p))
    if not inside:
        inside = sorted(p for p in folder.rglob("*.parquet") if p.is_file() and not _is_hidden(p, folder))
    kinds = {SUFFIXES[p.suffix.lower()] for p in inside}
    if len(inside) == 1 or (len(kinds) == 1 and kinds <= {"parquet", "arrow"}):
        return inside, kinds.pop()
    if inside:
        listed = ", ".join(p.name for p in inside[:6])
        raise TableError(f"{folder}: the folder holds {len(inside)} tables ({listed}); name the one that is meant")
    return None


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith((".", "_")) and path.name not in _ASIDE


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def folder_values(path: Path, folder: Path) -> dict[str, str]:
    """Return the columns that the folders on the way to a part name, as in ``year=2024/part.parquet``.

    Args:
        path: the part.
        folder: the table's folder.
    """
    steps = [step.split("=", 1) for step in path.relative_to(folder).parts[:-1]]
    return {step[0]: step[1] for step in steps if len(step) == 2 and step[0]}


def open_classes(folder: Path, name: str) -> Raw:
    """Open a folder of class folders: the column ``file`` holds paths relative to it, ``label`` the name of the class folder.

    When the uppermost folders are all called train, val or test, they give a column ``split`` and the folders in them are the classes.

    Args:
        folder: the folder.
        name: its name in messages.

    Raises:
        TableError: there is nothing in the folder that could be a table.
    """
    tops = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
    splits = bool(tops) and all(p.name.strip().lower() in _PARTS for p in tops) and all(any(q.is_dir() for q in p.iterdir()) for p in tops)
    rows: list[tuple[str, str, str]] = []
    for top in tops:
        classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith(".")) if splits else [top]
        for each in classes:
            files = sorted(p for p in each.rglob("*") if p.is_file() and not _is_hidden(p, each))
            rows += [(p.relative_to(folder).as_posix(), each.name, top.name) for p in files]
    if not rows:
        raise TableError(f"{name}: the folder holds no table and no class folders with files; give a table, or one folder a class")
    columns = {"file": [r[0] for r in rows], "label": [r[1] for r in rows]}
    if splits:
        columns["split"] = [r[2] for r in rows]
    table = pa.table({key: pa.array(values, pa.large_string()) for key, values in columns.items()})
    mark = hashlib.blake2b(digest_size=16)
    for relative, _, _ in rows:
        state = (folder / relative).stat()
        mark.update(f"{relative}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=max_rows)

    notes = [f"{len(rows)} files in {len(set(columns['label']))} class folders: column 'file' is the path, 'label' the folder's name"]
    return Raw(table.schema, opener, num_rows=len(rows), notes=notes, fingerprint=mark.hexdigest(), key="file")
