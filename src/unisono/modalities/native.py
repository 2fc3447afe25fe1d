"""Pictures and videos at their own size: patches of any aspect ratio, as many as there are.

Letters: N frames, H height, W width, C channels, S side of a patch, h and w grid height and width, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.registry import Count, NonNegative
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.modalities.base import Cells, Items, Packed, Tokeniser, tokenisers
from unisono.modalities.video import Clip, evenly
from unisono.nn.places import aligned
from unisono.nn.position import Position


def native_grid(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """(h, w) patches of a picture: each side to the nearest whole number of patches, shrunk in proportion to at most ``most`` in all."""
    shrink = min(1.0, (most * side * side / (height * width)) ** 0.5)
    while True:
        h, w = (max(1, round(n * shrink / side)) for n in (height, width))
        if h * w <= most:
            return h, w
        if min(h, w) == 1:
            return (1, most) if h == 1 else (most, 1)
        shrink *= 0.98


@dataclass(frozen=True)
class _Frames:
    """All frames of a batch, one behind the other."""

    owner: np.ndarray[Any, np.dtype[np.int64]]
    step: np.ndarray[Any, np.dtype[np.int64]]
    seconds: np.ndarray[Any, np.dtype[np.float32]]
    arrays: list[Any]


@tokenisers.register("native", source="arXiv:2504.01792")
class Native(Tokeniser):
    """One linear map of each square patch of a picture or of a video's frames, every one at its own size and aspect ratio.

    A picture is resized to the nearest whole number of patches along each side, and shrunk in proportion where it has more than ``most``.
    A still gives the tokens of a video of one frame, its place (row, column) in place of (step, row, column).

    Args:
        side: pixels along a side of a patch.
        most: patches of a picture, or of a frame, at most.
        frames: evenly spaced frames kept of a video.
        augment: strength of the random shifts, scales, rotations, contrast and erasing in training; 0 for none.
        flips: mirror left and right in training.
        position: of what Fourier features are added: the ``place``, the ``step`` of a video alone, or ``none`` where attention itself turns
            by the place.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "video"})
    fit_cells: ClassVar[int | None] = 2048

    def __init__(
        self, *, side: Count = 8, most: Count = 64, frames: Count = 4, augment: NonNegative = 1.0, flips: bool = False,
        position: Literal["place", "step", "none"] = "place",
    ) -> None:  # fmt: skip
        self.side, self.most, self.frames, self.position = side, most, frames, position
        self.augment, self.flips = augment, flips

    def wants(self, column: Column) -> Mapping[str, Any]:
        """How many frames there may be."""
        return {"frames": self.frames} if column.modality == "video" else {}

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """``channels``, and ``mean`` and ``std`` of each channel."""
        found = pixels.PixelFit()
        for cells in chunks:
            for item in Items.of(column, cells).arrays:
                found.add(item.frames if isinstance(item, Clip) else item)
        return {k: v for k, v in found.statistics(1).items() if k != "size"}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One picture or frame after the other, each a grid in reading order; input ``patches`` (T, S S C), normalised."""
        (column,) = columns
        items = Items.of(column, cells[column.name])
        found = self._frames(items.arrays)
        moving = column.modality == "video"
        changes = None
        if draw is not None and (self.augment > 0 or self.flips):
            changes = pixels.augmentation(draw, items.sample[found.owner], self.augment, self.flips)
        patches, places, counts = [], [], []
        for k, array in enumerate(found.arrays):
            grid = native_grid(array.shape[0], array.shape[1], self.side, self.most)
            change = None if changes is None else {name: v[k : k + 1] for name, v in changes.items()}
            patches.append(self._cut(array, grid, column, change))
            place = np.stack(np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij"), -1).reshape(-1, 2)
            places.append(np.concatenate([np.full((len(place), 1), found.step[k]), place], 1) if moving else place)
            counts.append(len(place))
        per = np.array(counts, np.int64)
        size = self.side**2 * int(column.statistics["channels"])
        return Packed.of(
            {"patches": torch.cat([torch.zeros(0, size), *patches])},
            np.repeat(items.sample[found.owner], per),
            column.index,
            item=np.repeat(items.item[found.owner], per),
            place=np.concatenate([np.zeros((0, 3 if moving else 2), np.int64), *places]).astype(np.int64),
            time=np.repeat(found.seconds, per) if moving else None,
        )

    def _frames(self, items: Sequence[Any]) -> _Frames:
        owner, step, seconds, arrays = [], [], [], []
        for k, item in enumerate(items):
            kept = evenly(len(item.frames), self.frames) if isinstance(item, Clip) else np.zeros(1, np.int64)
            for n, frame in enumerate(kept):
                owner.append(k)
                step.append(n)
                seconds.append(float(item.times[frame]) if isinstance(item, Clip) else 0.0)
                arrays.append(item.frames[frame] if isinstance(item, Clip) else item)
        return _Frames(np.array(owner, np.int64), np.array(step, np.int64), np.array(seconds, np.float32), arrays)

    def _cut(self, array: Any, grid: tuple[int, int], column: Column, change: Mapping[str, Tensor] | None) -> Tensor:
        """The patches of one picture, (h w, S S C)."""
        s, found = self.side, column.statistics
        x = pixels.stack([array], {**found, "size": (grid[0] * s, grid[1] * s)}).float()
        x = ((x - torch.tensor(found["mean"])) / torch.tensor(found["std"])).movedim(-1, 1)
        if change is not None:
            x = pixels.augment(x, **change)
        return x[0].movedim(0, -1).reshape(grid[0], s, grid[1], s, -1).transpose(1, 2).reshape(grid[0] * grid[1], -1).float()

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The map of a patch and the positions."""
        (column,) = columns
        return PatchTokens(self.side**2 * int(column.statistics["channels"]), width, position=self.position)


class PatchTokens(nn.Module):
    """``norm(W patch + b) + position``, a still lying at step 0.

    Args:
        size: numbers of a patch.
        width: D.
        position: ``place``, ``step`` or ``none``.
    """

    def __init__(self, size: int, width: int, *, position: str) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(size, width), nn.LayerNorm(width)
        self.axes = {"place": 3, "step": 1, "none": 0}[position]
        self.position = Position(self.axes, width, gain=0.3) if self.axes else None

    def forward(self, packed: Packed) -> Tensor:
        """(T, D) in the order of the pack."""
        values: Tensor = self.norm(self.linear(packed.inputs["patches"]))
        if self.position is None:
            return values
        place = torch.from_numpy(np.maximum(aligned(packed.place.cpu().numpy()), [0, -1, -1])[:, : self.axes])
        where: Tensor = self.position(place.to(values.device))
        return values + where
