"""Bootstrap confidence intervals, seeded and vectorised over resamples.

Letters: N rows, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: A chunk of resamples holds about this many numbers.
_CHUNK = 1 << 19


def percentile_intervals(
    statistic: Callable[[Array], dict[str, Array]],
    n: int,
    names: Sequence[str],
    *,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (Efron and Tibshirani 1993, chapter 13).

    Args:
        statistic: resamples (r, N) -> name -> (r,) values; NaN where a resample leaves it undefined.
        n: N.
        names: what to report.
        seed: of the resamples.
        replicates: R.
        level: the share of resamples inside.

    Returns:
        Name -> (low, high); NaN without rows or where no resample defines it.
    """
    if n == 0:
        return {name: (float("nan"), float("nan")) for name in names}
    parts: dict[str, list[Array]] = {name: [] for name in names}
    size = max(1, _CHUNK // n)
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, size):
        found = statistic(_draw(rng, n, min(size, replicates - start)))
        for name in names:
            parts[name].append(found[name])
    tail = (1 - level) / 2
    return {name: _quantiles(np.concatenate(values), tail) for name, values in parts.items()}


def _draw(rng: np.random.Generator, n: int, r: int) -> Array:
    drawn = rng.integers(0, n, (r, n)) + n * np.arange(r)[:, None]
    return np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)


def _quantiles(values: Array, tail: float) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """The difference of two systems on the same rows.

    Attributes:
        difference: mean of a minus mean of b.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: two-sided: twice the smaller share of resamples on either side of zero, ties on both, at most 1.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(correct_a: Array, correct_b: Array, *, seed: int = 0, replicates: int = 10_000, level: float = 0.95) -> Paired:
    """Compare two systems row by row: resample rows, keep pairs together (Koehn 2004).

    Args:
        correct_a: (N,) a's score on each row: hit or miss, or any number.
        correct_b: (N,) b's.
        seed: of the resamples.
        replicates: R.
        level: the share of resamples inside the interval.

    Raises:
        ValueError: there are no rows, or not equally many.
    """
    a, b = np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"a paired comparison needs two vectors over the same rows, got shapes {a.shape} and {b.shape}")
    gap, n = a - b, len(a)
    rng, size = np.random.default_rng(seed), max(1, _CHUNK // n)
    means = np.concatenate([gap[rng.integers(0, n, (min(size, replicates - s), n))].mean(1) for s in range(0, replicates, size)])
    low, high = _quantiles(means, (1 - level) / 2)
    p = 2 * min(float((means <= 0).mean()), float((means >= 0).mean()))
    return Paired(float(gap.mean()), low, high, min(1.0, p))
