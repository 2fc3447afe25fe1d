"""What effects of aligning systems share: scenes as picture and caption, and what one finds the other by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

import unisono
from benchmarks import Values
from unisono import data

#: The same for both arms.
SETTINGS = ("train.batch=128", "train.epochs=12", "train.lr=0.002", "width=64")


def scenes(seed: int, rows: int = 2200, columns: tuple[str, ...] = ("image", "caption")) -> pa.Table:
    """Scenes no two of which are alike: 400 test, 200 validation rows, the rest for training."""
    table = data.shapes(rows, seed=seed, columns=["key", *columns], unique=True)
    split = np.where(np.arange(rows) < 400, "test", np.where(np.arange(rows) < 600, "val", "train"))
    return table.append_column("split", pa.array(split))


def aligned(recipe: str, table: pa.Table, seed: int, settings: tuple[str, ...] = SETTINGS, **options: Any) -> Any:
    """A model of the recipe."""
    return unisono.fit(table, align=True, recipe=recipe, split="split", key="key", settings=settings, seed=seed, progress=False, **options)


def both_ways(model: Any, figure: str = "r@1") -> float:
    """The mean of a figure over all searches."""
    return float(np.mean([found[figure] for found in model.metrics["retrieval"]]))


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """The difference of mean recalls."""
    ours, plain = found.mean("r@1", "ours"), found.mean("r@1", "baseline")
    return {"gain": (None if ours is None or plain is None else ours - plain, "share")}
