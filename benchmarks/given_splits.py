"""What the three benchmarks on given splits share: one fit a seed, one JSON record a metric, and the command line."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

import unisono


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


def as_records(bench: str, seed: int, found: Mapping[str, float], **more: Any) -> Iterator[dict[str, Any]]:
    """Make one record of each metric.

    Yields:
        Records in the benchmarks' common form.
    """
    for metric, value in found.items():
        unit = {"seconds": "s", "steps": "updates"}.get(metric, "share")
        yield {"bench": bench, **more, "seed": seed, "metric": metric, "value": value, "unit": unit}


def mean_and_spread(found: Sequence[dict[str, Any]], metric: str = "accuracy") -> dict[str, float]:
    """The mean over all records of a metric, and the range of its mean over seeds."""
    seeds = dict.fromkeys(r["seed"] for r in found)
    by_seed = [float(np.mean([r["value"] for r in found if r["seed"] == s and r["metric"] == metric])) for s in seeds]
    return {"mean": round(float(np.mean(by_seed)), 4), "spread": round(float(np.ptp(by_seed)), 4)}


def run(records: Any, description: str | None) -> None:
    """Parse seeds and settings, print one JSON object a line, then mean and spread."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    asked = parser.parse_args()
    found = []
    for record in records(asked.seeds, asked.settings):
        found.append(record)
        print(json.dumps(record), flush=True)
    print(json.dumps(mean_and_spread(found)))
