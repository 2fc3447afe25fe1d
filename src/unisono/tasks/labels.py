"""Any number of labels at once.

Letters: N rows, K labels. Encoded values are (N, K + 1): 0 or 1 a label, and in the last place how many of the row's labels training
never saw; these make an answer wrong in ``accuracy`` and are nothing to the loss.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from unisono.core.errors import SchemaError
from unisono.core.registry import NonNegative, Probability
from unisono.modalities.plain import is_text, plain
from unisono.objectives.losses import binary_cross_entropy
from unisono.tasks import measures
from unisono.tasks.base import Array, Claim, Statistics, Task, as_scores, linear_head, need_rows, tasks
from unisono.tasks.calibration import binary_temperature

_SEPARATORS = re.compile(r"[|;,]")
_LIMIT = 20_000
#: A label's threshold is fitted when validation has at least this many rows of either kind.
_ENOUGH = 10


@tasks.register("labels", source="arXiv:2009.14119")
class Labels(Task):
    """A list of labels: binary cross-entropy a label, with a temperature and a threshold for each from validation rows."""

    word: ClassVar[str] = "labels"
    objective_metric: ClassVar[tuple[str, bool]] = ("map", True)
    interval_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "map")

    def __init__(self, *, focus: NonNegative = 0.0, smoothing: Probability = 0.0, separator: str | None = None) -> None:
        """Set up.

        Args:
            focus: how much less easy absent labels count; 0 for plain cross-entropy.
            smoothing: label smoothing.
            separator: what separates labels in a text cell; if not given any of ``| ; ,``. A text cell may also be a JSON list.
        """
        self.focus, self.smoothing, self.separator = focus, smoothing, separator

    def detect(self, array: pa.Array) -> Claim | None:
        """Claim lists of text, and text that is JSON lists or separated by ``|`` or ``;`` in several rows."""
        values = plain(array)
        if _is_list(values.type):
            inner = values.type.value_type
            return (0.9, "lists of labels") if is_text(inner) else None
        if is_text(values.type):
            texts = [t for t in values.drop_null().slice(0, 1000).to_pylist() if t]
            listed = [t for t in texts if (t.startswith("[") and t.endswith("]")) or "|" in t or ";" in t]
            parts = [p for t in texts for p in self._split(t)]
            if len(listed) >= max(2, 0.2 * len(texts)) and len(set(parts)) <= 0.5 * len(parts):
                return 0.7, "text that lists recurring labels; if each whole text is one class, say category"
        return None

    def _split(self, text: str) -> list[str]:
        if text.startswith("["):
            try:
                found = json.loads(text)
            except ValueError:
                found = None
            if isinstance(found, list):
                return [str(x) for x in found if x is not None]
        parts = text.split(self.separator) if self.separator else _SEPARATORS.split(text)
        return [p.strip() for p in parts if p.strip()]

    def decode(self, array: pa.Array) -> tuple[Array, list[tuple[int, str]]]:
        """Read tuples of distinct labels; an empty list is a row without labels, a null a missing target."""
        values = plain(array)
        kind = values.type
        text = is_text(kind)
        if not (_is_list(kind) or text or pa.types.is_null(kind)):
            raise SchemaError(f"values of type {kind} are no lists of labels; give lists, or text such as red|green")
        cells, bad = np.full(len(values), None, object), []
        for row, value in enumerate(values.to_pylist()):
            if value is None:
                continue
            items = self._split(value) if text else [x for x in value if x is not None]
            if any(isinstance(x, list | dict | bytes) for x in items):
                bad.append((row, "a label is text or a number, not a list, structure or bytes"))
                continue
            cells[row] = tuple(dict.fromkeys(str(x) for x in items))
        return cells, bad

    def fit(self, cells: Array, type: pa.DataType | None = None) -> dict[str, Any]:
        """The labels of training rows in order of spelling, and how many rows have each."""
        known = [cell for cell in cells if cell is not None]
        counted = Counter(label for cell in known for label in cell)
        need_rows(len(known), len(set(map(frozenset, known))), repr(list(known[0])) if known else "")
        if len(counted) > _LIMIT:
            raise SchemaError(f"{len(counted)} labels are too many (at most {_LIMIT}); is this free text?")
        labels = sorted(counted)
        counts = np.array([counted[label] for label in labels], np.float64)
        share = (counts + 0.5) / (len(known) + 1)
        return {
            "labels": labels,
            "counts": [counted[label] for label in labels],
            "rows": len(known),
            "offset": [float(x) for x in np.log(share / (1 - share))],
            "temperature": [1.0] * len(labels),
            "threshold": [0.5] * len(labels),
            "settings": {"focus": self.focus, "smoothing": self.smoothing, "separator": self.separator},
        }

    def encode(self, cells: Array, statistics: Statistics) -> tuple[Array, Array]:
        """(N, K + 1) float32: which labels a row has, and how many unseen ones."""
        place = {label: k for k, label in enumerate(statistics["labels"])}
        values = np.zeros((len(cells), len(place) + 1), np.float32)
        for row, cell in enumerate(cells):
            for label in cell or ():
                values[row, place.get(label, len(place))] += 1.0
        return values, np.array([cell is not None for cell in cells], bool)

    def decode_values(self, values: Array, statistics: Statistics) -> pa.Array:
        """Values as lists of labels, unseen ones left out."""
        names = np.array(statistics["labels"], object)
        chosen = np.asarray(values)[:, : len(names)] > 0
        return pa.array([list(names[row]) for row in chosen], pa.list_(pa.string()))

    def head(self, width: int, statistics: Statistics) -> nn.Module:
        """A linear map to one score a label; how frequent labels are is not its business."""
        return linear_head(width, len(statistics["labels"]))

    def loss(self, scores: Tensor, values: Tensor, present: Tensor, statistics: Statistics) -> Tensor:
        """Binary cross-entropy, the mean over labels, with the labels' log odds as offset."""
        return binary_cross_entropy(
            scores,
            values[:, : scores.shape[1]],
            present.bool(),
            offset=torch.tensor(statistics["offset"], device=scores.device),
            focus=self.focus,
            smoothing=self.smoothing,
        )

    def constant_loss(self, statistics: Statistics) -> float:
        """The mean entropy of the labels' shares."""
        logits = np.array(statistics["offset"])
        share = np.array(statistics["counts"]) / statistics["rows"]
        return float(-(share * measures.log_sigmoid(logits) + (1 - share) * measures.log_sigmoid(-logits)).mean())

    def _logits(self, scores: Array, statistics: Statistics) -> Array:
        result: Array = (as_scores(scores) + np.array(statistics["offset"])) / np.array(statistics["temperature"])
        return result

    def calibrate(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, Any]:
        """For each label a temperature by likelihood, and the threshold of best F1 where there are enough rows of either kind.

        A label with fewer rows keeps the threshold 0.5.
        """
        kept, k = np.asarray(present, bool), len(statistics["labels"])
        logits, truth = as_scores(scores)[kept] + np.array(statistics["offset"]), np.asarray(values)[kept, :k] > 0
        temperatures = [binary_temperature(logits[:, i], truth[:, i]) for i in range(k)]
        p = np.exp(measures.log_sigmoid(logits / np.array(temperatures)))
        return {"temperature": temperatures, "threshold": [_threshold(p[:, i], truth[:, i]) for i in range(k)]}

    def probabilities(self, scores: Array, statistics: Statistics) -> Array:
        """``sigmoid((score + offset) / temperature)`` of each label."""
        result: Array = np.exp(measures.log_sigmoid(self._logits(scores, statistics)))
        return result

    def _chosen(self, scores: Array, statistics: Statistics) -> Array:
        result: Array = self.probabilities(scores, statistics) >= np.array(statistics["threshold"])
        return result

    def predict(self, scores: Array, statistics: Statistics) -> pa.Array:
        """Lists of the labels at or above their thresholds."""
        return self.decode_values(self._chosen(scores, statistics), statistics)

    def columns(self, name: str, scores: Array, statistics: Statistics) -> dict[str, pa.Array]:
        """``T`` (a list) and ``T.probability.LABEL``."""
        p = self.probabilities(scores, statistics)
        by_label = {f"{name}.probability.{c}": pa.array(np.ascontiguousarray(p[:, i])) for i, c in enumerate(statistics["labels"])}
        return {name: self.predict(scores, statistics)} | by_label

    def metrics(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, float]:
        """Accuracy (the whole list right), macro F1, macro AUROC, mean log loss and ECE over labels, mean average precision."""
        kept = np.asarray(present, bool)
        s, given = as_scores(scores)[kept], np.asarray(values)[kept]
        truth, said, p = given[:, :-1] > 0, self._chosen(s, statistics), self.probabilities(s, statistics)
        areas = [measures.auroc(truth[:, i], p[:, i]) for i in range(truth.shape[1])]
        return {
            "accuracy": measures.mean(self._hits(given, said)),
            "macro_f1": measures.label_f1(truth, said),
            "auroc": _mean_defined(np.array(areas)),
            "log_loss": measures.mean(self._losses(s, truth, statistics)),
            "ece": measures.ece(p.ravel(), truth.ravel()),
            "map": _mean_defined(np.array([measures.average_precision(truth[:, i], p[:, i]) for i in range(truth.shape[1])])),
        }

    @staticmethod
    def _hits(values: Array, said: Array) -> Array:
        hits: Array = ((values[:, :-1] > 0) == said).all(1) & (values[:, -1] == 0)
        return hits

    def _losses(self, scores: Array, truth: Array, statistics: Statistics) -> Array:
        logits = self._logits(scores, statistics)
        losses: Array = -measures.log_sigmoid(np.where(truth, logits, -logits)).mean(1)
        return losses

    def row_losses(self, scores: Array, values: Array, statistics: Statistics) -> Array:
        """Mean binary cross-entropy over labels; infinite where a label is unseen."""
        given = np.asarray(values)
        result: Array = np.where(given[:, -1] > 0, np.inf, self._losses(scores, given[:, :-1] > 0, statistics))
        return result

    def resampled(self, scores: Array, values: Array, statistics: Statistics, rows: Array) -> dict[str, Array]:
        """Accuracy, macro F1, mean average precision."""
        given, said, p = np.asarray(values), self._chosen(scores, statistics), self.probabilities(scores, statistics)
        truth = given[:, :-1] > 0
        precision = np.stack([measures.average_precision(truth[:, i], p[:, i], rows) for i in range(truth.shape[1])], 1)
        known = ~np.isnan(precision)
        counted = known.sum(1)
        means = np.where(counted > 0, np.where(known, precision, 0.0).sum(1) / np.maximum(counted, 1), np.nan)
        return {"accuracy": measures.mean(self._hits(given, said), rows), "macro_f1": measures.label_f1(truth, said, rows), "map": means}


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _mean_defined(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _threshold(p: Array, truth: Array) -> float:
    """The threshold of largest F1, half-way between two probabilities; 0.5 where rows of either kind are few."""
    positives = int(truth.sum())
    if min(positives, len(truth) - positives) < _ENOUGH:
        return 0.5
    order = np.argsort(-p, kind="stable")
    sure, found = p[order], np.cumsum(truth[order])
    cut = np.append(sure[1:] < sure[:-1], True)
    f1 = np.where(cut, 2 * found / (np.arange(1, len(p) + 1) + positives), -1.0)
    best = int(f1.argmax())
    following = sure[best + 1] if best + 1 < len(sure) else 0.0
    return float((sure[best] + following) / 2)
