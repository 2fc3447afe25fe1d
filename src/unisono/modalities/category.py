"""Categories and booleans: values that are names.

Letters: B rows, C columns, V entries of all vocabularies together, D width, T tokens.

A value is compared as text: 3, 3.0 and "3" are one category, true is "true". NaN is missing; an empty text is a category of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.registry import Count, Probability
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Decoded, Guess, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.plain import all_bad, is_text, plain
from unisono.modalities.scalars import MAX_TOKENS, pack_scalars, stack, token_slots
from unisono.modalities.wide import RATE

TRUE_WORDS = frozenset({"true", "yes", "y", "t", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "n", "f", "off", "0"})
_LONGEST = 256
_FEW, _MOST, _TYPICAL_LENGTH = 50, 1000, 40
UNSEEN, RARE, FIRST = 0, 1, 2


def as_text(array: pa.Array) -> NDArray[np.object_]:
    """A column of any scalar type as texts, None where null or NaN; whole numbers are written without a point.

    Raises:
        Unreadable: the type holds no single values.
    """
    array = plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), None, object)
    if pa.types.is_nested(kind):
        raise Unreadable(f"a value of type {kind} is no category")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise Unreadable("bytes are no category")
    if pa.types.is_floating(kind):
        numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.array([None if math.isnan(v) else number_text(v) for v in numbers.tolist()], object)
    texts: NDArray[np.object_] = array.cast(pa.string()).to_numpy(zero_copy_only=False).astype(object)
    return texts


def number_text(value: float) -> str:
    """A number's name as a category: whole ones without a point."""
    return str(int(value)) if math.isfinite(value) and value.is_integer() and abs(value) < 2**53 else repr(value)


@modalities.register("category")
class CategoryModality(Modality):
    """One name of a set of names a cell."""

    name = "category"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim dictionary columns, and text whose values repeat."""
        if pa.types.is_dictionary(sample.type) and not pa.types.is_nested(sample.type.value_type):
            return Guess(0.95, "a dictionary type: names from a fixed set")
        if not is_text(sample.type):
            return None
        values = [str(v) for v in sample.values]
        if not values:
            return None
        distinct, n = len(set(values)), len(values)
        length = sum(map(len, values)) / n
        if length > _TYPICAL_LENGTH * 2 or max(map(len, values)) > _LONGEST:
            return None
        reason = f"{distinct} distinct texts in {n} cells"
        if distinct <= _FEW and 2 * distinct <= n:
            return Guess(0.85, reason)
        if 5 * distinct <= n and distinct <= _MOST and length <= _TYPICAL_LENGTH:
            return Guess(0.7, reason, doubt=f"many distinct values: could be text (--column {sample.name}=text)")
        words = sum(len(v.split()) for v in values) / n
        if words < 2 and distinct < n:
            return Guess(0.45, reason + ", mostly single words", doubt=f"could be text (--column {sample.name}=text)")
        return None

    def decode(self, cell: Any, column: Column, context: Context) -> Any:
        """Turn one value into its text.

        Raises:
            Unreadable: the value is a list, a struct or bytes, or longer than 256 characters.
        """
        try:
            array = pa.array([cell])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise Unreadable(f"a value of type {type(cell).__name__} is no category") from None
        decoded = self.decode_many(array, column, context)
        if decoded.bad:
            raise Unreadable(decoded.bad[0][1])
        return decoded.cells[0]

    def decode_many(self, array: pa.Array, column: Column, context: Context) -> Decoded:
        """Decode a chunk into an object array of texts, None where missing."""
        try:
            texts = as_text(array)
        except Unreadable as error:
            return Decoded(np.full(len(array), None, object), all_bad(array, error.reason))
        return self._check(texts, column)

    def _check(self, texts: NDArray[np.object_], column: Column) -> Decoded:
        bad = []
        for row, text in enumerate(texts):
            if text is not None and len(text) > _LONGEST:
                bad.append((row, f"a text of {len(text)} characters is no category (at most {_LONGEST})"))
                texts[row] = None
        return Decoded(texts, tuple(bad))


@modalities.register("boolean")
class BooleanModality(CategoryModality):
    """A category of two: true or false, in the usual words for them."""

    name = "boolean"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim Boolean columns, and columns that hold nothing but two opposite words for true and false."""
        if pa.types.is_boolean(sample.type):
            return Guess(1.0, "a Boolean type")
        kind = sample.type.value_type if pa.types.is_dictionary(sample.type) else sample.type
        if not sample.values or not (is_text(kind) or pa.types.is_integer(kind)):
            return None
        words = {str(v).strip().lower() for v in sample.values}
        if not (words <= TRUE_WORDS | FALSE_WORDS and words & TRUE_WORDS and words & FALSE_WORDS):
            return None
        digits = words <= {"0", "1"}
        doubt = f"0 and 1: could be a number (--column {sample.name}=number)" if digits else ""
        return Guess(0.92 if digits else 0.97, "only " + " and ".join(sorted(words)), doubt=doubt)

    def _check(self, texts: NDArray[np.object_], column: Column) -> Decoded:
        bad = []
        meaning = dict.fromkeys(TRUE_WORDS, "true") | dict.fromkeys(FALSE_WORDS, "false")
        for row, text in enumerate(texts):
            if text is None:
                continue
            texts[row] = meaning.get(text.strip().lower())
            if texts[row] is None:
                bad.append((row, f"{text[:60]!r} is neither true nor false (known: true, false, yes, no, y, n, t, f, on, off, 1, 0)"))
        return Decoded(texts, tuple(bad))


