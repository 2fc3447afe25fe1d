"""Randomness that depends on (seed, epoch, row, stream) and on nothing else.

A row's augmentation and source dropout are the same whatever the batch, the worker process or the rank it falls into.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function (Steele, Lea and Flood 2014): a bijection of 64-bit words that looks random."""
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _MIX1
        x = (x ^ (x >> np.uint64(27))) * _MIX2
        return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Draw:
    """The random numbers of some rows in one epoch.

    Attributes:
        seed: the run's seed.
        epoch: how often the rows have been visited before.
        rows: (B,) row indices in the table.
    """

    seed: int
    epoch: int
    rows: NDArray[np.int64]

    def _words(self, stream: str, n: int) -> NDArray[np.uint64]:
        start = mix64(np.array([self.seed & 0xFFFFFFFFFFFFFFFF], np.uint64) ^ np.uint64(zlib.crc32(stream.encode())))
        start = mix64(start ^ np.uint64(self.epoch))
        rows = mix64(self.rows.astype(np.uint64) ^ start)
        with np.errstate(over="ignore"):
            return mix64(rows[:, None] + mix64(np.arange(n, dtype=np.uint64))[None, :])

    def uniform(self, stream: str, n: int = 1) -> NDArray[np.float64]:
        """Numbers in [0, 1), shape (B, n); another ``stream`` gives independent ones."""
        return (self._words(stream, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, stream: str, n: int = 1) -> NDArray[np.float64]:
        """Standard normal numbers, shape (B, n), by ``sqrt(-2 log(1 - u)) cos(2 pi v)`` (Box and Muller 1958)."""
        u = self.uniform(stream, 2 * n)
        found: NDArray[np.float64] = np.sqrt(-2.0 * np.log1p(-u[:, :n])) * np.cos(2.0 * np.pi * u[:, n:])
        return found

    def generators(self, stream: str) -> list[np.random.Generator]:
        """One generator a row, for what needs an unknown number of random numbers."""
        return [np.random.Generator(np.random.PCG64(int(word))) for word in self._words(stream, 1)[:, 0]]

    def at(self, places: NDArray[np.int64]) -> Draw:
        """The draw of the rows at these places of the batch (repeats allowed)."""
        return Draw(self.seed, self.epoch, self.rows[places])
