"""Convolution on the tokens' own grid.

Who is whose neighbour is worked out on the host. Where the scope cuts grids into regions, each region is laid on a canvas of zeros as
large as its bounding box, and boxes of like shape go through one call of a dense kernel: over batches of maps on a CPU 8 to 28 times as
fast as gathering neighbours for depthwise kernels, 3 times for dense ones; a single small map is no faster. Where it does anything else
(an order, edges, keys apart from queries), or where weights differ from token to token, neighbours are gathered tap by tap.

Letters: T tokens, D width, A axes of the kernel, K taps, S places of the canvases.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Probability
from unisono.core.relation import Blocks, Relation, combine
from unisono.core.tokens import Meta
from unisono.nn.dropout import Dropout
from unisono.nn.mixer import Mixer, mixers
from unisono.nn.part import Frame, Known, Part
from unisono.nn.places import aligned
from unisono.nn.scope_grid import grid_map
from unisono.nn.share import Sharing

Indices = NDArray[np.int64]
#: A call of the kernel takes about as long as so many places: those of a depthwise one, those of a dense one.
_CALL_PLACES = (500, 50)
#: A region that fills less than this part of its bounding box has its neighbours gathered.
_FILLED = 0.2


@dataclass(frozen=True)
class Canvases:
    """Regions of tokens on canvases of zeros, which lie one behind the other.

    Attributes:
        shapes: for each canvas its number of boxes, and their sides along the A axes.
        slot: (T,) the place of each token among the S places; None where tokens lie so already and fill the canvases.
        places: S.
    """

    shapes: tuple[tuple[int, ...], ...]
    slot: Tensor | None
    places: int


@dataclass(frozen=True)
class Neighbours:
    """The neighbour of each token at each tap.

    Attributes:
        table: (T, K) token indices; T where there is none.
    """

    table: Tensor


@dataclass(frozen=True)
class ConvolutionPlan:
    """What a convolution needs of a batch.

    Attributes:
        laid: how the tokens are laid out.
        taps: of the weights.
    """

    laid: Canvases | Neighbours
    taps: Any


class Taps(Part):
    """The weights of a convolution: ``y_t = sum_k W_k x_{t, k} + b``, W_k a matrix, or for a depthwise one a diagonal.

    Args:
        width: D.
        sides: places of the kernel along each of the A axes.
        depthwise: whether every channel is on its own.
    """

    def __init__(self, width: int, sides: tuple[int, ...], depthwise: bool) -> None:
        super().__init__()
        self.sides, self.depthwise = sides, depthwise
        count = int(np.prod(sides))
        shape = (count, width) if depthwise else (width, count, width)
        self.weight = nn.Parameter(torch.randn(shape) * 0.01 * (count if depthwise else count * width) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """From the neighbours side by side (T, K D) to (T, D)."""
        weight, bias = self.weight.to(x_TD.dtype), self.bias.to(x_TD.dtype)
        if self.depthwise:
            summed: Tensor = (x_TD.view(len(x_TD), *weight.shape) * weight).sum(1)
            return summed + bias
        return fn.linear(x_TD, weight.flatten(1), bias)

    def on_canvas(self, x_SD: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Convolve one canvas: ``shape`` is its number of boxes and their sides; taps that would reach beyond every box are left out."""
        d = x_SD.shape[1]
        reach = [min(side // 2, extent - 1) for side, extent in zip(self.sides, shape[1:], strict=True)]
        kept = tuple(slice(side // 2 - r, side // 2 + r + 1) for side, r in zip(self.sides, reach, strict=True))
        if self.depthwise:
            kernel = self.weight.view(*self.sides, d)[kept].movedim(-1, 0).unsqueeze(1)
        else:
            kernel = self.weight.view(d, *self.sides, d)[(slice(None), *kept)].movedim(-1, 1)
        kernel, bias = kernel.to(x_SD.dtype), self.bias.to(x_SD.dtype)
        if not any(reach):
            return x_SD * kernel.reshape(d) + bias if self.depthwise else fn.linear(x_SD, kernel.reshape(d, d), bias)
        x = x_SD.view(*shape, d).movedim(-1, 1)
        if len(self.sides) == 1:  # a line is a picture of one row: only those have a fast kernel for channels that lie last
            x, kernel, reach = x.unsqueeze(2), kernel.unsqueeze(2), [0, *reach]
        convolve = fn.conv3d if len(reach) == 3 else fn.conv2d
        return convolve(x, kernel, bias, padding=tuple(reach), groups=d if self.depthwise else 1).movedim(1, -1).reshape(-1, d)


@mixers.register("convolution", source="arXiv:2201.03545")
class Convolution(Mixer):
    """Convolution on the tokens' own grid: ``y_p = sum_d W_d x_{p+d} + b`` over offsets d of up to ``size // 2`` along each axis.

    A neighbour that is absent, of another cell, item or level, or not seen by the scope contributes nothing: zero padding. The kernel's
    axes are the last ones of a token's grid: with two, the frames of a clip are convolved one by one; with three, a picture is a clip of
    one frame. Tokens without a grid get the centre tap alone, which every token has, seen by the scope or not. With ``scope:
    causal(place)`` the convolution is causal. Over a plain rectangle it is ``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``.

    Args:
        width: D.
        sharing: how the kernels are shared over tokens; a token's own say which is used.
        frame: the model around it.
        size: places of the kernel along each axis, odd.
        axes: A, 1 to 3.
        depthwise: whether every channel is convolved by itself (ConvNeXt) or all are mixed.
        dropout: probability of dropping an output unit in training.

    Raises:
        ConfigError: the size is even, or there are more than 3 axes.
    """

    def __init__(
        self, *, width: int, sharing: Sharing, frame: Frame, size: Count = 3, axes: Count = 2, depthwise: bool = True,
        dropout: Probability = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if size % 2 == 0:
            raise ConfigError(f"convolution: the size {size} has to be odd, so that a token is in the middle; write {size + 1}")
        if axes > 3:
            raise ConfigError(f"convolution: a grid has at most 3 axes, not {axes}")
        self.sides = (size,) * axes
        self.taps = sharing.wrap(lambda: Taps(width, self.sides, depthwise), frame, "mixer.taps")
        self.call = _CALL_PLACES[0 if depthwise else 1]
        self.dropout = Dropout(dropout)

    def plan(self, known: Known, relation: Relation, scope: Hashable) -> ConvolutionPlan:
        """Canvases where the scope cuts grids into regions and one set of weights serves all tokens, else neighbours."""
        axes, laid = len(self.sides), None
        if isinstance(self.taps, Taps):
            laid = known.once(("canvases", scope, axes, self.call), lambda: _canvases(known.meta, relation, axes, self.call))
        if laid is None:
            laid = known.once(("neighbours", scope, self.sides), lambda: _neighbours(known.meta, relation, self.sides))
        return ConvolutionPlan(laid, known.part(self.taps))

    def forward(self, x_TD: Tensor, relation: Relation, plan: ConvolutionPlan) -> Tensor:
        """Mix (T, D) within the relation."""
        if isinstance(plan.laid, Neighbours):
            padded = torch.cat([x_TD, x_TD.new_zeros(1, x_TD.shape[1])])
            mixed = self.taps(padded[plan.laid.table].flatten(1), plan.taps)
        else:
            assert isinstance(self.taps, Taps)
            mixed = self._on_canvases(x_TD, plan.laid, self.taps)
        result: Tensor = self.dropout(mixed)
        return result

    @staticmethod
    def _on_canvases(x_TD: Tensor, laid: Canvases, taps: Taps) -> Tensor:
        x = x_TD if laid.slot is None else x_TD.new_zeros(laid.places, x_TD.shape[1]).index_copy(0, laid.slot, x_TD)
        pieces = torch.split(x, [int(np.prod(shape)) for shape in laid.shapes])
        done = [taps.on_canvas(piece, shape) for piece, shape in zip(pieces, laid.shapes, strict=True)]
        y = done[0] if len(done) == 1 else torch.cat([*done, x[:0]])
        return y if laid.slot is None else y[laid.slot]


def _regions(relation: Relation, meta: Meta) -> Indices | None:
    """(T,) a label that neighbours have to have in common; None where the scope does something else than cutting grids into regions."""
    if not isinstance(relation, Blocks) or relation.key is not None or relation.orders is not None:
        return None
    token, (block, _) = relation.query_index().numpy(), relation.numbers()
    times = np.bincount(token, minlength=len(meta))
    if (meta.place.numpy()[times > 1] >= 0).any():
        return None
    label = -1 - np.arange(len(meta))
    label[token] = block
    return label


def _canvases(meta: Meta, relation: Relation, axes: int, call: int) -> Canvases | None:
    """Lay every region of every grid on a canvas; None where there are no regions, or they are too thin for that.

    Args:
        meta: the tokens.
        relation: who sees whom.
        axes: A.
        call: what a call of the kernel costs, in places.
    """
    region = _regions(relation, meta)
    if region is None:
        return None
    place = aligned(meta.place.numpy())
    here = (place >= 0).sum(1)
    alone = np.where(here == 0, np.arange(len(meta)) + 1, 0)
    outer, inner = place[:, : 3 - axes], np.maximum(place[:, 3 - axes :], 0)
    label = combine([grid_map(meta), region, here, alone, *outer.T])
    boxes = int(label.max(initial=-1)) + 1
    low, high = np.full((boxes, axes), np.iinfo(np.int64).max), np.zeros((boxes, axes), np.int64)
    np.minimum.at(low, label, inner)
    np.maximum.at(high, label, inner)
    sides = high - low + 1
    if int(sides.prod(1).sum()) * _FILLED > len(meta):
        return None
    order = np.lexsort((*sides.T, sides.prod(1)))
    joined = _join(sides[order], call)
    shapes = tuple((count, *(int(s) for s in side)) for count, side in joined)
    side = np.empty_like(sides)
    side[order] = np.repeat([s for _, s in joined], [n for n, _ in joined], axis=0).reshape(-1, axes)
    begins = np.zeros(boxes, np.int64)
    begins[order] = np.cumsum(side[order].prod(1)) - side[order].prod(1)
    within = np.zeros(len(meta), np.int64)
    for axis in range(axes):
        within = within * side[label, axis] + (inner - low[label])[:, axis]
    slot = begins[label] + within
    total = int(side.prod(1).sum())
    plain = total == len(meta) and bool((slot == np.arange(total)).all())
    return Canvases(shapes, None if plain else torch.from_numpy(slot), total)


def _join(sides: Indices, call: int) -> list[tuple[int, Indices]]:
    """Boxes of like shape together, as long as the padding costs less than the calls it saves; those of one place are kept apart."""
    joined: list[tuple[int, Indices]] = []
    fill = saved = 0
    changes = np.flatnonzero(np.append(True, (np.diff(sides, axis=0) != 0).any(1))) if len(sides) else np.zeros(0, np.int64)
    for at, count in zip(changes, np.diff(changes, append=len(sides)), strict=True):
        side = sides[at]
        if joined and joined[-1][1].prod() > 1:
            before, shape = joined[-1]
            both = np.maximum(shape, side)
            wasted = int((before + count) * both.prod()) - fill - int(count * side.prod())
            if wasted <= call * (saved + 1):
                joined[-1] = (before + int(count), both)
                fill, saved = fill + int(count * side.prod()), saved + 1
                continue
        joined.append((int(count), side))
        fill, saved = int(count * side.prod()), 0
    return joined


def _neighbours(meta: Meta, relation: Relation, sides: tuple[int, ...]) -> Neighbours:
    """Look every neighbour up among the tokens of the same grid, and keep those that the scope lets a token see."""
    t, axes = len(meta), len(sides)
    place = aligned(meta.place.numpy())
    outer, inner = place[:, : 3 - axes], place[:, 3 - axes :]
    grid = combine([grid_map(meta), *outer.T])
    spans = [int(inner[:, a].max(initial=0)) + sides[a] + 1 for a in range(axes)]
    centre = np.array(sides) // 2
    codes = _coded(grid, inner, centre, spans)
    keys = np.unique(relation.key_index().numpy()) if isinstance(relation, Blocks) else np.unique(relation.key.numpy())
    keys = keys[np.argsort(codes[keys], kind="stable")]
    table = np.full((t, int(np.prod(sides))), t, np.int64)
    for tap, offset in enumerate(itertools.product(*(range(-(s // 2), s // 2 + 1) for s in sides))):
        if not any(offset):
            table[:, tap] = np.arange(t)
            continue
        asks = np.flatnonzero(((inner >= 0) | (np.array(offset) == 0)).all(1))
        wanted = _coded(grid[asks], inner[asks], centre + np.array(offset), spans)
        at = np.searchsorted(codes[keys], wanted)
        hit = at < len(keys)
        hit[hit] = codes[keys[at[hit]]] == wanted[hit]
        query, key = asks[hit], keys[at[hit]]
        seen = relation.sees(query, key)
        table[query[seen], tap] = key[seen]
    return Neighbours(torch.from_numpy(table))


def _coded(grid: Indices, place: Indices, moved: Indices, spans: list[int]) -> Indices:
    """One number for each place of a grid, moved by so much; 0 stands for an absent axis."""
    code = grid.astype(np.int64)
    for axis, span in enumerate(spans):
        code = code * span + np.where(place[:, axis] < 0, 0, place[:, axis] + moved[axis] + 1)
    return code
