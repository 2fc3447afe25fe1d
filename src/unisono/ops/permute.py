"""Reordering packed rows, forwards and backwards by plain gathers.

Letters: T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Permute(torch.autograd.Function):
    """Gathers forwards and gathers by the inverse backwards, where indexing would scatter and add."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """``x[order]``."""
        return x.index_select(0, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """Keep the permutation."""
        ctx.save_for_backward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """``grad[inverse]``."""
        order, inverse = ctx.saved_tensors
        return permute(grads[0], inverse, order), None, None


def permute(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """``out[t] = x[order[t]]`` for a permutation.

    Args:
        x: (T, ...).
        order: (T,) int64, every index once.
        inverse: (T,) its inverse, ``inverse[order] = 0..T-1``.

    Returns:
        (T, ...).
    """
    out: Tensor = _Permute.apply(x, order, inverse)  # type: ignore[no-untyped-call]
    return out
