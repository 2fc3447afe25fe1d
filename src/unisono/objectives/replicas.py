"""Agreement of what a model makes of one thing shown several times.

Letters: R replicas, B rows, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from unisono.core.errors import ShapeError


def scale_consistency(states: Tensor, *, beta: float = 1.0) -> Tensor:
    """Pull the states of a row's smaller replicas to that of the largest: ``1 / (R - 1) sum_{r > 1} mean_d smooth(z_rd - sg(z_1d))``.

    ``smooth(e) = e^2 / (2 beta)`` where ``|e| < beta``, else ``|e| - beta / 2``; ``sg`` stops the gradient, so that the state made of the
    most pixels teaches the others. Source: arXiv:2212.00776, section 3.2. It is zero if all replicas are one, or where there is but one.

    Args:
        states: (R, B, D) pooled states, the largest replica first.
        beta: where the square becomes a line.

    Returns:
        (B,) in float32 or better.

    Raises:
        ShapeError: the states are not (R, B, D).
    """
    if states.dim() != 3 or not len(states):
        raise ShapeError(f"states of replicas are (replicas, rows, width), got {tuple(states.shape)}")
    wide = states if states.dtype == torch.float64 else states.float()
    if len(states) == 1:
        return wide.sum((0, 2)) * 0.0
    target = wide[:1].detach().expand_as(wide[1:])
    return smooth_l1_loss(wide[1:], target, reduction="none", beta=beta).mean((0, 2))
