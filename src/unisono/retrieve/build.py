"""Rows into an index: embed a table batch by batch, write vectors and fields behind what is there, then the copies for a fast look.

Letters: N rows, E dimensions of a vector, S sides (the row, then each source), C rows in a chunk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unisono.core.errors import SchemaError, TableError
from unisono.core.schema import ROW
from unisono.retrieve.embedder import VECTOR, Embedder
from unisono.retrieve.fields import MAX_MEDIA, choose_fields, field_schema, field_values
from unisono.retrieve.scan import Copies, Float, Frame, Gallery, chunks, mapped
from unisono.retrieve.store import ArrowFile, Files
from unisono.table.read import TableSource

#: Vectors shorter than this have no direction.
_TINY = 1e-20


def side_file(number: int, generation: int, kind: str) -> str:
    """The name of one of a side's files: ``f32`` (vectors), ``bf16`` and ``int8`` (copies) or ``bounds``."""
    return f"side{number}-{generation}.{kind}"


def present_file(generation: int) -> str:
    """The name of the file that says which side each row has."""
    return f"present-{generation}.u8"


@dataclass
class Added:
    """What became of a table's rows.

    Attributes:
        rows: how many there were.
        keys: their keys.
        dimension: of their vectors; 0 where no row has one.
        part: the manifest's entry for their files.
        without: rows that have no vector at all.
        shortened: column -> cells that were too large to keep.
        dropped: columns that are not kept.
    """

    rows: int = 0
    keys: Any = None
    dimension: int = 0
    part: dict[str, Any] = field(default_factory=dict)
    without: int = 0
    shortened: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where rows go.

    Attributes:
        files: the index's files.
        generation: of the files that rows are added to.
        part: the number of the new part.
        dimension: of the vectors there are; 0 in a new index.
        first: the number of the next row, for rows without keys.
        keyed: whether rows have keys; None in a new index.
        fields: the columns kept; None for those that are kept by default.
        max_media: the largest cell of media kept, in bytes.
        schema: of the fields there are; None in a new index.
    """

    files: Files
    generation: int
    part: int = 0
    dimension: int = 0
    first: int = 0
    keyed: bool | None = None
    fields: Sequence[str] | None = None
    max_media: int = MAX_MEDIA
    schema: pa.Schema | None = None


def add_rows(target: Target, embedder: Embedder, source: TableSource) -> Added:
    """Embed a table and write its vectors, keys and fields; nothing counts before ``Files.settle`` and the manifest.

    Args:
        target: where to.
        embedder: the model.
        source: the table.

    Raises:
        SchemaError: the key column is absent, empty or of a kind that names nothing; or the fields are not those of the index.
        TableError: a vector of another length than those there are.
    """
    added = Added(dimension=target.dimension)
    kept, added.dropped = choose_fields(source.schema, embedder.columns, target.fields)
    schema = field_schema(source.schema, kept, embedder.columns) if target.schema is None else target.schema
    fields_name, keys_name = f"fields-{target.generation}-{target.part}.arrow", f"keys-{target.generation}-{target.part}.arrow"
    fields, keys_file = ArrowFile(target.files, fields_name, schema), None
    keys: list[pa.Array] = []
    for table, batch in _paired(embedder, source):
        found = _keys(batch, embedder, source, target, added.rows)
        if keys_file is None:
            keys_file = ArrowFile(target.files, keys_name, pa.schema([("key", found.type)]))
        keys_file.write(pa.record_batch([found], names=["key"]))
        keys.append(found)
        _write_vectors(target, batch, ["", *embedder.sources], added, source.name)
        columns = []
        for name in kept:
            dtype = schema.field(name).type
            column, count = field_values(table.column(table.schema.get_field_index(name)), name, dtype, target.max_media)
            added.shortened[name] = added.shortened.get(name, 0) + count
            columns.append(column)
        fields.write(pa.RecordBatch.from_arrays(columns, schema=schema))
        added.rows += batch.num_rows
    fields.close()
    if keys_file is not None:
        keys_file.close()
    added.keys = pa.chunked_array(keys)
    added.shortened = {name: count for name, count in added.shortened.items() if count}
    _check_keys(added.keys, embedder.key or ROW, source.name)
    added.part = {"fields": fields_name, "keys": keys_name, "rows": added.rows, "root": _relative(source.root, target.files.folder)}
    return added


def _paired(embedder: Embedder, source: TableSource) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Batches of the table, each with its vectors."""
    seen: deque[pa.RecordBatch] = deque()
    source.watch = seen.append
    for batch in embedder.embeddings(source):
        table = seen.popleft()
        if table.num_rows != batch.num_rows:
            raise TableError(f"{source.name}: {table.num_rows} rows were read, but {batch.num_rows} vectors came; the model is at fault")
        yield table, batch


