"""What the benchmarks on given splits share: one fit, and its figures with their units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

import unisono
from benchmarks import Measured


def fit_once(
    table: pa.Table, target: str, seed: int, settings: Sequence[str] = (), columns: Mapping[str, str] | None = None
) -> tuple[Any, dict[str, float]]:
    """Fit with default settings on the table's column ``split``.

    Returns:
        The model, and its test ``accuracy``, the whole call's ``seconds``, and ``steps``.
    """
    begin = time.monotonic()
    model = unisono.fit(
        table, {target: "category"}, split="split", columns=dict(columns or {}), seed=seed, settings=list(settings), progress=False
    )
    seconds = time.monotonic() - begin
    accuracy = model.metrics["test"]["targets"][target]["accuracy"]
    return model, {"accuracy": accuracy, "seconds": round(seconds, 1), "steps": model.metrics["training"]["steps"]}


def measured(found: Mapping[str, float]) -> Measured:
    """What ``fit_once`` found, with units."""
    return {metric: (value, {"seconds": "s", "steps": "updates"}.get(metric, "share")) for metric, value in found.items()}
