"""A table of one hidden code a row, seen by several sources, and settings by which aligning them takes a second."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

import unisono

SMALL = (
    "width=32",
    "trunk=[{name: mix, repeat: 1, scope: item}, {name: read, read: mean}]",
    "train.steps=60",
    "train.lr=0.004",
    "train.batch=64",
)
WORDS = (("red", "blue"), ("small", "large"), ("round", "square"), ("old", "new"), ("near", "far"), ("loud", "quiet"), ("hot", "cold"))


def codes(n: int = 200, seed: int = 0, missing: float = 0.0) -> pa.Table:
    """Seven hidden bits a row, told by ``note``, and by the vectors ``left`` and ``right``, each with noise of its own."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (n, len(WORDS)))
    note = [" ".join(pair[b] for pair, b in zip(WORDS, row, strict=True)) for row in bits.tolist()]
    turns = [np.random.default_rng(k).normal(size=(len(WORDS), 10)) for k in (1, 2)]
    sides = [((2.0 * bits - 1) @ turn + 0.1 * rng.normal(size=(n, 10))).round(3).tolist() for turn in turns]
    columns: dict[str, Any] = {"note": note, "left": sides[0], "right": sides[1]}
    for name, cells in columns.items():
        hole = rng.random(n) < missing
        columns[name] = [None if h else cell for h, cell in zip(hole, cells, strict=True)]
    split = np.where(np.arange(n) % 5 == 4, "test", np.where(np.arange(n) % 10 == 1, "val", "train"))
    names = [f"k{k:03d}" for k in range(n)]
    return pa.table({"key": names, **columns, "kind": [("soft", "hard")[b] for b in bits[:, 0]], "split": split})


def fit(table: pa.Table | None = None, **given: Any) -> unisono.Model:
    """A small aligned model of ``codes``, targets left out unless they are asked for."""
    table = codes() if table is None else table
    options: dict[str, Any] = {"align": True, "split": "split", "key": "key", "progress": False, **given}
    if "target" not in options and "kind" in table.column_names:
        table = table.drop_columns(["kind"])
    settings = (*SMALL, *options.pop("settings", ()))
    columns = {name: "vector" for name in ("left", "right") if name in table.column_names and name not in options.get("drop", ())}
    if "note" in table.column_names and "note" not in options.get("drop", ()):
        columns["note"] = "text"
    return unisono.fit(table, settings=settings, columns=columns, **options)


@cache
def fitted() -> unisono.Model:
    """The model of ``codes`` with a tenth of the cells missing."""
    return fit(codes(240, missing=0.1))
