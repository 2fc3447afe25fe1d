"""Point clouds: n points with x, y, z and further values each, in any order.

Letters: N present cells, n points, E extra values of a point, M centres a cell at most, K points of a group, D width, T tokens.

A point with a NaN is left out; infinity is unreadable. The order of points never matters: they are sorted before anything is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.registry import Count, NonNegative
from unisono.core.schema import Column
from unisono.modalities.arrays import cell_array, is_list_type, is_number_type, npy_shapes, plain_type
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, Tokeniser, modalities, tokenisers

MAX_POINTS = 4_000_000
_XYZ = 3
_WIDEST = 9
_NAMES = ("point", "cloud", "lidar", "xyz")


@modalities.register("points")
class PointsModality(Modality):
    """A set of points in space."""

    name = "points"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim lists of lists of 3 to 9 numbers, and ``.npy`` paths of such arrays."""
        shapes = npy_shapes(sample)
        if not shapes and _is_nested(plain_type(sample.type)):
            shapes = [(len(v), len(p)) for v in sample.values[:50] for p in v[:20] if p is not None]
        if not shapes or any(len(s) != 2 or s[1] != shapes[0][1] for s in shapes):
            return None
        width = shapes[0][1]
        if not _XYZ <= width <= _WIDEST or max(s[0] for s in shapes) <= 1:
            return None
        named = any(word in sample.name.lower() for word in _NAMES)
        doubt = f"rows of {width} numbers: could be a series (--column {sample.name}=series)"
        return Guess(0.9 if named else 0.72 if width == _XYZ else 0.5, f"lists of points with {width} numbers each", doubt=doubt)

    def decode(self, cell: Any, column: Column, context: Context) -> NDArray[np.float32] | None:
        """Turn one cell into an (n, 3 + E) array: nested lists, ``.npy``, ``{values}``, ``{points}`` or ``{x, y, z}``.

        Raises:
            Unreadable: another shape, too many points, infinite values, another number of values than the column's points have.
        """
        if isinstance(cell, Mapping) and {"x", "y", "z"} <= set(cell):
            cell = [list(p) for p in zip(cell["x"] or [], cell["y"] or [], cell["z"] or [], strict=False)] if _even(cell) else cell["x"]
        elif isinstance(cell, Mapping) and "points" in cell:
            cell = cell["points"]
        array = cell_array(cell, context)
        if array.ndim != 2 or array.shape[1] < _XYZ:
            raise Unreadable(f"points have the shape (n, 3 or more), this cell has {array.shape}")
        if not 0 < len(array) <= MAX_POINTS:
            raise Unreadable(f"{len(array):,} points; 1 to {MAX_POINTS:,} are possible")
        extra = column.statistics.get("mean")
        if extra is not None and array.shape[1] != _XYZ + len(extra):
            raise Unreadable(f"points of {array.shape[1]} values in a column of points of {_XYZ + len(extra)}")
        array = array[~np.isnan(array).any(1)]
        return array if len(array) else None


def _is_nested(kind: pa.DataType) -> bool:
    """Whether a type is a list of lists of numbers."""
    inner = plain_type(kind.value_type) if is_list_type(kind) else None
    return inner is not None and is_list_type(inner) and is_number_type(inner.value_type)


def _even(cell: Mapping[str, Any]) -> bool:
    return len({len(cell[k] or []) for k in "xyz"}) == 1


