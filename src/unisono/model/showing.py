"""Cells of a table as a person sees them in a report: thumbnails, players, sketches, texts; bounded in number and in bytes.

Letters: N samples in time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unisono.core.errors import UnisonoError, Unreadable
from unisono.core.media import media_bytes
from unisono.core.schema import SCALARS, Column
from unisono.modalities.base import Context, modalities
from unisono.report import sketch
from unisono.report.content import Cell
from unisono.report.figures import clean, number, plural
from unisono.table.cache import TableCache

#: A sound's own file is put into the report up to this many bytes; longer ones are cut.
_SOUND_BYTES = 120_000
_SOUND_KINDS = {b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"ID3": "audio/mpeg"}
_TEXT, _SHORT_TEXT = 400, 60
_LETTERS = 48
#: Of a cell with several items, this many are shown.
_ITEMS = 3


@dataclass
class Showcase:
    """Shows cells of a cached table, within a limit of bytes for the whole report.

    Attributes:
        cache: the rows.
        bytes_left: how much more media there may be.
    """

    cache: TableCache
    bytes_left: int = 2_500_000
    _seen: dict[tuple[int, str], list[Cell]] = field(default_factory=dict, repr=False)

    def show(self, row: int, column: Column, *, brief: bool = False) -> list[Cell]:
        """One cell of the table; several entries for a cell of several items.

        Args:
            row: of the table.
            column: with its modality.
            brief: for a line of a table: short texts, no player.
        """
        value = self.cache.take(np.array([row], np.int64), [column.name]).column(column.name)[0]
        return self.draw(value.as_py(), column, brief=brief)

    def draw(self, value: Any, column: Column, *, brief: bool = False) -> list[Cell]:
        """A cell's value; what cannot be drawn is said in words, never an error."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return [Cell("missing")]
        many = column.many and isinstance(value, list)
        items = [v for v in value if v is not None] if many else [value]
        cells = [self._item(v, column, brief) for v in items[: 1 if brief else _ITEMS]]
        if len(items) > len(cells):
            cells.append(Cell("text", f"and {len(items) - len(cells)} more"))
        return cells or [Cell("missing")]

    def _item(self, value: Any, column: Column, brief: bool) -> Cell:
        if column.modality in SCALARS:
            return Cell("text", scalar(value))
        if column.modality == "text":
            return Cell("text", _text(value, brief))
        if column.modality == "sequence" and isinstance(value, str):
            return Cell("text", value if len(value) <= _LETTERS else f"{value[:_LETTERS]}… ({plural(len(value), 'residue')})")
        try:
            modality = modalities.build(column.modality)
            context = Context(self.cache.root)
            decoded = modality.decode(value, dataclasses.replace(column, many=False), context)
            cell = _drawn(decoded, value, column, context, brief)
        except Unreadable:
            return Cell("text", "unreadable")
        except (UnisonoError, ValueError, TypeError, OSError, AttributeError, IndexError) as error:
            return Cell("text", f"not shown ({type(error).__name__})")
        size = len(cell.uri) + len(cell.svg)
        if size > self.bytes_left:
            return Cell("text", f"{cell.text} (not shown, to keep this report small)")
        self.bytes_left -= size
        return cell


def scalar(value: Any) -> str:
    """A number, word or moment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(float(value))
    return clean(str(value).removesuffix(" 00:00:00"), _SHORT_TEXT)


def _text(value: Any, brief: bool) -> str:
    if isinstance(value, list):
        value = ", ".join(str(v) for v in value if v is not None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return clean(value, _SHORT_TEXT if brief else _TEXT)


def _drawn(decoded: Any, value: Any, column: Column, context: Context, brief: bool) -> Cell:
    if decoded is None:
        return Cell("missing")
    word = column.modality
    if word == "audio":
        return _sound(decoded, value, column, context, brief)
    if word == "video":
        return sketch.film(decoded.frames)
    if word == "series":
        rate = f" at {number(float(decoded.rate))} Hz" if math.isfinite(float(decoded.rate)) else ""
        channels = decoded.values.shape[1] if decoded.values.ndim > 1 else 1
        words = f"series of {plural(len(decoded.values), 'sample')}{rate}" + (f" in {channels} channels" if channels > 1 else "")
        return sketch.curve(decoded.values, words)
    if word == "points":
        return sketch.cloud(decoded)
    if word == "graph":
        return sketch.network(decoded.nodes, decoded.edges)
    if word == "vector":
        return sketch.bars(decoded)
    shown = modalities.build(word).show(decoded)
    if isinstance(shown, Mapping) and shown.get("kind") == "image":
        height, width = decoded.shape[:2]
        words = (
            f"cube of {height} × {width} pixels in {decoded.shape[-1]} bands" if word == "cube" else f"picture of {width} × {height} pixels"
        )
        return sketch.picture(bytes(shown["data"]), words, side=96 if brief else 176)
    return Cell("text", clean(shown, _TEXT))


def _sound(signal: Any, value: Any, column: Column, context: Context, brief: bool) -> Cell:
    seconds = len(signal.values) / float(signal.rate)
    words = f"sound of {seconds:.2g} s"
    svg = sketch.waveform(signal.values, words)
    if brief:
        return Cell("sketch", words, svg=svg)
    data, kind = b"", ""
    if not (isinstance(value, list) or (isinstance(value, dict) and "values" in value)):
        data = media_bytes(value, context.root)
        kind = "audio/wav" if data[:4] == b"RIFF" else next((k for magic, k in _SOUND_KINDS.items() if data.startswith(magic)), "")
    if not kind or len(data) > _SOUND_BYTES:
        most = (_SOUND_BYTES - 64) // 2
        if len(signal.values) > most:
            words += f", its first {most / float(signal.rate):.2g} s"
        shown = modalities.build(column.modality).show(dataclasses.replace(signal, values=signal.values[:most]))
        data, kind = bytes(shown["data"]), str(shown["type"])
    return Cell("audio", words, sketch.data_uri(data, kind), svg)


def count_missing(cache: TableCache, names: list[str]) -> dict[str, int]:
    """Nulls and NaN of every column over the whole table."""
    found = dict.fromkeys(names, 0)
    for batch in cache.batches(names):
        for name in names:
            array = batch.column(batch.schema.names.index(name))
            found[name] += array.null_count
            if pa.types.is_floating(array.type) and array.type != pa.float16():
                found[name] += int(pc.sum(pc.is_nan(array)).as_py() or 0)
    return found
