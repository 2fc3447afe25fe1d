"""``inspect``: what a table holds, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from unisono.core.errors import SchemaError, nearest
from unisono.modalities.base import Context
from unisono.model.options import named_targets
from unisono.model.prepare import sample_rows
from unisono.table.cache import TableCache
from unisono.table.infer import SAMPLE_ROWS, ColumnReport, describe_columns, make_columns
from unisono.table.read import open_table
from unisono.table.store import BadCell, decode_column
from unisono.tasks.base import detect_task

#: Cells of each column that are decoded to count unreadable ones.
DECODE_ROWS = 20_000
_CHUNK = 512


@dataclass(frozen=True)
class Inspection:
    """What was found out about a table.

    Attributes:
        name: the table.
        rows: how many rows it has.
        columns: one report a column; ``missing`` counts all rows.
        targets: target -> (task, why).
        unreadable: column -> number of unreadable cells.
        bad: the unreadable cells themselves.
        decoded: how many rows were decoded to find them.
        notes: what a person should know.
    """

    name: str
    rows: int
    columns: tuple[ColumnReport, ...]
    targets: Mapping[str, tuple[str, str]]
    unreadable: Mapping[str, int]
    bad: tuple[BadCell, ...]
    decoded: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "table": self.name,
            "rows": self.rows,
            "columns": [{**asdict(c), "unreadable": self.unreadable.get(c.name, 0)} for c in self.columns],
            "targets": {name: {"task": task, "reason": why} for name, (task, why) in self.targets.items()},
            "decoded": self.decoded,
            "notes": list(self.notes),
        }

    def to_yaml(self) -> str:
        """A schema file that ``fit --schema`` takes, to be changed by hand."""
        inputs = {c.name: c.modality for c in self.columns if c.role == "input"}
        content: dict[str, Any] = {"columns": inputs}
        content["drop"] = [c.name for c in self.columns if c.role == "left out"]
        if self.targets:
            content["targets"] = {name: task for name, (task, _) in self.targets.items()}
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return text


def inspect_table(
    data: Any,
    *,
    target: str | Sequence[str] | Mapping[str, str | None] | None = None,
    columns: Mapping[str, str] | None = None,
    null_words: Sequence[str] = (),
    encoding: str = "utf-8",
    media_root: Path | None = None,
    seed: int = 0,
) -> Inspection:
    """Find out what each column of a table is.

    Args:
        data: whatever ``open_table`` reads.
        target: target columns, if known: then leaked targets are looked for.
        columns: column -> modality.
        null_words: words that mean null.
        encoding: of text files.
        media_root: the folder that media paths are relative to, when not the table's own.
        seed: of the sample of rows that is looked at.

    Raises:
        UserError: the table cannot be read, or a named column is absent.
    """
    source = open_table(data, null_words=null_words, encoding=encoding, media_root=media_root)
    targets = named_targets(target)
    for name in targets:
        if name not in source.schema.names:
            raise SchemaError(f"{source.name}: there is no column {name!r}{nearest(name, source.schema.names)}")
    with TemporaryDirectory(prefix="unisono-") as folder:
        cache = TableCache.write(source, Path(folder))
        rows = np.arange(cache.num_rows, dtype=np.int64)
        sample = cache.take(sample_rows(rows, SAMPLE_ROWS, seed), None)
        roles = dict.fromkeys(targets, "target")
        reports = describe_columns(sample, roles=roles, overrides=columns or {}, hints=source.hints, root=source.root)
        missing = {r.name: cache.scalars(r.name).null_count for r in reports}
        found = tuple(replace(r, missing=missing[r.name], rows=cache.num_rows) for r in reports)
        tasks = {name: _task(sample, name, word) for name, word in targets.items()}
        bad = _unreadable(cache, found, source.root, sample_rows(rows, DECODE_ROWS, seed))
    counts: dict[str, int] = {}
    for cell in bad:
        counts[cell.column] = counts.get(cell.column, 0) + 1
    return Inspection(
        source.name, len(rows), found, tasks, counts, tuple(bad), min(len(rows), DECODE_ROWS), tuple(source.notes)
    )  # fmt: skip


def _task(sample: pa.Table, name: str, word: str | None) -> tuple[str, str]:
    if word is not None:
        return word, "as told"
    return detect_task(pa.chunked_array(sample.column(name)).combine_chunks(), name)


def _unreadable(cache: TableCache, reports: Sequence[ColumnReport], root: Path | None, rows: Any) -> list[BadCell]:
    bad: list[BadCell] = []
    for column in make_columns(reports):
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            decoded = decode_column(cache.take(part, [column.name]).column(column.name), column, Context(root))
            bad += [BadCell(int(part[row]), column.name, reason) for row, reason in decoded.bad]
    return bad
