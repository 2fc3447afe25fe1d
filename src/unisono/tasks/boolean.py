"""True or false: a category of two, however the two are written."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unisono.core.errors import SchemaError
from unisono.core.registry import Probability
from unisono.modalities.plain import is_text, plain
from unisono.tasks.base import Array, Claim, tasks
from unisono.tasks.category import Category

#: Words for false and for true, in pairs.
PAIRS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("off", "on"), ("0", "1"))
_TRUTH = {word: truth for pair in PAIRS for word, truth in zip(pair, ("false", "true"), strict=True)}


@tasks.register("boolean", source="arXiv:2007.07314")
class Boolean(Category):
    """True or false, as truth values, 0 and 1, or a pair of words such as no and yes."""

    word: ClassVar[str] = "boolean"

    def __init__(self, *, balance: Literal["none", "adjust", "weights"] = "none", smoothing: Probability = 0.0) -> None:
        """Set up.

        Args:
            balance: how unequal classes are met, as in ``Category``.
            smoothing: label smoothing.
        """
        super().__init__(balance=balance, smoothing=smoothing)

    def detect(self, array: pa.Array) -> Claim | None:
        """Claim truth values, and text that consists of one pair of words."""
        values = plain(array)
        if pa.types.is_boolean(values.type):
            return 0.95, "true or false"
        if pa.types.is_integer(values.type):
            found = set(pc.unique(values.drop_null()).to_pylist())
            return (0.75, "only 0 and 1; if they are amounts, say number") if found == {0, 1} else None
        if is_text(values.type):
            words = {w.strip().lower() for w in pc.unique(values.drop_null()).to_pylist()}
            pair = next((p for p in PAIRS if words == set(p)), None)
            return (0.9, f"only the words {pair[0]} and {pair[1]}") if pair else None
        return None

    def decode(self, array: pa.Array) -> tuple[Array, list[tuple[int, str]]]:
        """Read truth values and words for them, in any case."""
        cells, bad = super().decode(array)
        found = dict(bad)
        for row, cell in enumerate(cells):
            if cell is not None and cell.strip().lower() not in _TRUTH:
                cells[row], found[row] = None, f"{cell[:40]!r} says neither true nor false"
        return cells, sorted(found.items())

    def keys(self, cells: Array) -> Array:
        """The truth each word stands for."""
        return np.array([None if cell is None else _TRUTH[cell.strip().lower()] for cell in cells], object)

    def order(self, classes: list[str]) -> list[int]:
        """False first."""
        return sorted(range(len(classes)), key=lambda i: classes[i])

    def spellings(self, keys: list[str], cells: Array) -> list[str]:
        """The commonest spelling of each truth, so that answers look like the column."""
        seen: dict[str, Counter[str]] = {key: Counter() for key in keys}
        for key, cell in zip(self.keys(cells), cells, strict=True):
            if key is not None:
                seen[key][cell] += 1
        return [max(sorted(seen[key]), key=lambda word: seen[key][word]) for key in keys]

    def fit(self, cells: Array, type: pa.DataType | None = None) -> dict[str, Any]:
        """As ``Category.fit``; both truths have to occur."""
        try:
            return super().fit(cells, type)
        except SchemaError as error:
            raise SchemaError(f"a boolean target needs rows of both kinds: {error}") from None
