"""Fixed convolution kernels pooled by the proportion of positive values: features of a series that a linear map can read.

Source: MiniRocket, arXiv:2012.08791. Kernels have nine taps, three of weight 2 and six of weight -1 (84 ways), at several dilations; a
feature is the share of places at which kernel * series > bias, biases being quantiles over training series. Here several channels
are summed over a subset that is drawn by a fixed seed for each kernel and dilation.

Letters: B series, N places, C channels, P dilations, Q biases for each kernel and dilation, K = 84 kernels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TAPS = 9
_TRIPLES = np.array(list(itertools.combinations(range(TAPS), 3)))
NUM_KERNELS = len(_TRIPLES)
_GOLDEN = 0.6180339887498949


@functools.lru_cache(maxsize=1)
def kernel_weights() -> Floats:
    """(84, 9): every kernel."""
    weights = np.full((NUM_KERNELS, TAPS), -1.0, np.float32)
    np.put_along_axis(weights, _TRIPLES, 2.0, 1)
    return weights


def dilations(length: int, most: int = 16) -> list[int]:
    """Up to ``most`` dilations, evenly spaced in their logarithm, of kernels that fit into ``length`` places."""
    top = np.log2(max((length - 1) / (TAPS - 1), 1.0))
    return sorted({int(2**e) for e in np.linspace(0, top, most)})


def channel_masks(channels: int, count: int, seed: int = 0) -> Floats:
    """(count, 84, C) zeros and ones: the channels that each kernel sums at each dilation; at least one, sizes spread in their logarithm."""
    if channels == 1:
        return np.ones((count, NUM_KERNELS, 1), np.float32)
    rng = np.random.Generator(np.random.PCG64(seed))
    size = np.floor(2 ** rng.uniform(0, np.log2(min(channels, TAPS) + 1), (count, NUM_KERNELS, 1)))
    rank = rng.random((count, NUM_KERNELS, channels)).argsort(2).argsort(2)
    return np.asarray(rank < size, np.float32)


def convolve(series: Floats, dilation: int, mask: Floats) -> Floats:
    """All kernels over one series with zeros outside.

    Args:
        series: (N, C).
        dilation: places from tap to tap.
        mask: (84, C) channels summed.

    Returns:
        (84, N).
    """
    n, channels = series.shape
    reach = dilation * (TAPS // 2)
    padded = np.zeros((channels, n + 2 * reach), np.float32)
    padded[:, reach : reach + n] = series.T
    taps = np.stack([padded[:, k * dilation : k * dilation + n] for k in range(TAPS)], 1)
    if channels == 1:
        return np.asarray(kernel_weights() @ taps[0], np.float32)
    mixed = (mask[:, :, None] * kernel_weights()[:, None, :]).reshape(NUM_KERNELS, -1)
    return np.asarray(mixed @ taps.reshape(-1, n), np.float32)


def fit_biases(series: Sequence[Floats], steps: Sequence[int], each: int, channels: int) -> Floats:
    """(P, 84, Q) biases: low-discrepancy quantiles of each kernel's output over up to 32 training series."""
    masks = channel_masks(channels, len(steps))
    chosen = [series[i] for i in np.unique(np.linspace(0, len(series) - 1, min(len(series), 32)).astype(int))]
    found = np.zeros((len(steps), NUM_KERNELS, each), np.float32)
    order = np.arange(NUM_KERNELS * each).reshape(NUM_KERNELS, each)
    for p, step in enumerate(steps):
        output = np.sort(np.concatenate([convolve(s, step, masks[p]) for s in chosen], 1), 1)
        quantile = ((order + p * NUM_KERNELS * each + 1) * _GOLDEN) % 1.0
        found[p] = np.take_along_axis(output, (quantile * (output.shape[1] - 1)).astype(np.int64), 1)
    return found


def positive_shares(series: Sequence[Floats], steps: Sequence[int], biases: Floats) -> Floats:
    """The features: (B, P * 84 * Q), the share of places above each bias."""
    channels = series[0].shape[1] if series else 1
    masks = channel_masks(channels, len(steps))
    found = np.zeros((len(series), *biases.shape), np.float32)
    for b, s in enumerate(series):
        for p, step in enumerate(steps):
            output = convolve(s, step, masks[p])
            for q in range(biases.shape[2]):
                found[b, p, :, q] = np.count_nonzero(output > biases[p, :, q, None], axis=1) / output.shape[1]
    return found.reshape(len(series), biases.size)
