"""Symile (arXiv:2411.01053; recipe ``symile``).

Claim: contrast of tuples learns what only several sources together tell, which contrast of pairs cannot. Exact
(``tests/systems/test_symile.py``, ``tests/objectives/test_align.py``): with two sources and all tuples the loss is the symmetric contrast;
the order of sources does not matter.

Three vectors, each a bit seen through noise, the third the first XOR the second; the baseline is contrast of pairs at the same settings.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned

SETTINGS = ("train.steps=150", "train.patience=0", "train.batch=256", "width=32", "train.lr=0.003", "steps.mix.repeat=1")
SEEDS = (0, 1, 2)


def xor(rows: int, seed: int, missing: float = 0.0) -> pa.Table:
    """Three vectors of eight numbers, each a bit seen through noise: the third bit is the first XOR the second."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, (2, rows))
    split = np.where(np.arange(rows) < 1000, "test", np.where(np.arange(rows) < 1300, "val", "train"))
    columns: dict[str, Any] = {}
    for name, bit in (("a", a), ("b", b), ("c", a ^ b)):
        cells = (2.0 * bit - 1)[:, None] + 0.3 * rng.normal(size=(rows, 8))
        holes = (rng.random(rows) < missing) & (split == "train")
        columns[name] = [None if hole else cell for hole, cell in zip(holes, cells.tolist(), strict=True)]
    return pa.table({"key": [f"r{k}" for k in range(rows)], **columns, "bit": a ^ b, "split": split})


def told(model: Any, table: pa.Table, product: bool) -> float:
    """How often the third bit is told from the other two vectors: that of the gallery's third vectors which on average score more."""
    split, bit = np.array(table["split"].to_pylist()), np.array(table["bit"].to_pylist())
    made = model.embed(table)
    a, b, c = (np.array(made[f"embedding.{s}"].to_pylist(), object) for s in "abc")
    test, train = split == "test", np.array([v is not None for v in c]) & (split == "train")
    x, y = (np.stack(v[test].tolist()).astype(np.float64) for v in (a, b))
    query = x * y if product else x + y
    kinds = [np.stack(c[train & (bit == k)].tolist()).astype(np.float64).mean(0) for k in (0, 1)]
    return float((((query @ kinds[1]) > (query @ kinds[0])) == (bit[test] == 1)).mean())


@row(
    "systems/symile",
    goals=[
        Goal("accuracy", arm="symile", must=0.9),
        Goal("accuracy", arm="symile, a fifth missing", must=0.85),
        Goal("accuracy", arm="pairs"),
        Goal("seconds", must=60.0, better="lower"),
    ],
    arms=("symile", "symile, a fifth missing", "pairs"),
    seeds=SEEDS,
)
def symile(*, arm: str, seed: int) -> Measured:
    """A bit that only two others together tell: the third source from the first two."""
    table = xor(3000, seed, 0.2 if "missing" in arm else 0.0)
    begin = time.monotonic()
    model = aligned(
        "align" if arm == "pairs" else "symile", table.drop_columns(["bit"]), seed, SETTINGS, columns=dict.fromkeys("abc", "vector")
    )
    seconds = time.monotonic() - begin
    return {"accuracy": (told(model, table, arm != "pairs"), "share"), "seconds": (seconds, "s")}
