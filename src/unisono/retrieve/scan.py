"""Copies of a gallery for a fast first look: its vectors less a centre, in bfloat16 and in int8, with what rounding costs each row.

For a query ``q`` the order of ``q . v`` over rows is that of ``q . (v - c)`` for any fixed ``c``. With the mean as ``c`` the numbers to be
rounded are small where vectors crowd around one direction, and so is the error of rounding.

Letters: N rows, E dimensions of a vector, C rows in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.errors import ShapeError

#: Numbers in a chunk.
CHUNK = 1 << 19
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


def rows_in_chunk(size: int) -> int:
    """C for vectors of E numbers: what is made of a chunk stays in the processor's cache."""
    return max(1, CHUNK // max(1, size))


def chunks(vectors: Any) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Rows (C, E) in float64, chunk by chunk, each with the number of its first row.

    Raises:
        ShapeError: a vector holds a number that is not finite.
    """
    size = rows_in_chunk(vectors.shape[1])
    for begin in range(0, len(vectors), size):
        part = np.asarray(vectors[begin : begin + size], np.float64)
        if not np.isfinite(part).all():
            row = begin + int(np.flatnonzero(~np.isfinite(part).all(1))[0])
            raise ShapeError(f"the vector of row {row} holds a number that is not finite")
        yield begin, part


@dataclass(frozen=True)
class Copies:
    """Rows rounded, and what is lost.

    Attributes:
        low: (C, E) uint16, the bits of ``w = bf16(u)`` for ``u = scale * (v - centre)``.
        coarse: (C, E) int8, ``z = round(u / step)``, where a row's step is a 127th of its largest number.
        bounds: (C, 5) float32: ``|u - w|``, ``|w|``, ``|scale * v|`` and ``|u - step * z|``, each rounded up, and the step.
    """

    low: NDArray[np.uint16]
    coarse: NDArray[np.int8]
    bounds: Float

    @classmethod
    def of(cls, part_CE: NDArray[np.float64], frame: Frame) -> Copies:
        """Round rows.

        Args:
            part_CE: vectors.
            frame: how they are moved.
        """
        moved = (part_CE - frame.centre.astype(np.float64)) * frame.scale
        rounded = torch.from_numpy(moved).to(torch.float32).to(torch.bfloat16)
        kept = rounded.to(torch.float64).numpy()
        steps, digits = digits_of(moved)
        parts = (moved - kept, kept, part_CE * frame.scale, moved - steps[:, None] * digits)
        lengths = [np.sqrt(np.einsum("ce,ce->c", x, x)) * SLACK for x in parts]
        bounds = np.stack([*lengths, steps], 1).astype(np.float32)
        return cls(rounded.view(torch.int16).numpy().view(np.uint16), digits.astype(np.int8), bounds)


def digits_of(values_CE: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whole numbers within 127 of each row, and the step (C,), a float32, by which they stand for it."""
    steps = (np.abs(values_CE).max(1, initial=0.0) / 127).astype(np.float32).astype(np.float64)
    return steps, np.clip(np.rint(values_CE / np.where(steps > 0, steps, 1.0)[:, None]), -127, 127) * (steps > 0)[:, None]


@dataclass(frozen=True)
class Gallery:
    """Vectors to search, with their copies for a first look.

    Attributes:
        vectors: (N, E) float32.
        low: (N, E) uint16, the bits of the bfloat16 copy; None to do without.
        coarse: (N, E) int8; None to do without.
        bounds: (N, 5) float32, see ``Copies``.
        frame: what the copies were made with.
    """

    vectors: Any
    low: Any | None
    coarse: Any | None
    bounds: Float
    frame: Frame
    _groups: dict[int, Float] = field(default_factory=dict, repr=False, compare=False)

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
        low, coarse = np.empty(vectors.shape, np.uint16), np.empty(vectors.shape, np.int8)
        bounds = np.empty((len(vectors), 5), np.float32)
        for begin, part in chunks(vectors):
            copies, place = Copies.of(part, frame), slice(begin, begin + len(part))
            low[place], coarse[place], bounds[place] = copies.low, copies.coarse, copies.bounds
        return cls(vectors, low, coarse, bounds, frame)

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, chosen: NDArray[np.int64]) -> Gallery:
        """Some rows as a gallery of their own, in memory and without copies."""
        return Gallery(np.asarray(self.vectors[chosen]), None, None, self.bounds[chosen], self.frame)

    def grouped(self, group: int) -> Float:
        """(M, 5) the largest bounds of each group of rows."""
        if group not in self._groups:
            starts = np.arange(0, len(self.bounds), group)
            self._groups[group] = np.maximum.reduceat(self.bounds, starts) if group > 1 else self.bounds
        return self._groups[group]

    @cached_property
    def steps(self) -> Tensor:
        """(N,) the steps of the int8 copy."""
        return torch.from_numpy(np.ascontiguousarray(self.bounds[:, 4]))

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
