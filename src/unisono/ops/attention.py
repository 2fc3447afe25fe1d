"""The one attention operation: softmax attention within blocks of packed tokens.

Letters: N places in the block-sorted order, H heads, K width of a head, G blocks, L tokens of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unisono.core.plan import Call

#: In bfloat16 training on a CPU, blocks up to this length run as batched products: the fused kernel's backward is slow there.
_PRODUCT_LENGTH = 512


def attend(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, calls: Sequence[Call]) -> Tensor:
    """Softmax attention of every query over the keys of its block.

    For each block: ``softmax(q k' / sqrt(K)) v``, the softmax in float32. Source: arXiv:1706.03762, equation 1.

    Args:
        q_NHK: queries (Nq, H, K), block by block.
        k_NHK: keys (Nk, H, K), block by block.
        v_NHK: values (Nk, H, K).
        calls: the shapes of the blocks in that order; a block without keys gives zeros.

    Returns:
        (Nq, H * K).
    """
    if len(calls) == 1:
        return _attend_call(q_NHK, k_NHK, v_NHK, calls[0])
    q_parts = torch.split(q_NHK, [c.queries for c in calls])
    key_sizes = [c.keys for c in calls]
    k_parts, v_parts = torch.split(k_NHK, key_sizes), torch.split(v_NHK, key_sizes)
    parts = [_attend_call(q, k, v, c) for q, k, v, c in zip(q_parts, k_parts, v_parts, calls, strict=True)]
    return torch.cat(parts) if parts else q_NHK.reshape(0, q_NHK.shape[1] * q_NHK.shape[2])


def _attend_call(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, call: Call) -> Tensor:
    run, heads, k = call.run, q_NHK.shape[1], q_NHK.shape[2]
    if run.keys == 0:
        return torch.zeros_like(q_NHK).reshape(-1, heads * k)
    if run.keys == 1 and run.queries == 1:
        return v_NHK.reshape(-1, heads * k)
    q = _padded(q_NHK, call.query_place, run.blocks, run.queries)
    key = _padded(k_NHK, call.key_place, run.blocks, run.keys)
    value = _padded(v_NHK, call.key_place, run.blocks, run.keys)
    products = q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu" and run.keys <= _PRODUCT_LENGTH
    out = _by_products(q, key, value, call.unseen) if products else _fused(q, key, value, call.unseen)
    packed = out.transpose(1, 2).reshape(run.blocks * run.queries, heads * k)
    return packed if call.query_place is None else packed[call.query_place]


def _padded(x_NHK: Tensor, place: Tensor | None, blocks: int, length: int) -> Tensor:
    """Blocks side by side, (blocks, H, length, K)."""
    heads, k = x_NHK.shape[1], x_NHK.shape[2]
    if place is not None:
        x_NHK = torch.index_copy(x_NHK.new_zeros(blocks * length, heads, k), 0, place, x_NHK)
    return x_NHK.reshape(blocks, length, heads, k).transpose(1, 2)


def _fused(q_GHLK: Tensor, k_GHLK: Tensor, v_GHLK: Tensor, unseen: Tensor | None) -> Tensor:
    return scaled_dot_product_attention(q_GHLK, k_GHLK, v_GHLK, attn_mask=None if unseen is None else ~unseen)


def _by_products(q_GHLK: Tensor, k_GHLK: Tensor, v_GHLK: Tensor, unseen: Tensor | None) -> Tensor:
    scores = (q_GHLK * (1.0 / math.sqrt(q_GHLK.shape[-1]))) @ k_GHLK.transpose(-1, -2)
    if unseen is not None:
        scores = scores.masked_fill(unseen, float("-inf"))
    return torch.softmax(scores, -1, dtype=None if scores.dtype == torch.float64 else torch.float32).to(v_GHLK.dtype) @ v_GHLK
