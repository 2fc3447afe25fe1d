"""Plain data for a report: confusion, reliability, residuals.

Letters: N rows, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.tasks import measures
from unisono.tasks.base import Statistics
from unisono.tasks.category import Category
from unisono.tasks.labels import Labels
from unisono.tasks.number import Number

Array = NDArray[Any]
#: The class that stands for those training never saw.
UNSEEN = "(unseen)"


def confusion(task: Category, scores: Array, values: Array, present: Array, statistics: Statistics, limit: int = 30) -> dict[str, Any]:
    """The confusion matrix.

    Args:
        task: a category or boolean task.
        scores: (N, K).
        values: class codes.
        present: (N,) bool.
        statistics: the task's.
        limit: classes beyond this many most frequent ones (in these rows) are put together as ``(other)``.

    Returns:
        ``truths`` and ``answers``: names of rows and columns; ``counts``: rows by truth, columns by answer. A row ``(unseen)`` is there
        if such classes occur.
    """
    kept = np.asarray(present, bool)
    truth, said = np.asarray(values)[kept].astype(np.int64), task.codes(np.asarray(scores)[kept], statistics)
    names, k = list(statistics["classes"]), len(statistics["classes"])
    if k > limit:
        frequent = np.sort(np.argsort(-np.bincount(truth[truth >= 0], minlength=k), kind="stable")[:limit])
        moved = np.full(k, limit)
        moved[frequent] = np.arange(limit)
        truth, said = np.where(truth >= 0, moved[np.maximum(truth, 0)], -1), moved[said]
        names, k = [names[i] for i in frequent] + ["(other)"], limit + 1
    unseen = bool((truth < 0).any())
    counts = np.zeros((k + unseen, k), np.int64)
    np.add.at(counts, (np.where(truth < 0, k, truth), said), 1)
    return {"truths": names + [UNSEEN] * unseen, "answers": names, "counts": counts.tolist()}


def reliability(
    task: Category | Labels, scores: Array, values: Array, present: Array, statistics: Statistics, bins: int = 15
) -> list[dict[str, float | None]]:
    """How often answers of each confidence are right: of categories the answered class, of labels every label of every row.

    Returns:
        For each bin ``low, high, count, confidence, accuracy``; the last two are None where the bin is empty.
    """
    kept = np.asarray(present, bool)
    s, v = np.asarray(scores)[kept], np.asarray(values)[kept]
    p = task.probabilities(s, statistics)
    if isinstance(task, Labels):
        sure, right = p.ravel(), (v[:, :-1] > 0).ravel()
    else:
        said = task.codes(s, statistics)
        sure, right = p[np.arange(len(said)), said], said == v
    table = measures.reliability(sure, right, bins)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "count": float(n),
            "confidence": float(c) if n else None,
            "accuracy": float(a) if n else None,
        }
        for b, (n, c, a) in enumerate(table)
    ]


def residuals(
    task: Number, scores: Array, values: Array, present: Array, statistics: Statistics, *, points: int = 1000, bins: int = 20, seed: int = 0
) -> dict[str, Any]:
    """Truths, answers and the distribution of their differences, in the column's own units.

    Args:
        task: a number task.
        scores: (N, K).
        values: encoded targets.
        present: (N,) bool.
        statistics: the task's.
        points: at most this many rows, a seeded sample in table order.
        bins: of the histogram.
        seed: of the sample.

    Returns:
        ``rows`` (places), ``truth``, ``answer``, and ``edges`` and ``counts`` of the residuals ``answer - truth`` of all rows.
    """
    places = np.flatnonzero(present)
    truth = task.decode_values(np.asarray(values)[places], statistics).to_numpy()
    answer = task.predict(np.asarray(scores)[places], statistics).to_numpy()
    counts, edges = _histogram(answer - truth, bins) if len(places) else (np.zeros(0), np.zeros(0))
    chosen = np.arange(len(places))
    if len(places) > points:
        chosen = np.sort(np.random.default_rng(seed).choice(len(places), points, replace=False))
    return {
        "rows": places[chosen].tolist(),
        "truth": truth[chosen].tolist(),
        "answer": answer[chosen].tolist(),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _histogram(values: Array, bins: int) -> tuple[Array, Array]:
    """Counts and edges; a range too narrow to divide is widened."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high), 1e-300)
    if high - low < 1e-9 * size:
        low, high = low - 0.5 * size, high + 0.5 * size
    counts, edges = np.histogram(values, bins, (low, high))
    return counts, edges
