"""Dates and times: Arrow timestamps and dates, ISO 8601 text, and a few other unambiguous formats.

Letters: B rows, C columns, F features, D width, T tokens.

A cell becomes seconds since 1970-01-01 UTC; text without a time zone is taken as UTC. Calendar features (day of the year, of the month,
of the week, time of day) are those of the column's time zone (option ``timezone``; an Arrow type's own is found by itself), so that
"eight in the morning" means the same in summer and in winter.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.registry import Count
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Decoded, Guess, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.plain import all_bad, is_text, plain
from unisono.modalities.scalars import MAX_TOKENS, Bins, SlotLinear, fit_scale, pack_scalars, smooth_clip, stack, standardise, token_slots

_ISO = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:[T ](\d{2}):?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9}))?)?\s?(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?")
_COMPACT = re.compile(r"\d{8}")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december", "sept",
)  # fmt: skip
#: Formats besides ISO 8601; a day and month in digits is read only where dots say day.month.year or a year stands first.
_OTHER = (
    re.compile(r"(?P<y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})(?: (?P<t>\d{1,2}:\d{2}(?::\d{2})?))?"),
    re.compile(r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})(?: (?P<t>\d{1,2}:\d{2}(?::\d{2})?))?"),
    re.compile(r"(?P<d>\d{1,2})[ -](?P<w>[A-Za-z]{3,9})\.?[ -](?P<y>\d{4})(?: (?P<t>\d{1,2}:\d{2}(?::\d{2})?))?"),
    re.compile(r"(?P<w>[A-Za-z]{3,9})\.? (?P<d>\d{1,2}),? (?P<y>\d{4})(?: (?P<t>\d{1,2}:\d{2}(?::\d{2})?))?"),
)
_SLASHED = re.compile(r"\d{1,2}/\d{1,2}/\d{2,4}")
_HELP = "write it as 2024-02-29 or 2024-02-29T18:30:00+01:00"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY = 86400.0


def parse_datetime(text: str) -> float:
    """Read one date, with or without a time, as seconds since 1970-01-01 UTC.

    Raises:
        Unreadable: the text is none of the formats, ambiguous, or no day of the calendar.
    """
    stripped = text.strip()
    try:
        match = _ISO.fullmatch(stripped)
        if match:
            return _from_iso(match)
        for form in _OTHER:
            match = form.fullmatch(stripped)
            if match:
                return _from_other(match.groupdict())
    except ValueError as error:
        raise Unreadable(f"{text[:60]!r} is no date of the calendar ({error}); {_HELP}") from None
    if _SLASHED.match(stripped):
        raise Unreadable(f"{text[:60]!r} is ambiguous: the day or the month may come first; {_HELP}")
    raise Unreadable(f"{text[:60]!r} is no date; {_HELP}")


def _from_iso(match: re.Match[str]) -> float:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    leap = second == "60"
    moment = dt.datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), 59 if leap else int(second or 0), tzinfo=dt.UTC)
    offset = 0
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)
    return (moment - _EPOCH).total_seconds() - offset + (1 if leap else 0) + (float("0." + fraction) if fraction else 0.0)


def _from_other(parts: Mapping[str, str | None]) -> float:
    word = parts.get("w")
    if word is not None and (word[:3].lower() not in _MONTHS or not _full_month(word)):
        raise ValueError(f"{word!r} is no month")
    month = _MONTHS.index(word[:3].lower()) + 1 if word else int(parts["m"] or 0)
    clock = [int(p) for p in (parts["t"] or "0:0").split(":")] + [0]
    moment = dt.datetime(int(parts["y"] or 0), month, int(parts["d"] or 0), clock[0], clock[1], clock[2], tzinfo=dt.UTC)
    return (moment - _EPOCH).total_seconds()


def _full_month(word: str) -> bool:
    return word.lower() in _LONG_MONTHS or word.lower() in _MONTHS


@modalities.register("datetime")
class DatetimeModality(Modality):
    """One date, or date and time, a cell."""

    name = "datetime"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim timestamps, dates, and text nearly all of which reads as dates."""
        if pa.types.is_timestamp(sample.type):
            zone = sample.type.tz
            return Guess(1.0, f"type {sample.type}", options={"timezone": zone} if zone and zone != "UTC" else {})
        if pa.types.is_date(sample.type):
            return Guess(1.0, f"type {sample.type}")
        if not is_text(sample.type):
            return None
        texts = [str(v).strip() for v in sample.values[:500]]
        if not texts:
            return None
        good = sum(_readable(t) for t in texts)
        if good < 0.95 * len(texts):
            return None
        compact = all(_COMPACT.fullmatch(t) for t in texts)
        doubt = f"eight digits: could be a number (--column {sample.name}=number)" if compact else ""
        reason = "text that reads as dates" + ("" if good == len(texts) else f", {len(texts) - good} of {len(texts)} unreadable")
        return Guess(0.5 if compact else 0.93, reason, doubt=doubt)

    def decode(self, cell: Any, column: Column, context: Context) -> Any:
        """Turn one value into seconds since 1970-01-01 UTC.

        Raises:
            Unreadable: text in no known format, or a value that is no date.
        """
        if isinstance(cell, str):
            return parse_datetime(cell)
        try:
            array = pa.array([cell])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise Unreadable(f"a value of type {type(cell).__name__} is no date") from None
        decoded = self.decode_many(array, column, context)
        if decoded.bad:
            raise Unreadable(decoded.bad[0][1])
        return float(decoded.cells[0])

    def decode_many(self, array: pa.Array, column: Column, context: Context) -> Decoded:
        """Decode a chunk into float64 seconds with NaN where missing; equal texts are parsed once."""
        array = plain(array)
        kind = array.type
        if pa.types.is_null(kind):
            return Decoded(np.full(len(array), np.nan))
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return Decoded(_seconds(array))
        if not is_text(kind):
            return Decoded(np.full(len(array), np.nan), all_bad(array, f"a value of type {kind} is no date; {_HELP}"))
        encoded = array.cast(pa.string()).dictionary_encode()
        seconds, reasons = np.full(len(encoded.dictionary) + 1, np.nan), {}
        for k, text in enumerate(encoded.dictionary.to_pylist()):
            try:
                seconds[k] = parse_datetime(text)
            except Unreadable as error:
                reasons[k] = error.reason
        codes = pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy(zero_copy_only=False)
        bad = tuple((row, reasons[int(k)]) for row, k in enumerate(codes) if int(k) in reasons) if reasons else ()
        return Decoded(seconds[codes], bad)

    def show(self, cell: Any) -> Any:
        """The moment in ISO 8601, UTC."""
        if cell is None or math.isnan(cell):
            return None
        moment = _EPOCH + dt.timedelta(seconds=float(cell))
        return moment.date().isoformat() if float(cell) % _DAY == 0 else moment.isoformat()


