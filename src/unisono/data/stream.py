"""Random draws that depend on (seed, row, purpose) only and are the same on every machine.

Only the raw 64-bit words of the Philox counter generator are used (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"): their sequence is fixed for good, while NumPy may change how its distributions consume them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
_WORD = (1 << 64) - 1
_OCTET_SUM_SD = (4 * 65535 / 12) ** 0.5  # standard deviation of a sum of four uniform octets


class Stream:
    """A stream of draws for one row and one purpose.

    Args:
        seed: the world's seed, any integer.
        row: the row's number.
        purpose: a small number that keeps the streams of one row apart.
    """

    def __init__(self, seed: int, row: int, purpose: int) -> None:
        key = np.array([seed & _WORD, row & _WORD], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], dtype=np.uint64))
        self._words: list[int] = []

    def word(self) -> int:
        """Draw 64 random bits."""
        if not self._words:
            self._words = self._bits.random_raw(64).tolist()
            self._words.reverse()
        return self._words.pop()

    def below(self, n: int) -> int:
        """Draw an integer in [0, n), n below 2**32 (bias under n / 2**32)."""
        return ((self.word() >> 32) * n) >> 32

    def unit(self) -> float:
        """Draw a number in [0, 1)."""
        return (self.word() >> 11) * 2.0**-53

    def chance(self, probability: float) -> bool:
        """Say yes with the given probability."""
        return self.unit() < probability

    def choice(self, items: Sequence[T]) -> T:
        """Draw one of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Draw ``count`` different places of ``items``, in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def bell(self) -> float:
        """Draw from a distribution of mean 0 and variance 1, nearly normal (a sum of twelve uniform draws)."""
        return sum(self.unit() for _ in range(12)) - 6.0

    def bells(self, count: int) -> NDArray[np.float32]:
        """Draw ``count`` numbers of mean 0 and variance 1, nearly normal (each a sum of four octets)."""
        octets = self._bits.random_raw((count + 1) // 2).astype("<u8").view(np.uint8)[: 4 * count].reshape(count, 4)
        pairs = octets.astype(np.uint16)
        sums = (pairs[:, 0] + pairs[:, 1]) + (pairs[:, 2] + pairs[:, 3])
        return (sums.astype(np.float32) - np.float32(510)) * np.float32(1 / _OCTET_SUM_SD)
