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


def decision_strength(log_p: Array, log_prior: Array, codes: Array, grid: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)) -> float:
    """How far to move decisions towards rare classes: a of ``argmax(log p - a log prior)`` (arXiv:2007.07314, section 4.1).

    Moving costs accuracy and gains balanced accuracy. The strength that gains most in the mean of the two is taken, and only when
    the gain is above its standard error; otherwise 0, which is the most probable class.

    Args:
        log_p: (N, K) calibrated log-probabilities of validation rows.
        log_prior: (K,) logarithms of the training classes' shares.
        codes: (N,) true classes.
        grid: the strengths that are tried.
    """
    n, counts = len(codes), np.bincount(codes, minlength=log_p.shape[1])
    if n == 0:
        return 0.0
    worth = 0.5 / n + 0.5 / (np.count_nonzero(counts) * counts[codes])
    hit = log_p.argmax(1) == codes
    best, best_gain = 0.0, 0.0
    for strength in grid:
        change = worth * (((log_p - strength * log_prior).argmax(1) == codes).astype(np.float64) - hit)
        gain, error = change.sum(), np.sqrt((change * change).sum())
        if gain > error and gain > best_gain + 1e-12:
            best, best_gain = strength, float(gain)
    return best
