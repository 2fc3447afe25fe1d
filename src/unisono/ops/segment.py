"""Sums, means, maxima and softmax over segments of packed tokens.

Letters: T tokens, S segments, ``...`` trailing axes.

``index`` (T,) int64 names each token's segment, 0..S-1, in any order. A segment without tokens gives exact zeros. Half-precision
values are accumulated in float32 and come back in their own type; all functions are differentiable, twice where sums are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unisono.core.errors import ShapeError


def _check(values: Tensor, index: Tensor, num_segments: int) -> None:
    if index.dim() != 1 or index.dtype != torch.int64 or values.dim() < 1 or values.shape[0] != index.shape[0]:
        raise ShapeError(
            f"values {tuple(values.shape)} need an int64 index of their first axis, got {index.dtype} of shape {tuple(index.shape)}"
        )
    if num_segments < 0:
        raise ShapeError(f"the number of segments cannot be {num_segments}")


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values


def _sum(wide: Tensor, index: Tensor, num_segments: int) -> Tensor:
    return wide.new_zeros(num_segments, *wide.shape[1:]).index_add(0, index, wide)


def segment_sum(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """``out[s] = sum of values[t] with index[t] = s``.

    Args:
        values: (T, ...).
        index: (T,) int64.
        num_segments: S.

    Returns:
        (S, ...) in the type of the values.

    Raises:
        ShapeError: index and values do not fit.
    """
    _check(values, index, num_segments)
    return _sum(_wide(values), index, num_segments).to(values.dtype)


def segment_count(index: Tensor, num_segments: int) -> Tensor:
    """How many tokens each segment has, (S,) int64."""
    return torch.bincount(index, minlength=num_segments)


def segment_mean(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """``segment_sum`` divided by the number of tokens; zero for a segment without any.

    Args:
        values: (T, ...) floating.
        index: (T,) int64.
        num_segments: S.

    Returns:
        (S, ...) in the type of the values.

    Raises:
        ShapeError: index and values do not fit.
    """
    _check(values, index, num_segments)
    wide = _wide(values)
    count = segment_count(index, num_segments).clamp(min=1).to(wide.dtype)
    return (_sum(wide, index, num_segments) / count.view(-1, *[1] * (values.dim() - 1))).to(values.dtype)


def segment_max(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """The largest value of each segment, zero for a segment without any; ties share the gradient evenly.

    Args:
        values: (T, ...) floating.
        index: (T,) int64.
        num_segments: S.

    Returns:
        (S, ...) in the type of the values.

    Raises:
        ShapeError: index and values do not fit.
    """
    _check(values, index, num_segments)
    where = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return values.new_zeros(num_segments, *values.shape[1:]).scatter_reduce(0, where, values, "amax", include_self=False)


def segment_softmax(scores: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """``exp(x_t) / sum of exp(x_u) with index[u] = index[t]``, each segment's maximum taken off first.

    Args:
        scores: (T, ...) floating; -inf gives weight 0, in a segment of nothing but -inf as well.
        index: (T,) int64.
        num_segments: S.

    Returns:
        (T, ...) in the type of the scores; each segment sums to 1.

    Raises:
        ShapeError: index and scores do not fit.
    """
    _check(scores, index, num_segments)
    wide = _wide(scores)
    highest = segment_max(wide.detach(), index, num_segments)
    highest = torch.where(torch.isneginf(highest), torch.zeros_like(highest), highest)
    powers = torch.exp(wide - highest[index])
    total = _sum(powers, index, num_segments)
    total = torch.where(total == 0, torch.ones_like(total), total)
    return (powers / total[index]).to(scores.dtype)
