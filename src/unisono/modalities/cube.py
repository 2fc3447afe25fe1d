"""Spectral cubes (row, column, band): many bands at each pixel, from ``.npy`` files or nested lists -> tokens of patches and band groups.

Letters: N cubes, H rows, W columns, C bands, G band groups, h and w grid height and width, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as fn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.registry import Count, NonNegative
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, modalities, tokenisers
from unisono.modalities.grids import GridTokeniser, Normalised, lattice
from unisono.nn.position import Position

_AXES = 3
_FEW_BANDS = 4


@modalities.register("cube")
class CubeModality(Modality):
    """Arrays (row, column, band) with many bands, as hyperspectral cameras give them: nested lists or ``.npy`` files.

    Options: ``max_pixels`` (bound on the number of values), ``layout`` (``hwc`` rows, columns, bands, the default; ``chw`` bands first).
    """

    name: ClassVar[str] = "cube"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim a column of three-dimensional nested lists, or ``.npy`` files, with more than four bands."""
        many = pixels.sample_is_list(sample)
        if sample.hint == "cube":
            return Guess(0.99, "the file's metadata say cube", many)
        shapes, _ = pixels.nested_shapes(sample)
        if shapes and all(len(s) == _AXES and min(s[0], s[2]) > _FEW_BANDS for s in shapes):
            return Guess(0.85, f"nested lists of shape {shapes[0]}: row, column, band", doubt="a video without channels")
        heads, where = pixels.probe_bytes(sample, frozenset({".npy"}))
        shapes = [s for s in map(pixels.npy_shape, heads) if s]
        if shapes and all(len(s) == _AXES and min(s[0], s[2]) > _FEW_BANDS for s in shapes):
            return Guess(0.85, f"{where} of .npy arrays of shape {shapes[0]}: row, column, band", many, doubt="a video without channels")
        return None

    def decode(self, cell: Any, column: Column, context: Context) -> Any:
        """One cube as (H, W, C), uint8 or float32.

        Raises:
            Unreadable: no array of three dimensions, empty, truncated, or larger than ``max_pixels``.
        """
        content = pixels.fetch(cell, context.root, int(column.options.get("max_pixels", pixels.MAX_PIXELS)))
        if not isinstance(content, np.ndarray):
            raise Unreadable("a cube is a nested list or a .npy file, and this is neither")
        if content.ndim != _AXES:
            raise Unreadable(f"a cube has the shape (row, column, band), got {content.shape}")
        if column.options.get("layout") == "chw":
            content = np.ascontiguousarray(content.transpose(1, 2, 0))
        return pixels.tidy_values(content)

    def show(self, cell: Any) -> Any:
        """Three bands as the colours of a PNG."""
        from unisono.modalities.image import ImageModality

        bands = np.linspace(cell.shape[-1] - 1, 0, 3).astype(int)
        return ImageModality().show(cell[..., bands].astype(np.float32))


@tokenisers.register("bands", source="doi:10.1109/TGRS.2021.3130716")
class Bands(GridTokeniser):
    """A token for each spatial patch and group of neighbouring bands, as SpectralFormer groups them (Hong et al. 2021).

    Every band is normalised by its own statistics; the spectrum of each pixel is mapped linearly group by group, mixed over 3 x 3
    neighbours, and averaged over the patch. Place is (row, column, band group).

    Args:
        size: the longest side in pixels; larger cubes are resized.
        grid: at most so many tokens along a side.
        groups: G, how many groups the bands are cut into; 1 makes one token of a patch's whole spectrum.
        augment: strength of the random shifts, scales, rotations and erasing in training; 0 for none.
        flips: mirror left and right in training.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"cube"})
    fit_cells: ClassVar[int | None] = 1024

    def __init__(self, *, size: Count = 32, grid: Count = 4, groups: Count = 1, augment: NonNegative = 0.5, flips: bool = False) -> None:
        self.size, self.grid, self.groups, self.augment, self.flips = size, grid, groups, augment, flips

    def _shape(self, column: Column) -> tuple[int, int, int]:
        return *self.grid_shape(column), min(self.groups, int(column.statistics["channels"]))

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One cube after the other: rows, columns, band groups; inputs ``pixels`` (N, H, W, C) and the augmentation."""
        (column,) = columns
        items = Items.of(column, cells[column.name])
        inputs = self.picture_inputs(column, items.arrays, items.sample, draw)
        place = lattice(*self._shape(column))
        n, per = len(items.arrays), len(place)
        sample, item = np.repeat(items.sample, per), np.repeat(items.item, per)
        return Packed.of(inputs, sample, column.index, item=item, place=np.tile(place, (n, 1)))

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The spectral embedding with normalisation, augmentation and positions."""
        (column,) = columns
        height, wide, groups = self._shape(column)
        return CubeTokens(column.statistics, (height, wide), groups, width)


class CubeTokens(nn.Module):
    """Group-wise linear embedding of spectra, mixing over neighbours, averaging over patches.

    Args:
        found: ``mean`` and ``std`` of each band.
        grid: (h, w).
        groups: G.
        width: D.
    """

    def __init__(self, found: Mapping[str, Any], grid: tuple[int, int], groups: int, width: int) -> None:
        super().__init__()
        self.grid, self.groups, bands = grid, groups, len(found["mean"])
        self.per_group = -(-bands // groups)
        self.pixels = Normalised(found["mean"], found["std"])
        self.spectrum = nn.Conv2d(groups * self.per_group, groups * width, 1, groups=groups)
        self.mix = nn.Conv2d(groups * width, groups * width, 3, padding=1, groups=groups * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.position = Position(3, width)

    def forward(self, packed: Packed) -> Tensor:
        """(T, D) in the order of the pack."""
        x = self.pixels(packed)
        x = self.spectrum(fn.pad(x, (0, 0, 0, 0, 0, self.groups * self.per_group - x.shape[1])))
        x = fn.gelu(x + self.mix(x))
        x = fn.adaptive_avg_pool2d(x, self.grid) if len(x) else x.new_zeros(0, x.shape[1], *self.grid) + x.sum()
        n, width = len(x), self.out.out_features
        values = x.reshape(n, self.groups, width, *self.grid).permute(0, 3, 4, 1, 2).reshape(-1, width)
        tokens: Tensor = self.norm(self.out(values)) + self.position(packed.place.to(values.device))
        return tokens
