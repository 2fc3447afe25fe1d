"""What the tokenisers of pictures, frames and cubes share: the common size, fitted statistics, augmentation, normalised pixels.

Letters: N pictures, H height, W width, C channels, h and w grid height and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.modalities.base import Cells, Items, Packed, Tokeniser
from unisono.nn.stem import halvings


class GridTokeniser(Tokeniser):
    """A tokeniser of pictures that are brought to one size and cut into a grid.

    Attributes:
        size: the longest side in pixels; None where ``largest`` chooses it.
        grid: at most so many tokens along a side.
        augment: strength of the random changes in training; 0 for none.
        flips: mirror left and right in training.
    """

    size: int | None
    grid: int
    augment: float
    flips: bool

    def wants(self, column: Column) -> Mapping[str, Any]:
        """The size that pictures are brought to."""
        return {"size": tuple(column.statistics["size"])} if "size" in column.statistics else {}

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """``size`` (height, width), ``channels``, and ``mean`` and ``std`` of each channel."""
        found = pixels.PixelFit()
        for cells in chunks:
            for item in Items.of(column, cells).arrays:
                found.add(self.array_of(item))
        return found.statistics(self.largest(len(found.sizes)))

    def largest(self, count: int) -> int:
        """The longest side for a column of so many training pictures."""
        assert self.size is not None
        return self.size

    def array_of(self, item: Any) -> pixels.Pixels:
        """The values (..., H, W, C) of a decoded item."""
        array: pixels.Pixels = item
        return array

    def grid_shape(self, column: Column) -> tuple[int, int]:
        """(h, w) of a picture's tokens."""
        height, width = self.picture_shape(column)
        step = 2 ** halvings((height, width), self.grid)
        return -(-height // step), -(-width // step)

    def picture_shape(self, column: Column) -> tuple[int, int]:
        """(H, W) that pictures are brought to."""
        height, width = (int(v) for v in column.statistics["size"])
        return height, width

    def picture_inputs(
        self, column: Column, arrays: Sequence[pixels.Pixels], sample: NDArray[np.int64], draw: Draw | None
    ) -> dict[str, Tensor]:
        """Inputs ``pixels`` (N, H, W, C), and in training how each picture is changed.

        Args:
            column: with fitted statistics.
            arrays: N pictures.
            sample: (N,) row of the batch of each; pictures of one row are changed alike.
            draw: the rows' random numbers in training.
        """
        inputs = {"pixels": pixels.stack(arrays, column.statistics)}
        if draw is not None and (self.augment > 0 or self.flips):
            inputs |= pixels.augmentation(draw, sample, self.augment, self.flips)
        return inputs


def lattice(*axes: int) -> NDArray[np.int64]:
    """The places of a grid in reading order, (product of the axes, number of axes)."""
    return np.stack(np.meshgrid(*(np.arange(n) for n in axes), indexing="ij"), -1).reshape(-1, len(axes)).astype(np.int64)


class Normalised(nn.Module):
    """``(pixels - mean) / std`` for each channel, augmented where the pack says how.

    Args:
        mean: (C,) of the training pictures, in the unit of the pixels.
        std: (C,) likewise.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, packed: Packed) -> Tensor:
        """(N, C, H, W)."""
        inputs = packed.inputs
        x = ((inputs["pixels"].float() - self.mean) * self.scale).movedim(-1, 1)
        if "affine" in inputs and len(x):
            x = pixels.augment(x, inputs["affine"], inputs["tone"], inputs["erase"])
        return x