@tokenisers.register("embedding", source="arXiv:1604.06737")
class Embedding(Tokeniser):
    """Categories by a learned vector each; rare ones share one, and unseen ones have their own.

    The vector for unseen categories is trained by letting it stand in for a known one now and then.

    Args:
        most: entries of a column's vocabulary at most, the most frequent ones.
        rare: a category with fewer training cells than this shares the vector of rare ones.
        unseen: how often a known category is taken for an unseen one in training.
        max_tokens: tokens a row at most; more columns than that share tokens, which are the sums over their present cells.
    """

    reads = frozenset({"category", "boolean"})
    joint = True
    fit_cells = None

    def __init__(self, *, most: Count = 10_000, rare: Count = 3, unseen: Probability = 0.02, max_tokens: Count = MAX_TOKENS) -> None:
        self.most, self.rare, self.unseen, self.max_tokens = most, rare, unseen, max_tokens

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Count the training cells; memory is bounded: beyond eight times ``most`` entries the least frequent ones are forgotten."""
        counts: Counter[str] = Counter()
        bound = 8 * self.most
        for chunk in chunks:
            counts.update(v for v in chunk if v is not None)
            if len(counts) > bound:
                counts = Counter(dict(sorted(counts.items(), key=lambda p: (-p[1], p[0]))[: bound // 2]))
        ordered = sorted(counts.items(), key=lambda p: (-p[1], p[0]))
        kept = [(word, n) for word, n in ordered[: self.most] if n >= self.rare]
        known = {word for word, _ in kept}
        rare = [word for word, _ in ordered if word not in known][: self.most]
        return {"vocabulary": [w for w, _ in kept], "counts": [n for _, n in kept], "rare": rare}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One token a present cell, or, beyond ``max_tokens`` columns, one for each group of columns with a present cell."""
        names = stack(columns, cells, None, object)
        present = np.not_equal(names, np.array(None, object)).astype(np.bool_)
        codes = np.zeros(names.shape, np.int64)
        offset = 0
        for c, column in enumerate(columns):
            codes[:, c] = offset + self._codes(column, names[:, c], draw)
            offset += FIRST + len(column.statistics.get("vocabulary", ()))
        return pack_scalars(columns, present, self.max_tokens, {"code": torch.from_numpy(codes)})

    def _codes(self, column: Column, names: NDArray[np.object_], draw: Draw | None) -> NDArray[np.int64]:
        lookup = _lookup(column)
        codes = np.array([lookup.get(v, UNSEEN) for v in names], np.int64)
        if draw is not None and self.unseen and len(codes):
            codes[draw.uniform(f"unseen {column.name}")[:, 0] < self.unseen] = UNSEEN
        return codes

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """One table of vectors for all columns."""
        return Embeddings(columns, width, self.max_tokens)

    def wide(self, columns: Sequence[Column], outputs: int) -> nn.Module:
        """A score for each category."""
        return WideCategories(sum(FIRST + len(c.statistics.get("vocabulary", ())) for c in columns), outputs)


def _lookup(column: Column) -> dict[str, int]:
    lookup = dict.fromkeys(column.statistics.get("rare", ()), RARE)
    lookup.update({word: FIRST + i for i, word in enumerate(column.statistics.get("vocabulary", ()))})
    return lookup


def unseen_categories(column: Column, cells: Cells) -> Counter[str]:
    """How often each category occurs in these cells that training rows did not have, for a warning; none where no vocabulary is kept."""
    if "vocabulary" not in column.statistics:
        return Counter()
    lookup = _lookup(column)
    return Counter(v for v in cells if v is not None and v not in lookup)


class Embeddings(nn.Module):
    """``token = sum over the token's present columns of E[code]``; the first two entries of a column are unseen and rare."""

    slots: Tensor

    def __init__(self, columns: Sequence[Column], width: int, max_tokens: int) -> None:
        super().__init__()
        slots = token_slots(columns, max_tokens)
        entries = sum(FIRST + len(c.statistics.get("vocabulary", ())) for c in columns)
        shared = int(np.bincount(slots).max())
        self.width = width
        self.register_buffer("slots", torch.from_numpy(slots), persistent=False)
        self.count = int(slots.max()) + 1
        self.weight = nn.Parameter(torch.randn(entries, width) * (shared * 3) ** -0.5)

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        code, present = packed.inputs["code"], packed.inputs["present"]
        row, slot = packed.inputs["row"], packed.inputs["slot"]
        if self.count == code.shape[1]:
            return self.weight[code[row, slot]]
        values = self.weight[code] * present.unsqueeze(-1)
        tokens = values.new_zeros(len(code), self.count, self.width).index_add(1, self.slots, values)
        return tokens[row, slot]


class WideCategories(nn.Module):
    """The wide part of C columns: ``sum over present columns of rate * w[code]``, zero at first."""

    def __init__(self, entries: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Embedding(entries, outputs)
        nn.init.zeros_(self.weight.weight)

    def forward(self, packed: Packed, rows: int) -> Tensor:
        """Scores (rows, K)."""
        present = packed.inputs["present"].unsqueeze(-1)
        scores: Tensor = (self.weight(packed.inputs["code"]) * present).sum(1)
        return RATE * scores
