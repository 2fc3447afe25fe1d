"""Numbers: integers, floats, decimals, and text that reads as numbers.

Letters: B rows, C columns, K bins or frequencies, D width, T tokens.

NaN is missing, infinity is unreadable. In text, a decimal point and an exponent are understood; thousands separators only where
detection found that every comma of the column stands in front of three digits (option ``thousands``), because ``1,5`` is a decimal
comma elsewhere. A few words among numbers (option ``words``: those that detection saw, or that a person lists) are missing; any
other word is unreadable.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.registry import Count, NonNegative, Positive, Probability
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Decoded, Guess, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.plain import all_bad, is_text, plain
from unisono.modalities.scalars import (
    MAX_TOKENS,
    Bins,
    SlotLinear,
    fit_scale,
    pack_scalars,
    smooth_clip,
    stack,
    standardise,
    token_slots,
)
from unisono.modalities.wide import Wide

_PLAIN = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_GROUPED = r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?"
_IS_PLAIN, _IS_GROUPED = re.compile(_PLAIN), re.compile(_GROUPED)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_FEW, _ENOUGH, _STRAY = 10, 20, 0.05


def _say(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@modalities.register("number")
class NumberModality(Modality):
    """One number a cell."""

    name = "number"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim columns of a numeric type, and of text nearly all of which reads as numbers."""
        kind = sample.type.value_type if pa.types.is_dictionary(sample.type) else sample.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return _of_numbers(sample, str(kind))
        if is_text(kind):
            return _of_text(sample)
        return None

    def decode(self, cell: Any, column: Column, context: Context) -> Any:
        """Turn one value into a float; NaN is missing.

        Raises:
            Unreadable: infinity, or text that is no number.
        """
        decoded = self.decode_many(pa.array([cell]), column, context)
        if decoded.bad:
            raise Unreadable(decoded.bad[0][1])
        return float(decoded.cells[0])

    def decode_many(self, array: pa.Array, column: Column, context: Context) -> Decoded:
        """Decode a chunk of any numeric, boolean or text type into float64 with NaN where missing."""
        array = plain(array)
        kind = array.type
        if pa.types.is_null(kind):
            return Decoded(np.full(len(array), np.nan))
        bad: dict[int, str] = {}
        odd: dict[int, str] = {}
        if pa.types.is_boolean(kind):
            array = array.cast(pa.int8())
        if is_text(kind):
            array = _parse(array, column, bad, odd)
        try:
            values = pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return Decoded(np.full(len(array), np.nan), all_bad(array, f"a value of type {kind} is no number"))
        for row in np.flatnonzero(np.isinf(values)):
            bad.setdefault(int(row), "the number is infinite")
            values[row] = np.nan
        return Decoded(values, tuple(sorted(bad.items())), tuple(sorted(odd.items())))

    def show(self, cell: Any) -> Any:
        """The number itself, None where missing."""
        return None if cell is None or math.isnan(cell) else float(cell)


def _of_numbers(sample: ColumnSample, kind: str) -> Guess:
    distinct = set(sample.values)
    whole = all(float(v).is_integer() for v in distinct if not math.isnan(v) and not math.isinf(v))
    doubt = ""
    if whole and 1 < len(distinct) <= _FEW and len(sample.values) >= max(_ENOUGH, 4 * len(distinct)):
        doubt = f"only {len(distinct)} distinct whole numbers: could be a category (--column {sample.name}=category)"
    return Guess(0.8 if doubt else 0.9, f"numbers of type {kind}", doubt=doubt)