def _keys(batch: pa.RecordBatch, embedder: Embedder, source: TableSource, target: Target, done: int) -> pa.Array:
    """The keys of a batch as text or whole numbers; numbers of their own for rows without."""
    keyed = embedder.key is not None and embedder.key in source.schema.names
    if target.keyed is not None and keyed != target.keyed:
        had, has = ("keys", f"the key column {embedder.key!r} is not there") if target.keyed else ("numbers", "the table has keys")
        raise SchemaError(f"{source.name}: the rows of the index have {had}, but {has}; give a table like the one that was indexed")
    if not keyed:
        start = target.first + done
        return pa.array(np.arange(start, start + batch.num_rows, dtype=np.int64))
    keys = batch.column(0)
    if keys.null_count:
        row = done + int(np.flatnonzero(keys.is_null().to_numpy(zero_copy_only=False))[0])
        raise SchemaError(f"{source.name}: row {row}, column {embedder.key!r}: the key is missing, and a row of an index needs one")
    if pa.types.is_nested(keys.type) or pa.types.is_large_binary(keys.type):
        raise SchemaError(f"{source.name}: the key column {embedder.key!r} holds {keys.type}, which cannot name a row")
    return keys.cast(pa.int64() if pa.types.is_integer(keys.type) else pa.large_string())


def _check_keys(keys: pa.ChunkedArray, column: str, name: str) -> None:
    """Refuse two rows of one key."""
    counts = pc.value_counts(keys)
    many = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(many):
        key = many[0].as_py()["values"]
        rows = np.flatnonzero(pc.equal(keys, pa.scalar(key, keys.type)).to_numpy(zero_copy_only=False))
        more = f" ({len(many) - 1} more keys occur again)" if len(many) > 1 else ""
        raise SchemaError(
            f"{name}: column {column!r}: the rows {rows[0]} and {rows[1]} have the same key {key!r}{more}; a key names one row"
        )


def _write_vectors(target: Target, batch: pa.RecordBatch, sides: Sequence[str], added: Added, name: str) -> None:
    present = np.zeros((batch.num_rows, len(sides)), np.bool_)
    for number, side in enumerate(sides):
        column = batch.column(batch.schema.get_field_index(f"{VECTOR}.{side}" if side else VECTOR))
        vectors, present[:, number] = unit_rows(column)
        if added.dimension and vectors.shape[1] != added.dimension:
            raise TableError(f"{name}: vectors of {vectors.shape[1]} numbers, but those of the index have {added.dimension}")
        added.dimension = vectors.shape[1]
        target.files.append(side_file(number, target.generation, "f32"), vectors.data.cast("B") if vectors.size else b"")
    added.without += int((~present[:, 0]).sum())
    target.files.append(present_file(target.generation), present.tobytes())


def unit_rows(column: pa.Array) -> tuple[Float, NDArray[np.bool_]]:
    """Rows of a fixed-size list as vectors of length 1.

    Args:
        column: (C,) lists of E numbers, null where a row has none.

    Returns:
        (C, E) vectors, zero where there is none or where it has no direction, and (C,) which rows have one.
    """
    size = column.type.list_size
    flat = np.asarray(column.values.to_numpy(zero_copy_only=False), np.float64)[column.offset * size : (column.offset + len(column)) * size]
    vectors = flat.reshape(len(column), size)
    present = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)
    vectors = np.where(present[:, None], vectors, 0.0)
    lengths = np.sqrt(np.einsum("ce,ce->c", vectors, vectors))
    present &= np.isfinite(lengths) & (lengths > _TINY)
    return np.where(present[:, None], vectors / np.where(present, lengths, 1.0)[:, None], 0.0).astype(np.float32), present


def _relative(root: Path | None, folder: Path) -> str | None:
    """A folder as seen from the index, so that both can move together."""
    return None if root is None else os.path.relpath(root.resolve(), folder.resolve())


def write_copies(
    files: Files, generation: int, sides: Sequence[dict[str, Any]], rows: tuple[int, int], dimension: int
) -> list[dict[str, Any]]:
    """Write the copies for a fast first look at new rows; the frame of a side is chosen when it is first written.

    Args:
        files: the index's files, settled.
        generation: of the files.
        sides: the manifest's sides.
        rows: the first new row, and the row behind the last.
        dimension: of the vectors.

    Returns:
        The sides with their frames.
    """
    begin, end = rows
    present = mapped(files.folder / present_file(generation), np.bool_, (end, len(sides)))
    result = []
    for number, side in enumerate(sides):
        vectors = mapped(files.folder / side_file(number, generation, "f32"), np.float32, (end, dimension))
        frame = frame_of(side) if "centre" in side else Frame.of(vectors, present[:, number])
        for start, part in chunks(vectors[begin:]):
            copies = Copies.of(part, frame)
            copies.bounds[~present[begin + start : begin + start + len(part), number]] = 0.0
            for kind, data in (("bf16", copies.low), ("int8", copies.coarse), ("bounds", copies.bounds)):
                files.append(side_file(number, generation, kind), data.tobytes())
        result.append({**side, "centre": frame.centre.tolist(), "scale": frame.scale})
    return result


def frame_of(side: dict[str, Any]) -> Frame:
    """The frame that a manifest records."""
    return Frame(np.asarray(side["centre"], np.float32), float(side["scale"]))


def side_gallery(folder: Path, content: Mapping[str, Any], number: int) -> Gallery:
    """One side of an index, memory-mapped.

    Args:
        folder: the index's folder.
        content: its manifest.
        number: of the side.
    """
    rows, shape = content["rows"], (content["rows"], content["dimension"])
    kinds = (("f32", np.float32, shape), ("bf16", np.uint16, shape), ("int8", np.int8, shape), ("bounds", np.float32, (rows, 5)))
    maps = (mapped(folder / side_file(number, content["generation"], kind), dtype, size) for kind, dtype, size in kinds)
    vectors, low, coarse, bounds = maps
    return Gallery(vectors, low, coarse, bounds, frame_of(content["sides"][number]))
