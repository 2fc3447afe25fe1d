"""Six views of handwritten digits as vector columns, given split, default settings."""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.given_splits import fit_once, measured
from unisono.data import mfeat as load


@row("mfeat", goals=[Goal("accuracy", must=0.987, aim=0.995), Goal("seconds", better="lower")], seeds=(0, 1, 2))
def mfeat(*, arm: str, seed: int) -> Measured:
    """Test accuracy on six views of handwritten digits, each view a vector column."""
    table = load()
    target = "digit" if "digit" in table.column_names else "y"
    return measured(fit_once(table, target, seed)[1])
