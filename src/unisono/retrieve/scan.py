"""A copy of a gallery for a fast first look: its vectors less a centre, in bfloat16, with what that rounding costs each row.

For a query ``q`` the order of ``q . v`` over rows is that of ``q . (v - c)`` for any fixed ``c``. With the mean as ``c`` the numbers to be
rounded are small where vectors crowd around one direction, and so is the error of rounding.

Letters: N rows, E dimensions of a vector, C rows in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.errors import ShapeError

CHUNK = 16_384
#: Bounds are computed in float64 and kept in float32: this much is added so that rounding never makes one too small.
SLACK = 1.0 + 1e-5

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """How vectors are moved before they are rounded: ``scale * (v - centre)``.

    Attributes:
        centre: (E,) float32.
        scale: a power of two that brings the longest vector to a length of about 1, so that neither tiny nor huge vectors leave the range.
    """

    centre: Float
    scale: float

    @classmethod
    def of(cls, vectors: Any, present: NDArray[np.bool_] | None = None) -> Frame:
        """The mean of the present vectors, and their scale.

        Args:
            vectors: (N, E) float32, memory-mapped or not; it is read once, in chunks.
            present: (N,) which rows count; None for all.
        """
        total, longest, count = np.zeros(vectors.shape[1]), 0.0, 0
        for begin, part in chunks(vectors):
            if present is not None:
                part = part[present[begin : begin + len(part)]]
            total += part.sum(0)
            count += len(part)
            longest = max(longest, float(np.sqrt(np.einsum("ce,ce->c", part, part)).max(initial=0.0)))
        centre = (total / max(count, 1)).astype(np.float32)
        return cls(centre, power_of_two(longest))

    @property
    def plain(self) -> bool:
        """Whether the scale changes nothing."""
        return self.scale == 1.0


def power_of_two(length: float) -> float:
    """The power of two that brings a length into [0.5, 1); 1 for a length of zero, and for one that is in (0.25, 2) already."""
    if length == 0 or 0.25 < length < 2:
        return 1.0
    return float(2.0 ** -np.frexp(length)[1])


def chunks(vectors: Any, size: int = CHUNK) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Rows (C, E) in float64, chunk by chunk, each with the number of its first row.

    Raises:
        ShapeError: a vector holds a number that is not finite.
    """
    for begin in range(0, len(vectors), size):
        part = np.asarray(vectors[begin : begin + size], np.float64)
        if not np.isfinite(part).all():
            row = begin + int(np.flatnonzero(~np.isfinite(part).all(1))[0])
            raise ShapeError(f"the vector of row {row} holds a number that is not finite")
        yield begin, part


def round_rows(part_CE: NDArray[np.float64], frame: Frame) -> tuple[NDArray[np.uint16], Float]:
    """Round rows to bfloat16 and measure what is lost.

    Args:
        part_CE: vectors.
        frame: how they are moved.

    Returns:
        (C, E) the bits of ``w = bf16(scale * (v - centre))``, and (C, 3) in units of the scale: ``|scale * (v - centre) - w|``,
        ``|w|`` and ``|scale * v|``, each rounded up.
    """
    moved = (part_CE - frame.centre.astype(np.float64)) * frame.scale
    rounded = torch.from_numpy(moved).to(torch.float32).to(torch.bfloat16)
    kept = rounded.to(torch.float64).numpy()
    lengths = [np.sqrt(np.einsum("ce,ce->c", x, x)) for x in (moved - kept, kept, part_CE * frame.scale)]
    return rounded.view(torch.int16).numpy().view(np.uint16), (np.stack(lengths, 1) * SLACK).astype(np.float32)


@dataclass(frozen=True)
class Gallery:
    """Vectors to search, with their copy for a first look.

    Attributes:
        vectors: (N, E) float32.
        low: (N, E) uint16, the bits of the bfloat16 copy; None to do without.
        bounds: (N, 3) float32, see ``round_rows``.
        frame: what the copy was made with.
    """

    vectors: Any
    low: Any | None
    bounds: Float
    frame: Frame

    @classmethod
    def of(cls, vectors: Any) -> Gallery:
        """A gallery in memory.

        Args:
            vectors: (N, E) float32.

        Raises:
            ShapeError: not a matrix of float32, or a number that is not finite.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShapeError(f"a gallery is a matrix of float32, got {vectors.dtype} of shape {vectors.shape}")
        frame = Frame.of(vectors)
        low, bounds = np.empty(vectors.shape, np.uint16), np.empty((len(vectors), 3), np.float32)
        for begin, part in chunks(vectors):
            low[begin : begin + len(part)], bounds[begin : begin + len(part)] = round_rows(part, frame)
        return cls(vectors, low, bounds, frame)

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, chosen: NDArray[np.int64]) -> Gallery:
        """Some rows as a gallery of their own, in memory and without the copy."""
        return Gallery(np.asarray(self.vectors[chosen]), None, self.bounds[chosen], self.frame)

    def low_block(self, begin: int, end: int) -> Tensor:
        """Rows of the copy as bfloat16."""
        assert self.low is not None
        return torch.from_numpy(self.low[begin:end].view(np.int16)).view(torch.bfloat16)

    def block(self, begin: int, end: int, dtype: torch.dtype) -> Tensor:
        """Rows of the vectors themselves, scaled, in the given precision."""
        part = torch.from_numpy(np.asarray(self.vectors[begin:end]))
        if dtype == torch.float32 and self.frame.plain:
            return part
        return (part.to(torch.float64) * self.frame.scale).to(dtype)


def mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The first rows of a raw file, memory-mapped; writing to the array changes no file (an empty array where there are no rows)."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="c", shape=shape)
