"""A number, learned on its standardised scale.

Letters: N rows. ``values`` and scores are standardised, ``(x - mean) / scale``; metrics and answers are in the column's own units.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor, nn

from unisono.core.errors import SchemaError
from unisono.core.registry import Positive
from unisono.modalities.plain import is_text, plain
from unisono.objectives import losses
from unisono.tasks import measures
from unisono.tasks.base import Array, Claim, Statistics, Task, as_scores, linear_head, need_rows, tasks
from unisono.tasks.category import FEW

#: Values further than this many quartile ranges outside the quartiles count as if they stood there when the scale is fitted.
_FENCE = 3.0
_LEVELS = (0.5, 0.8, 0.9, 0.95)


@tasks.register("number", source="Huber 1964")
class Number(Task):
    """A number: Huber's loss on the standardised scale, answers in the column's own units."""

    word: ClassVar[str] = "number"
    objective_metric: ClassVar[tuple[str, bool]] = ("r2", True)
    interval_metrics: ClassVar[tuple[str, ...]] = ("mae", "rmse", "r2")

    def __init__(self, *, loss: Literal["huber", "squared", "gaussian"] = "huber", delta: Positive = 2.0) -> None:
        """Set up.

        Args:
            loss: ``huber``; ``squared``; ``gaussian`` learns a variance for each row as well.
            delta: where Huber's loss becomes a line, in standard deviations of the target.
        """
        self.kind, self.delta = loss, delta

    def detect(self, array: pa.Array) -> Claim | None:
        """Claim numbers: fractions for certain, whole numbers unless they have few distinct values, numbers written as text."""
        values = plain(array)
        kind = values.type
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            found = np.unique(values.drop_null().cast(pa.float64()).to_numpy(zero_copy_only=False))
            found = found[np.isfinite(found)]
            if len(found) <= FEW and len(values) > FEW and np.all(found == np.round(found)):
                return 0.55, f"numbers, all whole, with only {len(found)} distinct values; if they are classes, say category"
            return 0.9, "numbers with fractions"
        if pa.types.is_integer(kind):
            distinct = len(pc.unique(values.drop_null()))
            return (0.8 if distinct > FEW else 0.5), f"whole numbers with {distinct} distinct values"
        if is_text(kind):
            known = values.drop_null().slice(0, 1000)
            cells, bad = self.decode(known)
            distinct = len(np.unique(cells[~np.isnan(cells)]))
            if len(known) and not bad and distinct > FEW:
                return 0.75, f"numbers written as text, {distinct} distinct in the first {len(known)}"
        return None

    def decode(self, array: pa.Array) -> tuple[Array, list[tuple[int, str]]]:
        """Read numbers as float64, those written as text too; NaN is missing, infinity unreadable."""
        values = plain(array)
        kind, t = values.type, pa.types
        reasons: dict[int, str] = {}
        if t.is_null(kind):
            return np.full(len(values), np.nan), []
        if is_text(kind):
            cells, reasons = _from_text(values)
        elif t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind):
            whole = values.cast(pa.int8()) if t.is_boolean(kind) else values
            cells = whole.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        else:
            raise SchemaError(f"values of type {kind} are no numbers; a number target needs numbers, or numbers written as text")
        endless = np.isinf(cells)
        reasons |= {int(row): "infinity is no number to learn" for row in np.flatnonzero(endless)}
        return np.where(endless, np.nan, cells), sorted(reasons.items())

    def fit(self, cells: Array, type: pa.DataType | None = None) -> dict[str, Any]:
        """Mean and standard deviation of the training rows, outliers drawn to the fence (Tukey 1977), and their range."""
        known = cells[~np.isnan(cells)]
        need_rows(len(known), len(np.unique(known)), f"{known[0]:g}" if len(known) else "")
        low, high = np.quantile(known, [0.25, 0.75])
        fence = _FENCE * (high - low)
        tame = np.clip(known, low - fence, high + fence) if fence > 0 else known
        mean, scale = float(tame.mean()), float(tame.std())
        if not math.isfinite(scale) or scale <= 1e-12 * abs(mean):
            scale = float(known.std())
        if not math.isfinite(scale) or scale <= 1e-13 * float(np.abs(known).max()):
            raise SchemaError(f"targets from {known.min():g} to {known.max():g} are too large or too close together to learn; rescale them")
        standard = (known - mean) / scale
        return {
            "mean": mean,
            "scale": scale,
            "minimum": float(known.min()),
            "maximum": float(known.max()),
            "count": len(known),
            "constant_loss": _constant_loss(standard, self.kind, self.delta),
            "settings": {"loss": self.kind, "delta": self.delta},
        }

    def encode(self, cells: Array, statistics: Statistics) -> tuple[Array, Array]:
        """Standardised values (N,) float64, zero where missing."""
        present = ~np.isnan(cells)
        return np.where(present, (cells - statistics["mean"]) / statistics["scale"], 0.0), present

    def _units(self, standard: Array, statistics: Statistics) -> Array:
        result: Array = np.asarray(standard, np.float64) * statistics["scale"] + statistics["mean"]
        return result

    def decode_values(self, values: Array, statistics: Statistics) -> pa.Array:
        """Values in the column's own units."""
        return pa.array(self._units(values, statistics))

    def head(self, width: int, statistics: Statistics) -> nn.Module:
        """A linear map to the standardised number, with ``gaussian`` also to the logarithm of its variance."""
        return linear_head(width, 2 if self.kind == "gaussian" else 1)

    def loss(self, scores: Tensor, values: Tensor, present: Tensor, statistics: Statistics) -> Tensor:
        """The chosen loss on the standardised scale."""
        keep = present.bool()
        if self.kind == "gaussian":
            return losses.gaussian(scores, values, keep)
        if self.kind == "squared":
            return losses.squared(scores[:, 0], values, keep)
        return losses.huber(scores[:, 0], values, keep, delta=self.delta)

    def constant_loss(self, statistics: Statistics) -> float:
        """The loss of always answering the mean."""
        return float(statistics["constant_loss"])

    def _answers(self, scores: Array, statistics: Statistics) -> Array:
        return self._units(as_scores(scores)[:, 0], statistics)

    def calibrate(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, Any]:
        """Half-widths of prediction intervals by split conformal prediction (Lei et al. 2018): quantiles of the absolute residuals.

        A level that so few rows cannot promise has the largest residual.
        """
        kept = np.asarray(present, bool)
        if not kept.any():
            return {"spread": None, "half_widths": {}}
        residuals = np.sort(np.abs(self._answers(np.asarray(scores)[kept], statistics) - self._units(np.asarray(values)[kept], statistics)))
        n = len(residuals)
        places = {level: min(math.ceil((n + 1) * level), n) - 1 for level in _LEVELS}
        half_widths = {f"{level:g}": float(residuals[place]) for level, place in places.items()}
        return {"spread": float(np.sqrt((residuals**2).mean())), "half_widths": half_widths}

    def probabilities(self, scores: Array, statistics: Statistics) -> Array:
        """A number has none: (N, 0)."""
        return np.zeros((len(scores), 0))

    def predict(self, scores: Array, statistics: Statistics) -> pa.Array:
        """Numbers in the column's own units, as float64 (the mean of whole numbers is seldom one)."""
        return pa.array(self._answers(scores, statistics))

    def columns(self, name: str, scores: Array, statistics: Statistics) -> dict[str, pa.Array]:
        """``T`` alone."""
        return {name: self.predict(scores, statistics)}

    def metrics(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, float]:
        """MAE and RMSE in the column's own units, and R2."""
        kept = np.asarray(present, bool)
        truth, said = self._units(np.asarray(values)[kept], statistics), self._answers(np.asarray(scores)[kept], statistics)
        return {"mae": measures.mae(truth, said), "rmse": measures.rmse(truth, said), "r2": measures.r2(truth, said)}

    def row_losses(self, scores: Array, values: Array, statistics: Statistics) -> Array:
        """The absolute error in the column's own units."""
        result: Array = np.abs(self._answers(scores, statistics) - self._units(values, statistics))
        return result

    def resampled(self, scores: Array, values: Array, statistics: Statistics, rows: Array) -> dict[str, Array]:
        """MAE, RMSE, R2."""
        truth, said = self._units(values, statistics), self._answers(scores, statistics)
        return {"mae": measures.mae(truth, said, rows), "rmse": measures.rmse(truth, said, rows), "r2": measures.r2(truth, said, rows)}


def _constant_loss(standard: Array, kind: str, delta: float) -> float:
    """The mean loss of answering zero (``gaussian``: its log-likelihood is offset by a half so that the unit is positive)."""
    size = np.abs(standard)
    if kind == "huber":
        return float(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)).mean())
    return float(0.5 * (size**2).mean())


def _from_text(values: pa.Array) -> tuple[Array, dict[int, str]]:
    """Numbers written as text; empty text and 'nan' are missing."""
    trimmed = pc.utf8_trim_whitespace(values.cast(pa.string()))
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    try:
        return trimmed.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64), {}
    except pa.ArrowInvalid:
        pass
    cells, reasons = np.full(len(values), np.nan), {}
    for row, text in enumerate(trimmed.to_pylist()):
        if text is None:
            continue
        try:
            cells[row] = float(text.replace("_", "x"))
        except ValueError:
            reasons[row] = f"{text[:40]!r} is no number"
    return cells, reasons
