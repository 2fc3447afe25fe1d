"""Unified embedding, one hashed table for all columns of categories (arXiv:2305.12102; recipe ``unified-embedding``).

Claim: one shared table uses its rows better than a table for each column. Exact (``tests/systems/test_unified_embedding.py``): without
collisions it equals separate tables in outputs and in one training step; its size does not depend on the columns; new values need nothing.

Clicks on rows of eight columns whose vocabularies hold from 10 to 5,000 Zipf-distributed values, each with an effect of its own; 1,024 rows
of vectors in one table, or 128 for each column.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

import unisono
from benchmarks import Goal, Measured, row
from benchmarks.systems.common import auc, differences

ROWS, TESTED, TABLE = 6000, 3000, 1024
VOCABULARIES = (10, 20, 50, 200, 500, 1000, 2000, 5000)
SETTINGS = ["width=32", "train.steps=300", "train.batch=256", "train.lr=0.003"]


def clicks(seed: int) -> tuple[pa.Table, pa.Table]:
    """Training rows and test rows of the same world."""
    rng = np.random.default_rng(seed)
    score, columns = np.zeros(ROWS + TESTED), {}
    for k, size in enumerate(VOCABULARIES):
        chance = 1 / np.arange(1, size + 1)
        value = rng.choice(size, ROWS + TESTED, p=chance / chance.sum())
        score += rng.normal(size=size)[value] * 0.7
        columns[f"c{k}"] = [f"v{v}" for v in value]
    table = pa.table({**columns, "click": rng.random(len(score)) < 1 / (1 + np.exp(-score))})
    return table.slice(0, ROWS), table.slice(ROWS)


@row(
    "systems/unified-embedding",
    goals=[Goal("auc_gain", must=0.0, aim=0.005)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("auc", unit="area"),
)
def unified_embedding(*, arm: str, seed: int) -> Measured:
    """Area under the curve at as many numbers in tables: one for all columns, or one for each."""
    train, test = clicks(seed)
    names = train.column_names[:-1]
    ours = [f"tokens.category=unified(rows={TABLE})"]
    own = [f"tokens.{n}=unified(rows={TABLE // len(names)})" for n in names]
    model = unisono.fit(
        train, "click=boolean", recipe="unified-embedding", columns=dict.fromkeys(names, "category"),
        settings=[*SETTINGS, *(ours if arm == "ours" else own)], seed=seed, progress=False,
    )  # fmt: skip
    return {"auc": (auc(model, test, "click"), "area")}
