"""One of several classes.

Class imbalance is met in two places (arXiv:2007.07314). The logarithms of the classes' shares are a fixed offset of the scores, so that
the network learns what tells classes apart rather than how frequent they are, and probabilities stay those of the data. The answer is the
most probable class. With ``balance=adjust``, where the largest class has three times as many rows as the smallest, or more, ``calibrate``
may also move the *decision* towards rare classes: ``argmax(log p - a log prior)``, with ``a`` chosen on validation rows
(``calibration.decision_strength``); ``T.probability`` is still the calibrated probability of the class answered.

Letters: N rows, K classes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from unisono.core.errors import SchemaError
from unisono.core.registry import Probability
from unisono.modalities.plain import is_text, plain
from unisono.objectives.losses import cross_entropy
from unisono.tasks import measures
from unisono.tasks.base import Array, Claim, Statistics, Task, as_scores, linear_head, need_rows, tasks
from unisono.tasks.calibration import decision_strength, temperature

#: Whole numbers with at most this many distinct values are taken for classes.
FEW = 20
#: The ratio of class sizes from which decisions may be moved.
IMBALANCED = 3.0
_LIMIT = 100_000
_EFFECTIVE = 0.999


@tasks.register("category", source="arXiv:2007.07314")
class Category(Task):
    """One of several classes: cross-entropy with the classes' shares as offset, temperature scaling on validation rows."""

    word: ClassVar[str] = "category"
    objective_metric: ClassVar[tuple[str, bool]] = ("accuracy", True)
    interval_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy", "log_loss")

    def __init__(self, *, balance: Literal["none", "adjust", "weights"] = "none", smoothing: Probability = 0.0) -> None:
        """Set up.

        Args:
            balance: ``none``: the most probable class is answered, every row weighs alike; ``adjust``: decisions may move towards
                rare classes; ``weights``: rows are weighted by the effective number of their class (arXiv:1901.05555).
            smoothing: label smoothing.
        """
        self.balance, self.smoothing = balance, smoothing

    def detect(self, array: pa.Array) -> Claim | None:
        """Claim text, and whole numbers with few distinct values."""
        values = plain(array)
        kind = values.type
        distinct = len(pc.unique(values.drop_null())) if _countable(kind) else 0
        if is_text(kind):
            return 0.6, f"text with {distinct} distinct values"
        if pa.types.is_boolean(kind):
            return 0.5, "true or false"
        if pa.types.is_integer(kind) and distinct <= FEW:
            return 0.7, f"whole numbers with only {distinct} distinct values; if their size matters, say number"
        if pa.types.is_date(kind) and distinct <= FEW:
            return 0.4, f"{distinct} distinct dates"
        return None

    def decode(self, array: pa.Array) -> tuple[Array, list[tuple[int, str]]]:
        """Read classes as text; numbers and truth values by their canonical spelling, so 3, 3.0 and '3' are one class."""
        values = plain(array)
        n, kind = len(values), values.type
        if pa.types.is_null(kind):
            return np.full(n, None, object), []
        if not _countable(kind):
            raise SchemaError(f"values of type {kind} are no classes; a category needs text, whole numbers, truth values or dates")
        bad: list[tuple[int, str]] = []
        if pa.types.is_floating(kind):
            numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0
            bad = [(int(row), "infinity is no class") for row in np.flatnonzero(np.isinf(numbers))]
            values = pa.array(numbers, mask=~np.isfinite(numbers))
        texts = values.cast(pa.string()).to_numpy(zero_copy_only=False)
        return np.asarray(texts, object), bad

    def fit(self, cells: Array, type: pa.DataType | None = None) -> dict[str, Any]:
        """Classes in stable order (numbers by size, else by spelling), their counts, offsets and weights."""
        keys = self.keys(cells)
        known = keys[keys != None]  # noqa: E711 - element-wise
        classes, counts = np.unique(known.astype(str), return_counts=True) if len(known) else (np.zeros(0, str), np.zeros(0, int))
        need_rows(len(known), len(classes), repr(str(classes[0])) if len(classes) else "")
        if len(classes) > _LIMIT or (counts.max() == 1 and len(classes) > FEW):
            raise SchemaError(
                f"{len(classes)} classes in {len(known)} training rows: this looks like an identifier or free text; choose another target"
            )
        order = np.array(self.order([str(c) for c in classes]))
        counts = counts[order]
        return {
            "classes": self.spellings([str(classes[i]) for i in order], cells),
            "type": str(type) if type is not None and _restorable(type) else "string",
            "counts": [int(c) for c in counts],
            "offset": _offset(counts, self.balance),
            "weights": _weights(counts) if self.balance == "weights" else None,
            "temperature": 1.0,
            "strength": 0.0,
            "settings": {"balance": self.balance, "smoothing": self.smoothing},
        }

    def keys(self, cells: Array) -> Array:
        """What two cells of one class have in common."""
        return cells

    def order(self, classes: list[str]) -> list[int]:
        """The places of the classes in their order."""
        try:
            sizes = [float(c) for c in classes]
        except ValueError:
            return sorted(range(len(classes)), key=lambda i: classes[i])
        return sorted(range(len(classes)), key=lambda i: (sizes[i], classes[i]))

    def spellings(self, keys: list[str], cells: Array) -> list[str]:
        """How the classes are written in answers."""
        return keys

    def encode(self, cells: Array, statistics: Statistics) -> tuple[Array, Array]:
        """Class codes (N,) int64: -1 for a class unseen in training, which is present, an error in the metrics, and nothing in the loss."""
        keys = self.keys(cells)
        classes = self.keys(np.array(statistics["classes"], object))
        present = np.array([key is not None for key in keys], bool)
        place = {key: code for code, key in enumerate(classes)}
        return np.array([place.get(key, -1) for key in keys], np.int64), present

    def decode_values(self, values: Array, statistics: Statistics) -> pa.Array:
        """Codes as classes."""
        codes = np.asarray(values, np.int64)
        written = _restore(statistics)
        return written.take(pa.array(np.maximum(codes, 0), pa.int64(), mask=codes < 0))

    def head(self, width: int, statistics: Statistics) -> nn.Module:
        """A linear map to one score a class; the classes' shares are not its business (see ``offset``)."""
        return linear_head(width, len(statistics["classes"]))

    def loss(self, scores: Tensor, values: Tensor, present: Tensor, statistics: Statistics) -> Tensor:
        """Cross-entropy of ``softmax(scores + offset)``."""
        weights = statistics.get("weights")
        return cross_entropy(
            scores,
            values,
            present.bool() & (values >= 0),
            offset=torch.tensor(statistics["offset"], device=scores.device),
            weights=None if weights is None else torch.tensor(weights, device=scores.device),
            smoothing=self.smoothing,
        )

    def constant_loss(self, statistics: Statistics) -> float:
        """The (weighted) entropy of the classes' shares."""
        counts = np.array(statistics["counts"], np.float64) * np.array(statistics.get("weights") or 1.0)
        shares = counts / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    def _log_p(self, scores: Array, statistics: Statistics) -> Array:
        return measures.log_softmax((as_scores(scores) + np.array(statistics["offset"])) / statistics["temperature"])

    def codes(self, scores: Array, statistics: Statistics) -> Array:
        """The classes answered, (N,)."""
        log_p = self._log_p(scores, statistics)
        if statistics["strength"]:
            log_p = log_p - statistics["strength"] * _log_prior(statistics)
        result: Array = log_p.argmax(1) if log_p.size else np.zeros(len(log_p), np.int64)
        return result

    def calibrate(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, Any]:
        """Fit the temperature, and where classes are imbalanced the strength of the decision's move."""
        known = np.asarray(present, bool) & (np.asarray(values) >= 0)
        logits, codes = as_scores(scores)[known] + np.array(statistics["offset"]), np.asarray(values)[known].astype(np.int64)
        t = temperature(logits, codes)
        counts = statistics["counts"]
        strength = 0.0
        if self.balance == "adjust" and max(counts) >= IMBALANCED * min(counts):
            strength = decision_strength(measures.log_softmax(logits / t), _log_prior(statistics))
        return {"temperature": t, "strength": strength}

    def probabilities(self, scores: Array, statistics: Statistics) -> Array:
        """``softmax((scores + offset) / temperature)``."""
        result: Array = np.exp(self._log_p(scores, statistics))
        return result

    def predict(self, scores: Array, statistics: Statistics) -> pa.Array:
        """Classes in the column's original type."""
        return self.decode_values(self.codes(scores, statistics), statistics)

    def columns(self, name: str, scores: Array, statistics: Statistics) -> dict[str, pa.Array]:
        """``T``, ``T.probability`` (of the class answered), ``T.probability.CLASS``."""
        p, codes = self.probabilities(scores, statistics), self.codes(scores, statistics)
        found = {name: self.decode_values(codes, statistics), f"{name}.probability": pa.array(p[np.arange(len(codes)), codes])}
        return found | {f"{name}.probability.{c}": pa.array(np.ascontiguousarray(p[:, i])) for i, c in enumerate(statistics["classes"])}

    def metrics(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, float]:
        """Accuracy, balanced accuracy, macro F1, AUROC, log loss and ECE; log loss over rows whose class training saw."""
        kept = np.asarray(present, bool)
        s, truth = as_scores(scores)[kept], np.asarray(values)[kept].astype(np.int64)
        log_p, codes, k = self._log_p(s, statistics), self.codes(s, statistics), len(statistics["classes"])
        p, rows, seen = np.exp(log_p), np.arange(len(truth)), truth >= 0
        return {
            "accuracy": measures.accuracy(truth, codes),
            "balanced_accuracy": measures.balanced_accuracy(truth, codes, k),
            "macro_f1": measures.macro_f1(truth, codes, k),
            "auroc": measures.class_auroc(truth, p),
            "log_loss": measures.mean(-log_p[rows, truth][seen]),
            "ece": measures.ece(p[rows, codes], truth == codes),
        }

    def row_losses(self, scores: Array, values: Array, statistics: Statistics) -> Array:
        """Cross-entropy of the calibrated probabilities."""
        truth = np.asarray(values, np.int64)
        losses: Array = np.where(truth >= 0, -self._log_p(scores, statistics)[np.arange(len(truth)), truth], np.inf)
        return losses

    def resampled(self, scores: Array, values: Array, statistics: Statistics, rows: Array) -> dict[str, Array]:
        """Accuracy, balanced accuracy, log loss."""
        truth, codes = np.asarray(values, np.int64), self.codes(scores, statistics)
        seen = truth >= 0
        return {
            "accuracy": measures.accuracy(truth, codes, rows),
            "balanced_accuracy": measures.balanced_accuracy(truth, codes, len(statistics["classes"]), rows),
            "log_loss": measures.mean(self.row_losses(scores, truth, statistics)[seen], rows[:, seen]),
        }


