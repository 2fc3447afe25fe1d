"""The one attention operation: softmax attention of packed tokens within blocks, or along edges.

Letters: N places in the block-sorted order, H heads, K width of a head, R query heads for each key head, G blocks, L tokens of a block,
E edges, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unisono.core.relation import Call
from unisono.ops.segment import segment_softmax, segment_sum

#: In bfloat16 on a CPU, blocks up to these lengths run as batched products, in training and without gradients: the fused kernel takes
#: about twice as long, and longer still backwards (``benchmarks/kernels.py``, row ``attention``).
_TRAINED_LENGTH, _FORWARD_LENGTH = 512, 1024


def attend(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, calls: Sequence[Call], bias: Sequence[Tensor] | None = None) -> Tensor:
    """Softmax attention of every query over the keys of its block that it may see.

    For each block: ``softmax(q k' / sqrt(K) + bias) v``, the softmax in float32. Source: arXiv:1706.03762, equation 1; with fewer heads
    of keys and values than of queries each serves R of them in a row (arXiv:2305.13245).

    Args:
        q_NHK: queries (Nq, R H, K), block by block.
        k_NHK: keys (Nk, H, K), block by block.
        v_NHK: values (Nk, H, K).
        calls: the shapes of the blocks in that order.
        bias: for each call (blocks or 1, R H, Lq, Lk), added to the scores; None for none.

    Returns:
        (Nq, R H K); zeros for queries that see no key are the caller's business, since each then sees its whole block.
    """
    heads = q_NHK.shape[1]
    if _as_ragged(q_NHK, calls, bias is not None):
        return ragged(q_NHK, k_NHK, v_NHK, calls)
    if k_NHK.shape[1] != heads:
        k_NHK, v_NHK = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k_NHK, v_NHK))
    if len(calls) == 1:
        return _attend_call(q_NHK, k_NHK, v_NHK, calls[0], None if bias is None else bias[0])
    q_parts = torch.split(q_NHK, [c.queries for c in calls])
    key_sizes = [c.keys for c in calls]
    k_parts, v_parts = torch.split(k_NHK, key_sizes), torch.split(v_NHK, key_sizes)
    biases: Sequence[Tensor | None] = [None] * len(calls) if bias is None else bias
    parts = [_attend_call(*part) for part in zip(q_parts, k_parts, v_parts, calls, biases, strict=True)]
    return torch.cat(parts) if parts else q_NHK.reshape(0, heads * q_NHK.shape[2])


def attend_edges(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, query_E: Tensor, key_E: Tensor, weigh_EHK: Tensor | None = None) -> Tensor:
    """Softmax attention along edges: ``sum_j softmax_j(sum_k q_ik k_jk w_ijk / sqrt(K)) v_j`` over the edges of each query.

    Source: arXiv:2012.09699, equations 4 to 6 and, with values on edges, 12.

    Args:
        q_THK: queries (T, H, K).
        k_THK: keys (T, H, K).
        v_THK: values (T, H, K).
        query_E: (E,) the token that asks.
        key_E: (E,) the token that is seen.
        weigh_EHK: factors of the products of each channel, or None for 1.

    Returns:
        (T, H * K), zero for tokens without an edge.
    """
    tokens, heads, k = q_THK.shape
    products = q_THK[query_E] * k_THK[key_E]
    if weigh_EHK is not None:
        products = products * weigh_EHK
    scores = products.sum(-1) * (1.0 / math.sqrt(k))
    weights = segment_softmax(scores, query_E, tokens)
    return segment_sum(weights.unsqueeze(-1) * v_THK[key_E], query_E, tokens).reshape(tokens, heads * k)


def _attend_call(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, call: Call, bias: Tensor | None) -> Tensor:
    run, heads, k = call.run, q_NHK.shape[1], q_NHK.shape[2]
    if run.keys == 1 and run.queries == 1:
        return v_NHK.reshape(-1, heads * k)
    q = _padded(q_NHK, call.query_place, run.blocks, run.queries)
    key = _padded(k_NHK, call.key_place, run.blocks, run.keys)
    value = _padded(v_NHK, call.key_place, run.blocks, run.keys)
    out = (by_products if _as_products(q, run.keys, bias is not None) else fused)(q, key, value, call, bias)
    packed = out.transpose(1, 2).reshape(run.blocks * run.queries, heads * k)
    return packed if call.query_place is None else packed[call.query_place]


def _as_ragged(q_NHK: Tensor, calls: Sequence[Call], biased: bool) -> bool:
    """Whether the variable-length kernel takes it: on CUDA, in half precision, without a bias, all blocks causal or none."""
    if biased or not q_NHK.is_cuda or q_NHK.dtype not in {torch.float16, torch.bfloat16} or not calls:
        return False
    return all(c.lengths is not None and c.causal == calls[0].causal for c in calls)


def ragged(q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, calls: Sequence[Call]) -> Tensor:
    """All calls in one of the variable-length kernel (arXiv:2307.08691), without padding: (Nq, R H K).

    It has been held against loops with a stand-in for the kernel; it has not run on a GPU yet.
    """
    from torch.nn.attention.varlen import varlen_attn

    ends = []
    for side in (0, 1):
        lengths = torch.cat([c.lengths[side] for c in calls if c.lengths is not None])
        ends.append(torch.nn.functional.pad(torch.cumsum(lengths, 0, dtype=torch.int32), (1, 0)))
    mixed = varlen_attn(
        q_NHK, k_NHK, v_NHK, ends[0], ends[1], max(c.run.queries for c in calls), max(c.run.keys for c in calls),
        window_size=(-1, 0) if calls[0].causal else (-1, -1), enable_gqa=k_NHK.shape[1] != q_NHK.shape[1],
    )  # fmt: skip
    assert isinstance(mixed, Tensor)
    return mixed.flatten(1)


def _as_products(q: Tensor, keys: int, biased: bool) -> bool:
    """Whether batched products are the faster way."""
    if q.requires_grad and biased:
        return True
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return False
    return keys <= (_TRAINED_LENGTH if q.requires_grad else _FORWARD_LENGTH)


def _padded(x_NHK: Tensor, place: Tensor | None, blocks: int, length: int) -> Tensor:
    """Blocks side by side, (blocks, H, length, K)."""
    heads, k = x_NHK.shape[1], x_NHK.shape[2]
    if place is not None:
        x_NHK = torch.index_copy(x_NHK.new_zeros(blocks * length, heads, k), 0, place, x_NHK)
    return x_NHK.reshape(blocks, length, heads, k).transpose(1, 2)


def fused(q_GHLK: Tensor, k_GHLK: Tensor, v_GHLK: Tensor, call: Call, bias: Tensor | None) -> Tensor:
    """A call's attention by the library's kernel: (blocks, H, Lq, K)."""
    mask = None if call.unseen is None else ~call.unseen
    if bias is None:
        return scaled_dot_product_attention(q_GHLK, k_GHLK, v_GHLK, attn_mask=mask, is_causal=call.causal)
    hidden = _hidden(call, q_GHLK.device)
    bias = bias.to(q_GHLK.dtype)
    return scaled_dot_product_attention(q_GHLK, k_GHLK, v_GHLK, attn_mask=bias if hidden is None else bias.masked_fill(hidden, -math.inf))


def by_products(q_GHLK: Tensor, k_GHLK: Tensor, v_GHLK: Tensor, call: Call, bias: Tensor | None) -> Tensor:
    """A call's attention by two batched products: (blocks, H, Lq, K)."""
    scores = (q_GHLK * (1.0 / math.sqrt(q_GHLK.shape[-1]))) @ k_GHLK.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    hidden = _hidden(call, scores.device)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    # the kernel sums in float32 whatever it is given; where gradients are taken its result is kept in float32 too
    exact = torch.float32 if scores.requires_grad and scores.dtype != torch.float64 else None
    return torch.softmax(scores, -1, dtype=exact).to(v_GHLK.dtype) @ v_GHLK


def _hidden(call: Call, device: torch.device) -> Tensor | None:
    """What a call's queries do not see."""
    if not call.causal:
        return call.unseen
    return torch.ones(call.run.queries, call.run.keys, dtype=torch.bool, device=device).triu(1)