def farthest_points(points: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Farthest-point sampling (Eldar et al. 1997), begun at the point farthest from the mean.

    Args:
        points: (n, 3).
        count: how many to choose; fewer come back when fewer points are distinct.

    Returns:
        Indices of the chosen points.
    """
    away = ((points - points.mean(0)) ** 2).sum(1)
    chosen = [int(away.argmax())]
    nearest = np.full(len(points), np.inf, np.float32)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
        far = int(nearest.argmax())
        if nearest[far] <= 0:
            break
        chosen.append(far)
    return np.array(chosen, np.int64)


@tokenisers.register("neighbourhoods", source="arXiv:1706.02413")
class Neighbourhoods(Tokeniser):
    """Points by farthest-point centres and a small shared network, max-pooled over each centre's nearest points.

    Args:
        centres: tokens of a cloud at most.
        neighbours: points of a group.
        points: points of a cloud at most; of larger ones a fixed part is used (another one at each visit in training).
        hidden: hidden units of the shared network.
        jitter: standard deviation of the noise on coordinates in training, relative to the cloud's size.
        rotate: turn clouds about the z axis at random in training.
    """

    reads = frozenset({"points"})

    def __init__(
        self,
        *,
        centres: Count = 24,
        neighbours: Count = 16,
        points: Count = 1024,
        hidden: Count = 64,
        jitter: NonNegative = 0.01,
        rotate: bool = False,
    ) -> None:
        self.centres, self.neighbours, self.points, self.hidden = centres, neighbours, points, hidden
        self.jitter, self.rotate = jitter, rotate

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Mean and spread of the extra values, and of the logarithm of the clouds' sizes.

        Raises:
            SchemaError: points with different numbers of values.
        """
        sizes: list[float] = []
        sums: NDArray[np.float64] | None = None
        for chunk in chunks:
            for array in Items.of(column, chunk).arrays:
                extra = array[:, _XYZ:].astype(np.float64)
                part = np.stack([np.full(extra.shape[1], len(extra)), extra.sum(0), (extra**2).sum(0)])
                if sums is not None and sums.shape != part.shape:
                    found = f"{_XYZ + sums.shape[1]} and {_XYZ + part.shape[1]}"
                    raise SchemaError(f"column {column.name!r}: points of {found} values; every point needs the same values")
                sums = part if sums is None else sums + part
                sizes.append(float(np.log(_size(array[:, :_XYZ] - array[:, :_XYZ].mean(0)))))
        if sums is None:
            return {"mean": [], "scale": [], "size": [0.0, 1.0]}
        mean = sums[1] / np.maximum(sums[0], 1)
        scale = np.sqrt(np.maximum(sums[2] / np.maximum(sums[0], 1) - mean**2, 0))
        scale[scale < 1e-6 * np.maximum(1, np.abs(mean))] = 1.0
        return {"mean": mean.tolist(), "scale": scale.tolist(), "size": [float(np.mean(sizes)), max(float(np.std(sizes)), 1e-3)]}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """A token for each centre; ``coords`` are the centres in the centred and scaled cloud."""
        column = columns[0]
        items = Items.of(column, cells.get(column.name, []))
        random = draw.at(items.sample).generators(f"points {column.name}") if draw is not None else [None] * len(items.arrays)
        width = _XYZ + len(column.statistics.get("mean", ()))
        groups, centres = [np.zeros((0, self.neighbours, width), np.float32)], [np.zeros((0, 4), np.float32)]
        counts = []
        for array, generator in zip(items.arrays, random, strict=True):
            group, centre = self._group(column, array, generator)
            groups.append(group)
            centres.append(centre)
            counts.append(len(centre))
        centre = np.concatenate(centres)
        inputs = {"group": torch.from_numpy(np.concatenate(groups)), "centre": torch.from_numpy(centre)}
        return Packed.of(inputs, np.repeat(items.sample, counts), column.index, item=np.repeat(items.item, counts), coords=centre[:, :_XYZ])

    def _group(self, column: Column, array: NDArray[np.float32], random: np.random.Generator | None) -> tuple[Any, Any]:
        """One cloud's groups (M, K, 3 + E), coordinates relative to their centre, and centres (M, 4) with the size."""
        array = array[np.lexsort(array.T)]
        if len(array) > self.points:
            pick = (random or np.random.default_rng(0)).permutation(len(array))[: self.points]
            array = array[np.sort(pick)]
        xyz = array[:, :_XYZ] - array[:, :_XYZ].mean(0)
        size = _size(xyz)
        xyz = xyz / np.float32(size)
        if random is not None and self.rotate:
            turn = random.uniform(0, 2 * np.pi)
            c, s = np.cos(turn), np.sin(turn)
            xyz = (xyz @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])).astype(np.float32)
        if random is not None and self.jitter:
            xyz = xyz + random.normal(0, self.jitter, xyz.shape).astype(np.float32)
        chosen = farthest_points(xyz, self.centres)
        apart = ((xyz[chosen, None] - xyz[None]) ** 2).sum(-1)
        near = np.argsort(apart, axis=1, kind="stable")[:, : self.neighbours]
        near = np.pad(near, ((0, 0), (0, self.neighbours - near.shape[1])), mode="edge")
        extra = (array[:, _XYZ:] - np.array(column.statistics["mean"])) / np.array(column.statistics["scale"])
        group = np.concatenate([xyz[near] - xyz[chosen, None], np.clip(extra, -10, 10)[near]], -1).astype(np.float32)
        middle, spread = column.statistics["size"]
        told = np.full((len(chosen), 1), np.clip((np.log(size) - middle) / spread, -5, 5))
        return group, np.concatenate([xyz[chosen], told], 1).astype(np.float32)

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The shared network of one column."""
        return PointGroups(_XYZ + len(columns[0].statistics.get("mean", ())), width, self)


def _size(centred: NDArray[np.float32]) -> float:
    """Root mean square distance from the origin; 1 for a single place."""
    size = float(np.sqrt((centred.astype(np.float64) ** 2).sum(1).mean()))
    return size if size > 0 else 1.0


class PointGroups(nn.Module):
    """``token = W max_k f([p_k - c, extra_k, c, size]) + V [c, size]`` with f a network of two layers shared by all points."""

    def __init__(self, features: int, width: int, settings: Neighbourhoods) -> None:
        super().__init__()
        h = settings.hidden
        self.shared = nn.Sequential(nn.Linear(features + 4, h), nn.LayerNorm(h), nn.GELU(), nn.Linear(h, h), nn.LayerNorm(h), nn.GELU())
        self.out, self.place = nn.Linear(h, width), nn.Linear(4, width, bias=False)

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        group, centre = packed.inputs["group"], packed.inputs["centre"]
        told = centre.unsqueeze(1).expand(-1, group.shape[1], -1)
        pooled = self.shared(torch.cat([group, told], -1)).amax(1)
        tokens: Tensor = self.out(pooled) + self.place(centre)
        return tokens