def _countable(kind: pa.DataType) -> bool:
    t = pa.types
    text = is_text(kind)
    return bool(text or t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_date(kind) or t.is_decimal(kind))


def _restorable(kind: pa.DataType) -> bool:
    """Whether classes can be written in this type again, by its name."""
    t = pa.types
    return bool(t.is_integer(kind) or (t.is_floating(kind) and kind != pa.float16()) or t.is_boolean(kind))


def _restore(statistics: Statistics) -> pa.Array:
    name = {"float": "float32", "double": "float64"}.get(statistics["type"], str(statistics["type"]))
    return pa.array(statistics["classes"], pa.string()).cast(pa.type_for_alias(name))


def _log_prior(statistics: Statistics) -> Array:
    counts = np.array(statistics["counts"], np.float64)
    result: Array = np.log(counts / counts.sum())
    return result


def _offset(counts: Array, balance: str) -> list[float]:
    if balance == "weights":
        counts = counts * np.array(_weights(counts))
    return [float(x) for x in np.log(counts / counts.sum())]


def _weights(counts: Array) -> list[float]:
    """Weights by the effective number of rows, ``(1 - b) / (1 - b^n)`` (arXiv:1901.05555), of mean 1 over rows."""
    raw = (1 - _EFFECTIVE) / (1 - _EFFECTIVE ** counts.astype(np.float64))
    return [float(x) for x in raw * counts.sum() / (raw * counts).sum()]
