"""Mixers: how tokens that may see each other exchange what they know."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.plan import Blocks, Sets
from unisono.core.registry import Count, Probability, Registry
from unisono.nn.dropout import Dropout
from unisono.nn.ffn import silent
from unisono.nn.share import Sharing
from unisono.ops.attention import attend

# T tokens, N places in block order, D width, H heads, K width of a head


class Mixer(nn.Module):
    """Mixes tokens within blocks: ``forward((T, D), blocks, sets) -> (T, D)``; a token that is no query gets zeros."""


mixers: Registry[Mixer] = Registry("mixer", Mixer, package="unisono.nn", runtime=("width", "sharing", "num_modalities"))


@mixers.register("attention", source="arXiv:1706.03762")
class Attention(Mixer):
    """Multi-head softmax attention: ``concat_h(softmax(Q_h K_h' / sqrt(K)) V_h) W_o`` within each block.

    Args:
        width: D, a multiple of ``heads``.
        sharing: how the projections are shared over tokens.
        num_modalities: number of modalities, inserted tokens counted as one more.
        heads: H.
        dropout: probability of dropping an output unit in training.
    """

    def __init__(self, *, width: int, sharing: Sharing, num_modalities: int, heads: Count = 4, dropout: Probability = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"attention: the width {width} is no multiple of {heads} heads")
        self.heads, self.width = heads, width
        self.project = sharing.wrap(lambda: nn.Linear(width, 3 * width), num_modalities)
        self.out = sharing.wrap(lambda: silent(nn.Linear(width, width)), num_modalities)
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor, blocks: Blocks, sets: Sets | None) -> Tensor:
        """Mix (T, D) within the blocks."""
        qkv = self.project(x_TD, sets)
        if blocks.query is not None:
            qkv = qkv[blocks.query]
        q, k, v = qkv.view(-1, 3, self.heads, self.width // self.heads).unbind(1)
        mixed = gather_back(attend(q, k, v, blocks.calls), blocks)
        result: Tensor = self.dropout(self.out(mixed, sets))
        return result


def gather_back(mixed_ND: Tensor, blocks: Blocks) -> Tensor:
    """Bring block-ordered outputs (Nq, D) to the tokens (T, D): averaged for a token in several blocks, zero for one in none."""
    if blocks.query is None:
        return mixed_ND
    base = mixed_ND.new_zeros(blocks.num_tokens, mixed_ND.shape[1])
    if blocks.share is None:
        return torch.index_copy(base, 0, blocks.query, mixed_ND)
    return base.index_add(0, blocks.query, mixed_ND * blocks.share.unsqueeze(1).to(mixed_ND.dtype))
