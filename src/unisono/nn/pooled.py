"""Attention over keys pooled to a coarser grid, so that what a query costs does not depend on how far it sees.

Letters: T tokens, D width, C pooled keys, P places along an axis, H heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.errors import ConfigError
from unisono.core.plan import Segments
from unisono.core.registry import Count, Index, Probability
from unisono.core.relation import Blocks, Members, Relation, blocks_of, combine
from unisono.core.tokens import Meta
from unisono.nn.mixer import Attention, mixers
from unisono.nn.part import Frame, Known
from unisono.nn.scope_grid import grid_map
from unisono.nn.share import Sharing
from unisono.ops.attention import attend
from unisono.ops.segment import segment_mean

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pooled:
    """Keys by what they are pooled into.

    Attributes:
        segments: which tokens each pooled key is the mean of.
        blocks: the same queries as before, over pooled keys; equal ones of several blocks are pooled once.
    """

    segments: Segments
    blocks: Blocks

    def keys(self, x: Tensor) -> Tensor:
        """The means (C, ...) of what tokens (T, ...) hold."""
        given = x if self.segments.tokens is None else x[self.segments.tokens]
        return segment_mean(given, self.segments.index, self.segments.num)


def pool_keys(meta: Meta, relation: Relation, places: int) -> Pooled:
    """Divide what each block sees of a grid into ``places`` equal parts along each axis: ``part = (p - low) * P // (high - low + 1)``.

    ``low`` and ``high`` bound the block's own keys, so that a window cut off at the border has as many parts as any other. A block that
    sees no more than P places along an axis keeps each. Tokens without a grid stay as they are.

    Args:
        meta: the tokens.
        relation: who sees whom.
        places: P.

    Raises:
        ConfigError: the relation has an order or consists of edges.
    """
    if not isinstance(relation, Blocks) or relation.orders is not None:
        raise ConfigError("pooled_attention pools what a query sees; its scope must have no order and no edges, for example context(4, 2)")
    (q_block, k_block), key = relation.numbers(), relation.key_index().numpy()
    place = meta.place.numpy()[key]
    box = combine([k_block, grid_map(meta)[key]])
    count = int(box.max(initial=-1)) + 1
    low, high = np.full((count, 3), np.iinfo(np.int64).max), np.full((count, 3), -1, np.int64)
    np.minimum.at(low, box, place)
    np.maximum.at(high, box, place)
    extent = (high - low + 1)[box]
    part = np.where(place >= 0, (place - low[box]) * np.minimum(places, extent) // np.maximum(extent, 1), -1)
    alone = np.where((place < 0).all(1), key + 1, 0)
    cell = combine([box, alone, *part.T])
    same, first = _equal_sets(cell, key, len(meta))
    kept = np.flatnonzero(np.isin(cell, first))
    number = np.full(int(cell.max(initial=-1)) + 1, -1, np.int64)
    number[first] = np.arange(len(first))
    pairs = np.unique(np.stack([k_block, number[same[cell]]], 1), axis=0)
    blocks = blocks_of(Members(relation.query_index().numpy(), q_block), Members(pairs[:, 1], pairs[:, 0]), len(meta))
    tokens, index = key[kept], number[cell[kept]]
    plain = len(tokens) == len(meta) and bool((tokens == np.arange(len(meta))).all())
    return Pooled(Segments(torch.from_numpy(index), None if plain else torch.from_numpy(tokens), len(first)), blocks)


def _equal_sets(cell: Indices, token: Indices, tokens: int) -> tuple[Indices, Indices]:
    """For each cell the first cell of the same tokens, and all such first ones.

    Two cells are taken for equal if their sizes and the sums of two fixed random 62-bit numbers of their tokens are.
    """
    draw = np.random.default_rng(0).integers(0, 2**62, (2, tokens), np.int64).astype(np.uint64)
    count = int(cell.max(initial=-1)) + 1
    sums = np.zeros((3, count), np.uint64)
    for k, values in enumerate((*draw[:, token], np.ones(len(token), np.uint64))):
        np.add.at(sums[k], cell, values)
    _, first, inverse = np.unique(sums, axis=1, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)].astype(np.int64), np.sort(first).astype(np.int64)


class PooledPlan(NamedTuple):
    """What attention over pooled keys needs of a batch: of its projections, its turned axes, and its keys."""

    project: Any
    out: Any
    angles: Any
    pooled: Pooled
    bias: None = None


@mixers.register("pooled_attention", source="arXiv:2404.16573")
class PooledAttention(Attention):
    """Attention whose keys and values are pooled first: ``softmax(Q (A K)' / sqrt(K)) A V``, A the means over parts of what a block sees.

    What each block sees of a grid is divided into ``places`` equal parts along every axis. With ``scope: context(P, R)`` and P places a
    query costs the same for every R (varying window attention), and for R = 1 it is attention within windows; with ``scope: cell`` it is
    attention over a coarse copy of the picture (arXiv:2102.12122). Tokens without a grid are seen one by one.

    Args:
        width: D, a multiple of ``heads``.
        sharing: how the projections are shared over tokens.
        frame: the model around it.
        heads: H.
        dropout: probability of dropping an output unit in training.
        kv_heads: heads of keys and values; 0 for H.
        places: P, parts along each axis.
        rotary: turns queries and keys by their place on up to so many axes before keys are pooled; 0 for not.
    """

    def __init__(
        self, *, width: int, sharing: Sharing, frame: Frame, heads: Count = 4, dropout: Probability = 0.0, kv_heads: Index = 0,
        places: Count = 4, rotary: Index = 0,
    ) -> None:  # fmt: skip
        super().__init__(width=width, sharing=sharing, frame=frame, heads=heads, dropout=dropout, kv_heads=kv_heads, rotary=rotary)
        self.places = places

    def plan(self, known: Known, relation: Relation, scope: Hashable) -> Any:
        """Projections by set, angles by place, and which keys are pooled into which."""
        plain = super().plan(known, relation, scope)
        pooled = known.once(("pooled", scope, self.places), lambda: pool_keys(known.meta, relation, self.places))
        return PooledPlan(plain.project, plain.out, plain.angles, pooled)

    def forward(self, x_TD: Tensor, relation: Relation, plan: Any) -> Tensor:
        """Mix (T, D) within the relation."""
        return super().forward(x_TD, plan.pooled.blocks, plan)

    def _within(self, qkv: Tensor, relation: Blocks, plan: Any) -> Tensor:
        assert relation.query is not None
        assert relation.key is not None
        q, kv = torch.split(qkv, [self.heads, 2 * self.few], 1)
        k, v = torch.split(plan.pooled.keys(kv)[relation.key], [self.few, self.few], 1)
        return attend(q[relation.query], k, v, relation.calls)
