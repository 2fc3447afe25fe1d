"""Write batches as a table beside its media files."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def _csv_field(value: Any) -> str:
    """Write one field: null is an unquoted empty field, text is quoted where it must be or is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        value = json.dumps(value, separators=(",", ":"))
    text = value.isoformat() if isinstance(value, datetime.datetime) else str(value)
    return '"' + text.replace('"', '""') + '"' if text == "" or any(c in text for c in ',"\r\n') else text


def _stored(column: str, suffix: str, base: Path, first: int, cells: list[bytes | None]) -> list[str | None]:
    (base / column).mkdir(exist_ok=True)
    paths: list[str | None] = []
    for row, cell in enumerate(cells, start=first):
        paths.append(None if cell is None else f"{column}/{row:06d}{suffix}")
        if cell is not None:
            (base / column / f"{row:06d}{suffix}").write_bytes(cell)
    return paths


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], suffixes: Mapping[str, str]) -> Path:
    """Write batches to a CSV or Parquet file, the columns named in ``suffixes`` as files in folders of their names."""
    fields = [pa.field(f.name, pa.string()) if f.name in suffixes else f for f in schema]
    kept = pa.schema(fields)
    with ExitStack() as stack:
        write: Callable[[dict[str, list[Any]]], Any]
        if path.suffix == ".parquet":
            parquet = stack.enter_context(pq.ParquetWriter(path, kept))

            def write(columns: dict[str, list[Any]]) -> None:
                parquet.write_table(pa.table(columns, schema=kept))

        else:
            out = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
            out.write(",".join(_csv_field(name) for name in schema.names) + "\n")

            def write(columns: dict[str, list[Any]]) -> None:
                for row in zip(*columns.values(), strict=True):
                    out.write(",".join(_csv_field(value) for value in row) + "\n")

        first = 0
        for batch in batches:
            columns = {name: batch[name].to_pylist() for name in schema.names}
            for name, suffix in suffixes.items():
                columns[name] = _stored(name, suffix, path.parent, first, columns[name])
            write(columns)
            first += batch.num_rows
    return path
