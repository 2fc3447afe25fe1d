"""What several systems' rows need: differences of two arms, and areas under the curve of a model on another table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import Derive, Measured, Values


def differences(*metrics: str, ours: str = "ours", baseline: str = "baseline", unit: str = "share") -> Derive:
    """Make ``METRIC_gain``, the mean of one arm less that of the other, for each metric."""

    def derive(found: Values) -> dict[str, tuple[float | None, str]]:
        result: dict[str, tuple[float | None, str]] = {}
        for metric in metrics:
            a, b = found.mean(metric, ours), found.mean(metric, baseline)
            result[f"{metric}_gain"] = (None if a is None or b is None else a - b, unit)
        return result

    return derive


def auc(model: Any, table: Any, target: str) -> float:
    """The area under the curve of a boolean target's probabilities on a table."""
    from sklearn.metrics import roc_auc_score

    estimates = model.predict(table.drop_columns([target]))
    return float(roc_auc_score(table[target].to_numpy(zero_copy_only=False), estimates[f"{target}.probability.true"].to_numpy()))


def accuracy(model: Any, target: str) -> float:
    """The accuracy on the test rows."""
    return float(model.metrics["test"]["targets"][target]["accuracy"])


def alone(model: Any, source: str, target: str) -> float:
    """The accuracy on the test rows when every other source is missing."""
    found = [part for part in model.metrics["missing"] if list(part["present"]) == [source]]
    return float(found[0]["targets"][target]["accuracy"])


def shares(found: Mapping[str, float]) -> Measured:
    """Metrics that are shares of one."""
    return {name: (value, "share") for name, value in found.items()}
