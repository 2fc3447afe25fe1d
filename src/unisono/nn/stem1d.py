"""Convolutional stems along time for packed ragged signals: all cells on one line, with gaps that stay zero.

A convolution on the line equals one on each cell alone with zero padding, as long as gaps are at least as wide as the kernel reaches and
are set to zero before every convolution. Cells begin at multiples of the total stride, so that strides fall on the same places
whatever stands before them.

Letters: C cells, L places on the line, M bands or channels, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn


@dataclass(frozen=True)
class Line:
    """How C cells of different lengths lie on one line.

    Attributes:
        starts: (C,) first place of each cell, a multiple of the stride.
        counts: (C,) places of each cell.
        length: L, a multiple of the stride.
        stride: the stem's total stride.
    """

    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    length: int
    stride: int

    @classmethod
    def of(cls, counts: NDArray[np.int64], stride: int, gap: int) -> Line:
        """Lay cells of these lengths out with at least ``gap`` free places around each."""
        room = -(-(counts + gap) // stride) * stride
        lead = -(-gap // stride) * stride
        starts = lead + np.cumsum(room) - room
        return cls(starts, counts, int(lead + room.sum()), stride)

    @property
    def places(self) -> NDArray[np.int64]:
        """Where each cell's places lie on the line, cell after cell."""
        return _ranges(self.starts, self.counts)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """(C,) outputs of each cell after the total stride."""
        return -(-self.counts // self.stride)

    @property
    def outputs(self) -> NDArray[np.int64]:
        """Where each cell's outputs lie on the strided line, cell after cell."""
        return _ranges(self.starts // self.stride, self.tokens)

    def lay(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put (sum of counts, M) values on the line: (L, M), zero in the gaps."""
        line = np.zeros((self.length, *values.shape[1:]), np.float32)
        line[self.places] = values
        return line

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(L,) true where a cell is."""
        mask = np.zeros(self.length, np.bool_)
        mask[self.places] = True
        return mask


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.cumsum(counts)
    return np.asarray(np.arange(total[-1] if len(total) else 0) + np.repeat(starts - (total - counts), counts), np.int64)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels at each place of a (1, C, ...) map."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (1, C, ...)."""
        return fn.layer_norm(x.movedim(1, -1), (x.shape[1],), self.weight, self.bias).movedim(-1, 1)


class SpectrogramStem(nn.Module):
    """Two-dimensional convolutions over time and frequency, halving both each time, then one linear map over all bands.

    Args:
        bands: M.
        channels: of each convolution; the total time stride is 2 ** (len(channels) - 1), the last convolution keeps time.
        width: D.
        inputs: maps that come in.
    """

    def __init__(self, *, bands: int, channels: tuple[int, ...], width: int, inputs: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        last, height = inputs, bands
        for k, c in enumerate(channels):
            kernel, stride = 5 if k == 0 else 3, 1 if k == len(channels) - 1 else 2
            self.convs.append(nn.Conv2d(last, c, kernel, (stride, 2), kernel // 2))
            self.norms.append(ChannelNorm(channels=c))
            last, height = c, -(-height // 2)
        self.out = nn.Linear(last * height, width)

    def forward(self, line: Tensor, mask: Tensor, outputs: Tensor) -> Tensor:
        """Stem values.

        Args:
            line: (inputs, L, M) with zeros in the gaps.
            mask: (L,) true where a cell is.
            outputs: (T,) places on the strided line.

        Returns:
            (T, D).
        """
        x = line[None].contiguous(memory_format=torch.channels_last)
        keep = mask.to(x.dtype)[None, None, :, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = fn.gelu(norm(conv(x)))
            if x.shape[2] < keep.shape[2]:
                keep = fn.max_pool2d(keep, (2, 1))
            x = x * keep
        return self.out(x[0].permute(1, 0, 2)[outputs].flatten(1))  # type: ignore[no-any-return]