def _of_text(sample: ColumnSample) -> Guess | None:
    texts = [str(v).strip() for v in sample.values]
    if not texts:
        return None
    grouped = [t for t in texts if "," in t]
    thousands = bool(grouped) and all(_IS_GROUPED.fullmatch(t) for t in grouped)
    words = Counter(
        t
        for t in texts
        if not (_IS_PLAIN.fullmatch(t) or _INFINITE.fullmatch(t) or t.lower() == "nan" or (thousands and _IS_GROUPED.fullmatch(t)))
    )
    stray = sum(words.values())
    if stray > _STRAY * len(texts) or stray == len(texts):
        return None
    options: dict[str, Any] = {}
    reason, doubt = "text that reads as numbers", ""
    if thousands:
        options["thousands"] = True
        reason, doubt = reason + ", with commas between thousands", f"{grouped[0]} could have a decimal comma"
    if words:
        options["words"] = sorted(words)
        listed = ", ".join(repr(w) for w in sorted(words)[:5])
        reason += f"; {stray} of {len(texts)} are words ({listed}) and count as missing"
        doubt = f"words among numbers: could be a category (--column {sample.name}=category) or text"
    codes = sum(t.lstrip("+-").startswith("0") and t.isdigit() and len(t) > 1 for t in texts)
    if codes:
        doubt = f"{codes} values begin with 0: could be codes (--column {sample.name}=category)"
    return Guess(0.6 if codes else 0.88, reason, options=options, doubt=doubt)


def _parse(array: pa.Array, column: Column, bad: dict[int, str], odd: dict[int, str]) -> pa.Array:
    """Read text as numbers; what is infinite or a garbled number is written into ``bad``, words into ``odd``; all become null."""
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    if column.options.get("thousands"):
        grouped = pc.match_substring_regex(text, f"^{_GROUPED}$")
        text = pc.if_else(grouped, pc.replace_substring(text, ",", ""), text)
    good = pc.fill_null(pc.match_substring_regex(text, f"^{_PLAIN}$"), False)
    words = {"nan", *(str(w).lower() for w in column.options.get("words", ()))}
    for row in np.flatnonzero(~good.to_numpy(zero_copy_only=False) & array.is_valid().to_numpy(zero_copy_only=False)):
        value = text[int(row)].as_py()
        if _INFINITE.fullmatch(value):
            bad[int(row)] = f"{_say(value)} is infinite"
        elif value.lower() in words:
            continue
        elif any(sign.isdigit() for sign in value):
            bad[int(row)] = f"{_say(value)} is no number"
        else:
            odd[int(row)] = f"{_say(value)} is no number"
    return pc.if_else(good, pc.replace_substring_regex(text, r"^\+", ""), None).cast(pa.float64())


class _Numbers(Tokeniser):
    """What the tokenisers of numbers share: a robust scale and quantile edges from the training rows."""

    reads = frozenset({"number"})
    joint = True
    fit_cells = 65536
    bins: int = 16
    max_tokens: int = MAX_TOKENS
    noise: float = 0.0
    dropout: float = 0.0

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Centre, scale and bin edges of the training cells (a sample of at most 65,536 of them)."""
        return fit_scale(chunks, self.bins)

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One token a present cell, or, beyond ``max_tokens`` columns, one for each group of columns with a present cell."""
        values: NDArray[np.float64] = stack(columns, cells, np.nan, np.float64)
        z, present = standardise(columns, values)
        packed = pack_scalars(columns, present, self.max_tokens, {"value": z})
        if draw is not None:
            self._disturb(packed.inputs, f"numbers.{columns[0].name}", draw)
        return packed

    def _disturb(self, inputs: dict[str, Tensor], stream: str, draw: Draw) -> None:
        """Add normal noise to standardised values (B, C), and take some present cells for missing ones, whose tokens stay."""
        n = inputs["value"].shape[1]
        if self.noise:
            inputs["value"] = inputs["value"] + torch.from_numpy((self.noise * draw.normal(f"{stream}.noise", n)).astype(np.float32))
        if self.dropout:
            inputs["present"] = inputs["present"] & torch.from_numpy(draw.uniform(f"{stream}.dropout", n) >= self.dropout)

    def wide(self, columns: Sequence[Column], outputs: int) -> nn.Module:
        """A linear map of the standardised values."""
        return WideNumbers(len(columns), outputs)


