"""Metrics as pure functions of arrays. What the rows leave undefined is NaN, never an error.

Letters: N rows, K classes or labels, R resamples.

Class codes are 0..K-1; -1 is a class that training never saw: a class of its own that no prediction can hit.
Every function takes optional row weights ``w`` (R, N) (how often a row is drawn) and then gives (R,), so that a bootstrap is one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def log_softmax(logits: Array) -> Array:
    """``x - log sum exp x`` along the last axis, in float64; safe for scores of any size."""
    wide = np.asarray(logits, np.float64)
    shifted = wide - wide.max(-1, keepdims=True, initial=-np.inf)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def log_sigmoid(logits: Array) -> Array:
    """``-log(1 + exp(-x))`` in float64."""
    result: Array = -np.logaddexp(0.0, -np.asarray(logits, np.float64))
    return result


def _rows(w: Array | None, n: int) -> Array:
    return np.ones((1, n)) if w is None else np.asarray(w, np.float64)


def _out(value: Array, w: Array | None) -> Any:
    return float(value[0]) if w is None else value


def _ratio(top: Array, bottom: Array) -> Array:
    """``top / bottom``, NaN where the bottom is zero."""
    result: Array = np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, np.nan), where=bottom > 0)
    return result


def mean(values: Array, w: Array | None = None) -> Any:
    """The (weighted) mean over rows; NaN without rows."""
    rows = _rows(w, len(values))
    return _out(_ratio(rows @ np.asarray(values, np.float64), rows.sum(1)), w)


def accuracy(truth: Array, predicted: Array, w: Array | None = None) -> Any:
    """The share of rows whose class was hit."""
    return mean(truth == predicted, w)


def _per_class(truth: Array, predicted: Array, num_classes: int, w: Array | None) -> tuple[Array, Array, Array]:
    """Hits, rows and predictions of each class, (R, K + 1) each; the last class is the unseen one."""
    rows, n = _rows(w, len(truth)), len(truth)
    actual, said = np.zeros((n, num_classes + 1)), np.zeros((n, num_classes + 1))
    actual[np.arange(n), truth] = 1.0
    said[np.arange(n), predicted] = 1.0
    return rows @ (actual * said), rows @ actual, rows @ said


def _finite_mean(values: Array) -> Array:
    """Mean along the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def balanced_accuracy(truth: Array, predicted: Array, num_classes: int, w: Array | None = None) -> Any:
    """The mean over classes that occur of the share of their rows that was hit."""
    hits, actual, _ = _per_class(truth, predicted, num_classes, w)
    return _out(_finite_mean(_ratio(hits, actual)), w)


def macro_f1(truth: Array, predicted: Array, num_classes: int, w: Array | None = None) -> Any:
    """The mean over classes that occur or are predicted of ``2 hits / (rows + predictions)``."""
    hits, actual, said = _per_class(truth, predicted, num_classes, w)
    return _out(_finite_mean(_ratio(2 * hits, actual + said)), w)


def label_f1(truth: Array, predicted: Array, w: Array | None = None) -> Any:
    """Macro F1 of several labels: truth and predicted (N, K) of 0 and 1; labels neither present nor predicted are left out."""
    rows = _rows(w, len(truth))
    both = rows @ (truth * predicted).astype(np.float64)
    return _out(_finite_mean(_ratio(2 * both, rows @ truth.astype(np.float64) + rows @ predicted.astype(np.float64))), w)


def _tie_ends(ordered: Array) -> Array:
    """For each place of a sorted array the last place of the same value."""
    n = len(ordered)
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if n else np.zeros(0, np.int64)
    group = np.cumsum(np.append(0, ordered[1:] != ordered[:-1])) if n else np.zeros(0, np.int64)
    result: Array = last[group]
    return result


