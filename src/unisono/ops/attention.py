"""The one attention operation: softmax attention within blocks of packed tokens.

Letters: N places in the block-sorted order, H heads, K width of a head, G blocks, L tokens of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unisono.core.plan import Run

#: In half precision and training, blocks up to this length run as batched products: the fused CPU kernel's backward is slow there.
_PRODUCT_LENGTH = 512


def attend(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, runs: Sequence[Run]) -> Tensor:
    """Softmax attention of every query over the keys of its block.

    For each block: ``softmax(q k' / sqrt(K)) v``, the softmax in float32. Source: arXiv:1706.03762, equation 1.

    Args:
        q_NHK: queries (Nq, H, K), block by block.
        k_NHK: keys (Nk, H, K), block by block.
        v_NHK: values (Nk, H, K).
        runs: the shapes of the blocks in that order; a block without keys gives zeros.

    Returns:
        (Nq, H * K).
    """
    if len(runs) == 1:
        return _attend_run(q_NHK, k_NHK, v_NHK, runs[0])
    q_parts = torch.split(q_NHK, [r.blocks * r.queries for r in runs])
    key_sizes = [r.blocks * r.keys for r in runs]
    k_parts, v_parts = torch.split(k_NHK, key_sizes), torch.split(v_NHK, key_sizes)
    parts = [_attend_run(q, k, v, r) for q, k, v, r in zip(q_parts, k_parts, v_parts, runs, strict=True)]
    return torch.cat(parts) if parts else q_NHK.reshape(0, q_NHK.shape[1] * q_NHK.shape[2])


def _attend_run(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, run: Run) -> Tensor:
    g, heads, k = run.blocks, q_NHK.shape[1], q_NHK.shape[2]
    if run.keys == 0:
        return torch.zeros_like(q_NHK).reshape(-1, heads * k)
    if run.keys == 1 and run.queries == 1:
        return v_NHK.reshape(-1, heads * k)
    q = q_NHK.reshape(g, run.queries, heads, k).transpose(1, 2)
    key = k_NHK.reshape(g, run.keys, heads, k).transpose(1, 2)
    value = v_NHK.reshape(g, run.keys, heads, k).transpose(1, 2)
    products = q.requires_grad and q.dtype == torch.bfloat16 and run.keys <= _PRODUCT_LENGTH and q.device.type == "cpu"
    out = _by_products(q, key, value) if products else scaled_dot_product_attention(q, key, value)
    return out.transpose(1, 2).reshape(g * run.queries, heads * k)


def _by_products(q_GHLK: Tensor, k_GHLK: Tensor, v_GHLK: Tensor) -> Tensor:
    scores = (q_GHLK * (1.0 / math.sqrt(q_GHLK.shape[-1]))) @ k_GHLK.transpose(-1, -2)
    return torch.softmax(scores, -1, dtype=torch.float32).to(v_GHLK.dtype) @ v_GHLK