def _readable(text: str) -> bool:
    try:
        parse_datetime(text)
    except Unreadable:
        return False
    return True


def _seconds(array: pa.Array) -> NDArray[np.float64]:
    per = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
    if pa.types.is_date(array.type):
        array, unit = array.cast(pa.timestamp("ms")), "ms"
    else:
        unit = array.type.unit
    ticks = array.cast(pa.int64())
    whole: NDArray[np.float64] = pc.fill_null(ticks, 0).to_numpy(zero_copy_only=False).astype(np.float64) / per[unit]
    whole[~array.is_valid().to_numpy(zero_copy_only=False)] = np.nan
    return whole


def calendar_features(seconds: NDArray[np.float64], timezone: str | None = None) -> NDArray[np.float32]:
    """Cyclic features of moments: sines and cosines of the year (2 harmonics), month (1), week (2) and day (2).

    Args:
        seconds: (B,) seconds since 1970-01-01 UTC, without NaN.
        timezone: an IANA zone whose calendar is meant; None for UTC.

    Returns:
        (B, 14) features.

    Raises:
        SchemaError: the time zone is not known.
    """
    stamps = np.clip(np.floor(seconds), -62135596800, 253402300799).astype("datetime64[s]")
    if timezone:
        try:
            local = pc.local_timestamp(pa.array(stamps, pa.timestamp("s", tz=timezone)))
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            raise SchemaError(f"the time zone {timezone!r} is not known; use an IANA name such as Europe/Berlin, or UTC") from None
        stamps = local.to_numpy(zero_copy_only=False).astype("datetime64[s]")
    days = stamps.astype("datetime64[D]")
    day = (stamps - days).astype(np.float64) / _DAY
    months, years = stamps.astype("datetime64[M]"), stamps.astype("datetime64[Y]")
    of_year = ((days - years.astype("datetime64[D]")).astype(np.float64) + day) / 365.2425
    length = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.float64)
    of_month = ((days - months.astype("datetime64[D]")).astype(np.float64) + day) / length
    of_week = ((days.astype(np.int64) + 3) % 7 + day) / 7
    angles = 2 * np.pi * np.stack([of_year, 2 * of_year, of_month, of_week, 2 * of_week, day, 2 * day], 1)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


CALENDAR = 14


@tokenisers.register("calendar", source="arXiv:1907.05321")
class Calendar(Tokeniser):
    """Dates by their trend (linear and piecewise-linear) and by cyclic features of year, month, week and day.

    Args:
        bins: bins of the trend.
        max_tokens: tokens a row at most; more columns than that share tokens, which are the sums over their present cells.
    """

    reads = frozenset({"datetime"})
    joint = True
    fit_cells = 65536

    def __init__(self, *, bins: Count = 8, max_tokens: Count = MAX_TOKENS) -> None:
        self.bins, self.max_tokens = bins, max_tokens

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Centre, scale and bin edges of the training moments."""
        return fit_scale(chunks, self.bins)

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One token a present cell, or, beyond ``max_tokens`` columns, one for each group of columns with a present cell."""
        seconds = stack(columns, cells, np.nan, np.float64)
        z, present = standardise(columns, seconds)
        cyclic = np.zeros((*seconds.shape, CALENDAR), np.float32)
        for c, column in enumerate(columns):
            cyclic[:, c] = calendar_features(np.nan_to_num(seconds[:, c]), column.options.get("timezone"))
        return pack_scalars(columns, present, self.max_tokens, {"value": z, "cyclic": torch.from_numpy(cyclic)})

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """Weights of all datetime columns in one tensor."""
        return CalendarTokens(columns, width, self.max_tokens)


class CalendarTokens(nn.Module):
    """``token = sum over the token's present columns of W_c [trend bins, cyclic features, trend, 1]``."""

    def __init__(self, columns: Sequence[Column], width: int, max_tokens: int) -> None:
        super().__init__()
        self.encode = Bins(columns)
        self.project = SlotLinear(token_slots(columns, max_tokens), self.encode.bins + CALENDAR + 2, width)

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        z, present = packed.inputs["value"], packed.inputs["present"].unsqueeze(-1)
        features = torch.cat([self.encode(z), packed.inputs["cyclic"], smooth_clip(z).unsqueeze(-1), torch.ones_like(z).unsqueeze(-1)], -1)
        tokens: Tensor = self.project(features * present, packed.inputs["row"], packed.inputs["slot"])
        return tokens