def auroc(positive: Array, scores: Array, w: Array | None = None) -> Any:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half (Mann-Whitney).

    Args:
        positive: (N,) bool.
        scores: (N,).
        w: row weights (R, N).

    Returns:
        The area; NaN where either kind of row is absent.
    """
    order = np.argsort(scores, kind="stable")
    rows, hit = _rows(w, len(scores))[:, order], np.asarray(positive, bool)[order]
    below = np.cumsum(rows * ~hit, 1)
    ends = _tie_ends(np.asarray(scores)[order])
    upto = below[:, ends]
    starts = np.concatenate([[True], ends[1:] != ends[:-1]]) if len(ends) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(starts, np.arange(len(ends)), 0)) if len(ends) else np.zeros(0, np.int64)
    before = np.where(first > 0, below[:, np.maximum(first - 1, 0)], 0.0)
    wins = (rows * hit * (before + upto) / 2).sum(1)
    return _out(_ratio(wins, (rows * hit).sum(1) * (rows * ~hit).sum(1)), w)


def average_precision(positive: Array, scores: Array, w: Array | None = None) -> Any:
    """``sum_n (R_n - R_(n-1)) P_n`` over thresholds; rows of one score enter together. NaN without a positive.

    Args:
        positive: (N,) bool.
        scores: (N,).
        w: row weights (R, N).
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    rows, hit = _rows(w, len(scores))[:, order], np.asarray(positive, bool)[order]
    ends = _tie_ends(np.asarray(scores)[order])
    found, seen = np.cumsum(rows * hit, 1)[:, ends], np.cumsum(rows, 1)[:, ends]
    precision = np.nan_to_num(_ratio(found, seen))
    return _out(_ratio((rows * hit * precision).sum(1), (rows * hit).sum(1)), w)


def class_auroc(truth: Array, probabilities: Array) -> float:
    """Of two classes the area for the second; of more the mean over classes, each against the rest, where it is defined."""
    k = probabilities.shape[1]
    if k == 2:
        return float(auroc(truth == 1, probabilities[:, 1]))
    return float(_finite_mean(np.array([auroc(truth == c, probabilities[:, c]) for c in range(k)])))


def reliability(confidence: Array, correct: Array, bins: int = 15) -> Array:
    """Rows by confidence in equal bins of [0, 1]: (bins, 3), how many, their mean confidence, the share correct (NaN if none)."""
    place = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    sure = _ratio(np.bincount(place, confidence, bins), count)
    right = _ratio(np.bincount(place, np.asarray(correct, np.float64), bins), count)
    return np.stack([count, sure, right], 1)


def ece(confidence: Array, correct: Array, bins: int = 15) -> float:
    """Expected calibration error: ``sum_b n_b / N |confidence_b - accuracy_b|`` over 15 equal bins (arXiv:1706.04599, eq. 3)."""
    table = reliability(confidence, correct, bins)
    n = table[:, 0].sum()
    return float((table[:, 0] * np.nan_to_num(np.abs(table[:, 1] - table[:, 2]))).sum() / n) if n else float("nan")


def r2(truth: Array, predicted: Array, w: Array | None = None) -> Any:
    """``1 - sum (t - p)^2 / sum (t - mean t)^2``; NaN where the truths are all equal."""
    rows, t, p = _rows(w, len(truth)), np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if not len(t):
        return _out(np.full(len(rows), np.nan), w)
    t, p = t - t.mean(), p - t.mean()
    total = rows.sum(1)
    spread = rows @ (t * t) - _ratio((rows @ t) ** 2, total)
    constant = spread <= 1e-12 * (rows @ (t * t)) + np.finfo(np.float64).tiny
    return _out(np.where(constant, np.nan, 1 - _ratio(rows @ ((t - p) ** 2), np.where(constant, 1.0, spread))), w)


def rmse(truth: Array, predicted: Array, w: Array | None = None) -> Any:
    """Root of the mean squared error."""
    result = np.sqrt(mean((np.asarray(truth, np.float64) - predicted) ** 2, w))
    return float(result) if w is None else result


def mae(truth: Array, predicted: Array, w: Array | None = None) -> Any:
    """Mean absolute error."""
    return mean(np.abs(np.asarray(truth, np.float64) - predicted), w)


def mean_iou(truth: Array, predicted: Array, num_classes: int) -> float:
    """The mean over classes that occur or are predicted of ``hits / (pixels + predictions - hits)``; pixels of no class do not count.

    Args:
        truth: class of each pixel, below 0 for none.
        predicted: what was said of it.
        num_classes: K.
    """
    known = np.asarray(truth) >= 0
    pairs = np.asarray(truth)[known].astype(np.int64) * num_classes + np.asarray(predicted)[known].astype(np.int64)
    table = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hits = np.diagonal(table).astype(np.float64)
    return float(_finite_mean(_ratio(hits, table.sum(0) + table.sum(1) - hits)))
