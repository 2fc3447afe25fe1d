"""JSON Lines: one object a line; types are found over the whole file, and where they conflict the values stay as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa

from unisono.core.errors import TableError
from unisono.table.csv_format import Utf8Stream, check_encoding
from unisono.table.source import Raw
from unisono.table.values import common_type, unify, values_array

_CHUNK_ROWS, _CHUNK_BYTES = 4096, 16 << 20
_LINE_BYTES = 1 << 30
_ARRAY_BYTES = 1 << 30


def open_json(name: str, reopen: Callable[[], BinaryIO], *, encoding: str = "utf-8") -> Raw:
    """Open JSON Lines, or a JSON array of objects.

    Args:
        name: the table's name, for messages.
        reopen: returns the bytes from their beginning; called once for each reading.
        encoding: the text's encoding; a byte-order mark goes before it.

    Returns:
        The reader; the file has been read once to find the types.

    Raises:
        TableError: a line that is no JSON object (the line is named), undecodable text, no rows.
    """
    types: dict[str, pa.DataType] = {}
    rows = 0
    for records in _chunks(name, reopen, encoding):
        for key in dict.fromkeys(chain.from_iterable(records)):
            types[key] = unify(types.get(key, pa.null()), common_type([record.get(key) for record in records]))
        rows += len(records)
    if not types:
        raise TableError(f"{name}: the file holds no rows; give at least two objects, one a line")
    schema = pa.schema(list(types.items()))

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        del max_rows
        for records in _chunks(name, reopen, encoding):
            arrays = [values_array([r.get(f.name) for r in records], f.type) for f in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return Raw(schema, opener, num_rows=rows)


def _chunks(name: str, reopen: Callable[[], BinaryIO], encoding: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the records, a bounded number at a time."""
    with reopen() as file:
        head = file.read(4096)
        found, mark = check_encoding(encoding, head)
        stream = Utf8Stream(head[mark:], file, encoding=found, name=name)
        if head[mark:].replace(b"\0", b"").lstrip()[:1] == b"[":
            yield from _array(name, stream)
            return
        records: list[dict[str, Any]] = []
        size = 0
        for number, line in enumerate(_lines(name, stream)):
            if not line or line.isspace():
                continue
            records.append(_record(name, number, line))
            size += len(line)
            if len(records) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
                yield records
                records, size = [], 0
        if records:
            yield records


def _lines(name: str, stream: Utf8Stream) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    while block := stream.read(1 << 20):
        *lines, tail = block.split(b"\n")
        if lines:
            yield b"".join([*rest, lines[0]])
            yield from lines[1:]
            rest, size = [], 0
        rest.append(tail)
        size += len(tail)
        if size > _LINE_BYTES:
            raise TableError(f"{name}: a line is longer than {_LINE_BYTES >> 20} MB; is this JSON Lines, one object a line?")
    if size:
        yield b"".join(rest)


def _record(name: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = _decode(line.decode().strip(" \t\r\n"))
    except _DuplicateName as error:
        raise TableError(f"{name}: line {number + 1} names {str(error)!r} twice; remove one of them") from None
    except (ValueError, RecursionError) as error:
        raise TableError(f"{name}: line {number + 1} is not JSON: {error}; JSON Lines has one object a line") from None
    if not isinstance(record, dict):
        raise TableError(f"{name}: line {number + 1} is a JSON {type(record).__name__}, not an object; JSON Lines has one object a line")
    return record


def _array(name: str, stream: Utf8Stream) -> Iterator[list[dict[str, Any]]]:
    text = stream.read(_ARRAY_BYTES + 1)
    if len(text) > _ARRAY_BYTES:
        raise TableError(f"{name}: a JSON array of more than {_ARRAY_BYTES >> 20} MB cannot be streamed; write one object a line (.jsonl)")
    try:
        records = json.loads(text, object_pairs_hook=_unique)
    except _DuplicateName as error:
        raise TableError(f"{name}: an object names {str(error)!r} twice; remove one of them") from None
    except (ValueError, RecursionError) as error:
        raise TableError(f"{name}: this is not JSON: {error}; give an array of objects, or one object a line") from None
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise TableError(f"{name}: row {row} is a JSON {type(record).__name__}, not an object")
    for start in range(0, len(records), _CHUNK_ROWS):
        yield records[start : start + _CHUNK_ROWS]


class _DuplicateName(ValueError):  # noqa: N818 - a signal, not an error
    """An object with two values of one name."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateName(next(name for name in names if names.count(name) > 1))
    return record


def _decode(text: str) -> Any:
    """Decode one JSON text; the scanner alone is twice as fast as the decoder around it, which is left to word the errors."""
    try:
        record, end = _SCAN(text, 0)
    except StopIteration:
        return _DECODER.decode(text)
    return record if end == len(text) else _DECODER.decode(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
_SCAN: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]