@tokenisers.register("piecewise", source="arXiv:2203.05556")
class Piecewise(_Numbers):
    """Numbers by a piecewise-linear encoding over quantile bins, plus a linear term.

    Args:
        bins: bins of a column at most.
        max_tokens: tokens a row at most; more columns than that share tokens, which are the sums over their present cells.
        noise: spread of the noise added in training, in standard deviations of the column.
        dropout: how often a cell is left out in training.
    """

    def __init__(self, *, bins: Count = 16, max_tokens: Count = MAX_TOKENS, noise: NonNegative = 0.1, dropout: Probability = 0.1) -> None:
        self.bins, self.max_tokens, self.noise, self.dropout = bins, max_tokens, noise, dropout

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """Weights of all number columns in one tensor."""
        return PiecewiseNumbers(columns, width, self)


@tokenisers.register("periodic", source="arXiv:2203.05556")
class Periodic(_Numbers):
    """Numbers by sines and cosines of learned frequencies, plus a linear term.

    Args:
        frequencies: learned frequencies of a column.
        sigma: spread of the frequencies at the start, in periods per standard deviation of the column.
        max_tokens: as in ``piecewise``.
    """

    def __init__(self, *, frequencies: Count = 16, sigma: Positive = 0.3, max_tokens: Count = MAX_TOKENS) -> None:
        self.frequencies, self.sigma, self.max_tokens = frequencies, sigma, max_tokens

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """Weights of all number columns in one tensor."""
        return PeriodicNumbers(columns, width, self)


class WideNumbers(nn.Module):
    """The wide part of C columns: a linear map of the standardised values that are present."""

    def __init__(self, columns: int, outputs: int) -> None:
        super().__init__()
        self.wide = Wide(columns, outputs)

    def forward(self, packed: Packed, rows: int) -> Tensor:
        """Scores (rows, K)."""
        z, present = packed.inputs["value"], packed.inputs["present"]
        scores: Tensor = self.wide(smooth_clip(z) * present)
        return scores


class PiecewiseNumbers(nn.Module):
    """``token = sum over the token's present columns of W_c [e(z_c), clip(z_c), 1]``; ``e`` as in ``Bins``."""

    def __init__(self, columns: Sequence[Column], width: int, settings: Piecewise) -> None:
        super().__init__()
        self.encode = Bins(columns)
        self.project = SlotLinear(token_slots(columns, settings.max_tokens), self.encode.bins + 2, width)

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        z, present = packed.inputs["value"], packed.inputs["present"].unsqueeze(-1)
        features = torch.cat([self.encode(z), smooth_clip(z).unsqueeze(-1), torch.ones_like(z).unsqueeze(-1)], -1) * present
        tokens: Tensor = self.project(features, packed.inputs["row"], packed.inputs["slot"])
        return tokens


class PeriodicNumbers(nn.Module):
    """``token = sum over present columns of W_c [sin(2 pi f_c z_c), cos(2 pi f_c z_c), clip(z_c), 1]`` with learned ``f``."""

    def __init__(self, columns: Sequence[Column], width: int, settings: Periodic) -> None:
        super().__init__()
        k = settings.frequencies
        self.frequency = nn.Parameter(torch.randn(len(columns), k) * settings.sigma)
        self.project = SlotLinear(token_slots(columns, settings.max_tokens), 2 * k + 2, width)

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        z, present = packed.inputs["value"], packed.inputs["present"].unsqueeze(-1)
        clipped = smooth_clip(z).unsqueeze(-1)
        angle = 2 * math.pi * clipped * self.frequency
        features = torch.cat([angle.sin(), angle.cos(), clipped, torch.ones_like(clipped)], -1) * present
        tokens: Tensor = self.project(features, packed.inputs["row"], packed.inputs["slot"])
        return tokens
