"""Tables of separated values: every cell is text, and only an unquoted empty field is null."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv as pa_csv

from unisono.core.errors import TableError
from unisono.table.source import Raw

_HEAD = 1 << 20
_BLOCK, _LONGEST = 4 << 20, 1 << 30
_WORDS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Utf8Stream(io.RawIOBase):
    """Bytes in any encoding, read as UTF-8, that says where a byte is that the encoding does not know."""

    def __init__(self, head: bytes, rest: BinaryIO, *, encoding: str, name: str, skipped: str = "") -> None:
        """Read ``head`` and then ``rest``.

        Args:
            head: bytes that were read already.
            rest: where the following bytes come from.
            encoding: the encoding of the bytes.
            name: the table's name, for the message.
            skipped: the text in front of ``head``, so that places are counted from the file's beginning.
        """
        super().__init__()
        self._head, self._rest, self._encoding, self._name = head, rest, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._line, self._byte, self._out = skipped.count("\n"), len(skipped.encode(encoding)), b""

    def readable(self) -> bool:
        """Say that this is a stream to read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes of UTF-8, all that remain if negative; empty at the end."""
        while size < 0 or len(self._out) < size:
            chunk = self._head or self._rest.read(max(size, 1 << 16) if size >= 0 else 1 << 20)
            self._head = b""
            self._out += self._decode(chunk).encode()
            if not chunk:
                break
        size = len(self._out) if size < 0 else size
        out, self._out = self._out[:size], self._out[size:]
        return out

    def _decode(self, chunk: bytes) -> str:
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line = self._line + error.object[: error.start].count(b"\n")
            raise undecodable(self._name, self._encoding, self._byte - pending + error.start, line) from None
        self._byte += len(chunk)
        self._line += text.count("\n")
        return text


def undecodable(name: str, encoding: str, byte: int, line: int) -> TableError:
    """Return the error for text that is not in the encoding.

    Args:
        name: the table's name.
        encoding: the encoding that was tried.
        byte: the offset of the first bad byte in the file.
        line: the number of line ends before it.
    """
    return TableError(
        f"{name}: the text is not {encoding}: byte {byte}, on line {line + 1}, cannot be decoded; "
        "name the right encoding with --encoding (cp1252 and utf-16 are common)"
    )


def check_encoding(encoding: str, head: bytes) -> tuple[str, int]:
    """Return the encoding to use and the number of bytes of the byte-order mark in front.

    Args:
        encoding: what was asked for.
        head: the first bytes of the file; a mark there goes before ``encoding``.
    """
    try:
        wanted = codecs.lookup(encoding).name
    except LookupError:
        raise TableError(f"unknown encoding {encoding!r}; give --encoding a name such as utf-8, cp1252, latin-1 or utf-16") from None
    for mark, found in _MARKS:
        if head.startswith(mark) and (wanted.startswith("utf")):
            return found, len(mark)
    return {"utf-16": "utf-16-le", "utf-8-sig": "utf-8"}.get(wanted, wanted), 0


def split_record(text: str, delimiter: str, start: int = 0) -> tuple[list[str], int] | None:
    """Split the first record of separated text, quotes and quoted line ends included.

    Args:
        text: the text.
        delimiter: the separator.
        start: where in the text the record begins.

    Returns:
        The fields and the position after the record's line end; None if the text ends inside the record.
    """
    fields, at = [], start
    while True:
        if text.startswith('"', at):
            parts = []
            at += 1
            while True:
                close = text.find('"', at)
                if close < 0:
                    return None
                parts.append(text[at:close])
                at = close + 1
                if not text.startswith('"', at):
                    break
                parts.append('"')
                at += 1
            field = "".join(parts)
        else:
            field = ""
        end = min((p for p in (text.find(c, at) for c in (delimiter, "\n", "\r")) if p >= 0), default=-1)
        if end < 0:
            return None
        fields.append(field + text[at:end])
        if text[end] != delimiter:
            return fields, end + (2 if text.startswith("\r\n", end) else 1)
        at = end + 1


def sniff_delimiter(text: str, limit: int = 20) -> str:
    """Guess the separator: the one that cuts the first records into the same number of fields, and into most.

    Args:
        text: the first records; the last may be cut off.
        limit: how many records to look at.
    """
    best, best_score = ",", (0.0, 0)
    for delimiter in _WORDS:
        counts: list[int] = []
        at = 0
        while len(counts) < limit and (record := split_record(text, delimiter, at)):
            fields, at = record
            if fields != [""]:
                counts.append(len(fields))
        if counts and counts[0] > 1:
            score = (counts.count(counts[0]) / len(counts), counts[0])
            if score > best_score:
                best, best_score = delimiter, score
    return best


def open_csv(
    name: str, reopen: Callable[[], BinaryIO], *, encoding: str = "utf-8", delimiter: str | None = None, once: bool = False
) -> Raw:
    """Open separated text.

    Args:
        name: the table's name, for messages.
        reopen: returns the bytes from their beginning; called once only where ``once``.
        encoding: the text's encoding; a byte-order mark goes before it.
        delimiter: the separator; guessed when None.
        once: whether the bytes can be read a single time only.

    Returns:
        The reader; every column is text.

    Raises:
        TableError: no header or no rows, two columns of one name, undecodable text.
    """
    file = reopen()
    head = _read_head(file)
    encoding, mark = check_encoding(encoding, head)
    text = _decode_head(name, encoding, head[mark:], complete=len(head) < _HEAD)
    blank = len(text) - len(text.lstrip("\r\n"))
    notes = []
    found = delimiter or sniff_delimiter(text[blank : blank + (1 << 16)])
    if delimiter is None and found != ",":
        notes.append(f"the columns are separated by {_WORDS[found]}")
    complete = len(head) < _HEAD
    record = split_record(text + ("\n" if complete else ""), found, blank) if text[blank:] else None
    if record is None:
        reason = "the header is longer than 1 MB or a quote in it is never closed" if text.strip() else "the file is empty"
        raise TableError(f"{name}: {reason}; give a table with a header and at least two rows")
    names, end = record
    if complete and not text[end:].strip("\r\n"):
        raise TableError(f"{name}: the file has a header but no rows; give at least two rows")
    names = _named(names, notes)
    skipped = "\ufeff" * bool(mark) + text[:end]
    skip = len(skipped.encode(encoding))
    if not once:
        file.close()
    reader = _Reader(name, names, found)

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        del max_rows
        if once:
            yield from reader.read(Utf8Stream(head[skip:], file, encoding=encoding, name=name, skipped=skipped))
            return
        with reopen() as again:
            again.seek(skip)
            yield from reader.read(Utf8Stream(b"", again, encoding=encoding, name=name, skipped=skipped))

    return Raw(pa.schema([(n, pa.large_string()) for n in names]), opener, notes=notes, once=once)


def _read_head(file: BinaryIO) -> bytes:
    parts, size = [], 0
    while size < _HEAD and (part := file.read(_HEAD - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _decode_head(name: str, encoding: str, head: bytes, *, complete: bool) -> str:
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(head, final=complete)
    except UnicodeDecodeError as error:
        raise undecodable(name, encoding, error.start, head[: error.start].count(b"\n")) from None


def _named(names: list[str], notes: list[str]) -> list[str]:
    """Give columns without a name one, and say so."""
    out = []
    for position, column in enumerate(names, 1):
        if column.strip():
            out.append(column)
            continue
        out.append(f"column_{position}")
        notes.append(f"column {position} has no name in the header; it is called column_{position}")
    return out


class _Reader:
    """Reads the rows after the header, whole records at a time.

    Arrow's own streaming reader calls a Python file from a thread of its own, which aborts the process when that ends first; so
    the bytes are cut into whole records here, and each piece is parsed where it is asked for.
    """

    def __init__(self, name: str, names: list[str], delimiter: str) -> None:
        self.name, self.names, self.delimiter = name, names, delimiter
        mark = re.escape(delimiter.encode())
        field = b'(?:"(?:[^"]++|"")*+"[^%b\n\r]*+|[^"%b\n\r][^%b\n\r]*+|)' % (mark, mark, mark)
        line_end = b"(?:\n|\r(?:\n|(?=[^\n])))"
        self._records = re.compile(b"(?:(?:%b%b)*+%b%b)*+" % (field, mark, field, line_end))
        self._bad: Any = None

    def read(self, stream: Utf8Stream) -> Iterator[pa.RecordBatch]:
        """Read the rows of a stream.

        Yields:
            Batches of text columns.
        """
        rows, rest, size = 0, b"", _BLOCK
        while block := stream.read(size):
            rest += block
            end = self._records_end(rest)
            size = _BLOCK if end else len(rest)
            if end:
                table = self._parse(rest[:end], rows)
                rest, rows = rest[end:], rows + table.num_rows
                yield from table.to_batches()
            elif len(rest) > _LONGEST:
                raise TableError(f"{self.name}: row {rows} is longer than {_LONGEST >> 20} MB; is a quote never closed?")
        if rest:
            rest += b"\n"
            end = self._records_end(rest + b"\n")
            if end < len(rest):
                row = rows + rest[:end].count(b"\n")
                raise TableError(f"{self.name}: a quote opens near row {row} (counted from 0) and is never closed; close it")
            yield from self._parse(rest, rows).to_batches()

    def _records_end(self, data: bytes) -> int:
        """Return the place after the last whole record; a line end in quotes ends none."""
        if b'"' not in data and b"\r" not in data:
            return data.rfind(b"\n") + 1
        found = self._records.match(data)
        return found.end() if found else 0

    def _on_bad_row(self, row: Any) -> str:
        self._bad = row
        return "error"

    def _parse(self, piece: bytes, rows: int) -> pa.Table:
        if len(self.names) > 1 and not piece.strip(b"\r\n"):
            return pa.table({n: pa.array([], pa.large_string()) for n in self.names})
        try:
            return pa_csv.read_csv(
                pa.BufferReader(piece),
                read_options=pa_csv.ReadOptions(column_names=self.names, use_threads=False, block_size=len(piece) + 1),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=self._on_bad_row,
                    ignore_empty_lines=len(self.names) > 1,
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, pa.large_string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            raise self._explain(error, rows) from None

    def _explain(self, error: pa.ArrowInvalid, rows: int) -> TableError:
        bad = self._bad
        if bad is None:
            return TableError(f"{self.name}: after row {rows}: {error}")
        row = rows + bad.number - 1 if bad.number else rows
        return TableError(
            f"{self.name}: row {row} (counted from 0 without the header) has {bad.actual_columns} fields instead of "
            f"{bad.expected_columns}: {bad.text[:80]!r}; mend that row (a field with the separator in it needs quotes)"
        )
