"""What items can be filtered and coloured by: ranges of numbers and moments, words with their counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unisono.core.schema import Column
from unisono.table.plain import plain_array

#: A text column of at most so many values, none of them long, is shown as words to choose from.
WORDS, LONGEST = 60, 60
_BINS = 24


@dataclass(frozen=True)
class Facet:
    """One column that items can be filtered and coloured by.

    Attributes:
        name: the column.
        kind: ``number``, ``date`` or ``category``.
        missing: how many items lack it.
        low: the least value of a number or date (dates as ISO text).
        high: the greatest.
        counts: a histogram of ``low`` to ``high`` in equal steps.
        values: words of a category, the most frequent first, with their counts.
        whole: every number is whole.
    """

    name: str
    kind: str
    missing: int
    low: float | str | None = None
    high: float | str | None = None
    counts: tuple[int, ...] = ()
    values: tuple[tuple[str, int], ...] = ()
    whole: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def kind_of(column: Column, values: pa.ChunkedArray | None, *, known: bool = True) -> str:
    """How a column is shown: ``number``, ``date``, ``category``, ``tags``, ``text``, ``image``, ``audio``, ``video`` or ``sketch``.

    Args:
        column: the column.
        values: its cells; None for media.
        known: the model says what it is; otherwise a text of few words is a category.
    """
    word = column.modality
    if values is None:
        return word if word in {"image", "audio", "video"} and not column.many else "sketch"
    t = pa.types
    if t.is_list(values.type) or t.is_large_list(values.type):
        return "tags"
    if word in {"category", "boolean"} or t.is_boolean(values.type):
        return "category"
    if word == "datetime":
        return "date"
    if word == "number":
        return "number" if _is_numeric(values.type) else "category"
    return "category" if not known and _few(values) else "text"


def _is_numeric(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype))


def _few(values: pa.ChunkedArray) -> bool:
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)) or len(values) < 2:
        return False
    known = values.drop_null().unique()
    if not len(known) or len(known) > min(WORDS, len(values) / 2):
        return False
    return int(pc.max(pc.utf8_length(known)).as_py()) <= LONGEST


def facet_of(name: str, kind: str, values: pa.ChunkedArray) -> Facet | None:
    """The facet of a column, or None where it makes none.

    Args:
        name: the column.
        kind: as ``kind_of`` says.
        values: its cells.
    """
    if kind == "number":
        return _numbers(name, "number", _as_float(values))
    if kind == "date":
        return _dates(name, values)
    return _words(name, values) if kind == "category" else None


def _as_float(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(values.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(), np.float64)


def _numbers(name: str, kind: str, numbers: NDArray[np.float64]) -> Facet | None:
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    counts = tuple(np.histogram(known, _BINS, (low, high))[0].tolist()) if high > low else ()
    return Facet(name, kind, len(numbers) - len(known), low, high, counts, whole=bool((known == np.round(known)).all()))


def _moments(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Seconds since 1970, NaN where missing or no ISO date."""
    dtype = values.type
    if pa.types.is_date(dtype) or pa.types.is_timestamp(dtype):
        seconds = values.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return _as_float(seconds)
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        days = pc.strptime(pc.utf8_slice_codeunits(values, 0, 10), format="%Y-%m-%d", unit="s", error_is_null=True)
        return _as_float(days.cast(pa.int64()))
    return np.full(len(values), np.nan)


def _dates(name: str, values: pa.ChunkedArray) -> Facet | None:
    found = _numbers(name, "date", _moments(values))
    if found is None:
        return None
    low, high = (str(np.datetime64(int(edge or 0), "s").astype("datetime64[D]")) for edge in (found.low, found.high))
    return Facet(name, "date", found.missing, low, high, found.counts)


def _words(name: str, values: pa.ChunkedArray) -> Facet | None:
    texts = _texts(values)
    counted = sorted(
        ((str(p["values"]), int(p["counts"])) for p in pc.value_counts(texts.drop_null()).to_pylist()), key=lambda p: (-p[1], p[0])
    )
    return Facet(name, "category", texts.null_count, values=tuple(counted[:WORDS])) if counted else None


def _texts(values: pa.ChunkedArray) -> pa.Array:
    array = values.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    return plain_array(array).cast(pa.large_string())


def codes_of(facet: Facet, values: pa.ChunkedArray) -> NDArray[np.float32]:
    """(N,) numbers to colour by: see ``Gallery.codes``; a word that the facet does not list is the number of its words.

    Args:
        facet: of that column.
        values: its cells.
    """
    if facet.kind == "number":
        return _as_float(values).astype(np.float32)
    if facet.kind == "date":
        return (_moments(values) / 86_400.0).astype(np.float32)
    texts = _texts(values)
    places = pc.index_in(texts, pa.array([w for w, _ in facet.values], pa.large_string())).fill_null(len(facet.values))
    codes: NDArray[np.float32] = places.to_numpy(zero_copy_only=False).astype(np.float32)
    codes[texts.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return codes
