"""Calibration on validation rows: one temperature, fitted by likelihood.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.tasks.measures import log_sigmoid, log_softmax

Array = NDArray[Any]
#: Temperatures are looked for between these.
LOWEST, HIGHEST = 0.05, 20.0
#: What accuracy counts against balanced accuracy when a decision is moved.
_ACCURACY = 2 / 3
#: The strengths that are tried, besides 0.
_STRENGTHS = tuple(i / 8 for i in range(1, 9))
_GOLDEN = (5**0.5 - 1) / 2


def minimise(loss: Callable[[float], float], low: float, high: float, steps: int = 80) -> float:
    """Golden-section search of a unimodal function (Kiefer 1953).

    Args:
        loss: the function.
        low: left end.
        high: right end.
        steps: each narrows the bracket by 0.618.
    """
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(steps):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = loss(b)
    return (low + high) / 2


def _fit(mean_loss: Callable[[float], float], n: int) -> float:
    """The temperature of least penalised loss; 1 unless that is better.

    The penalty ``(log T)^2 / n`` is a normal prior on log T: with few rows, all of them right, likelihood alone would say 'certain'.
    It is zero at 1, so the loss itself never grows.
    """
    if n == 0:
        return 1.0

    def penalised(log_t: float) -> float:
        return mean_loss(float(np.exp(log_t))) + log_t * log_t / n

    best = minimise(penalised, float(np.log(LOWEST)), float(np.log(HIGHEST)))
    return float(np.exp(best)) if mean_loss(float(np.exp(best))) < mean_loss(1.0) else 1.0


def temperature(logits: Array, codes: Array) -> float:
    """T of ``softmax(logits / T)`` by likelihood. Source: arXiv:1706.04599, section 4.2; it never changes which class is largest.

    Args:
        logits: (N, K) of rows whose class is known.
        codes: (N,) their classes.
    """
    place = np.arange(len(codes))
    return _fit(lambda t: float(-log_softmax(logits / t)[place, codes].mean()), len(codes))


def binary_temperature(logits: Array, truth: Array) -> float:
    """T of ``sigmoid(logits / T)`` by likelihood; logits and truth (N,)."""
    signed = np.where(truth > 0, logits, -logits)
    return _fit(lambda t: float(-log_sigmoid(signed / t).mean()), len(signed))


def decision_strength(log_p: Array, log_prior: Array) -> float:
    """How far to move decisions towards rare classes: a of ``argmax(log p - a log prior)`` (arXiv:2007.07314, section 4.1).

    Moving costs accuracy and gains balanced accuracy; the strength with the best mean of the two is taken, accuracy counting twice (of
    the weights tried this gave the best macro F1). Both are computed as the calibrated probabilities expect them,
    ``sum_i p_i[d_i] / N`` and ``1 / K sum_k sum_(i: d_i = k) p_ik / sum_i p_ik``, which is far steadier than counting hits among the
    few rows of a rare class.

    Args:
        log_p: (N, K) calibrated log-probabilities of validation rows.
        log_prior: (K,) logarithms of the training classes' shares.
    """
    n = len(log_p)
    if n == 0:
        return 0.0
    p, rows = np.exp(log_p), np.arange(n)
    worth = _ACCURACY / n + (1 - _ACCURACY) / (p.shape[1] * np.maximum(p.sum(0), 1e-12))
    values = {a: float((p * worth)[rows, (log_p - a * log_prior).argmax(1)].sum()) for a in (0.0, *_STRENGTHS)}
    return max(values, key=lambda a: (round(values[a], 9), -a))
