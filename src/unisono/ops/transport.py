"""Optimal transport between small sets, many pairs of sets at once.

Letters: P pairs of sets, A and B members of the two sides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unisono.core.errors import ShapeError


def sinkhorn(scores_PAB: Tensor, mass_PA: Tensor, mass_PB: Tensor, *, sharpness: float = 10.0, rounds: int = 20) -> Tensor:
    """The plan ``argmax <plan, scores> + H(plan) / k`` with the given masses on both sides, by scaling in logarithms.

    Source: Cuturi 2013, "Sinkhorn distances", arXiv:1306.0895.

    Args:
        scores_PAB: how alike members are, (P, A, B).
        mass_PA: of the members of one side, (P, A), summing to 1; members of mass 0 take no part.
        mass_PB: of the other, (P, B).
        sharpness: k; the larger, the nearer to the best matching.
        rounds: of scaling.

    Returns:
        (P, A, B) non-negative; its sums over A are ``mass_PB`` exactly, those over B nearly ``mass_PA``.

    Raises:
        ShapeError: the shapes do not fit.
    """
    if scores_PAB.shape[:2] != mass_PA.shape or (scores_PAB.shape[0], scores_PAB.shape[2]) != mass_PB.shape:
        raise ShapeError(f"scores {tuple(scores_PAB.shape)} do not fit masses {tuple(mass_PA.shape)} and {tuple(mass_PB.shape)}")
    low = -1e9 if scores_PAB.dtype == torch.float64 else -1e6
    log_a = torch.where(mass_PA > 0, mass_PA.clamp_min(1e-30).log(), torch.full_like(mass_PA, low))
    log_b = torch.where(mass_PB > 0, mass_PB.clamp_min(1e-30).log(), torch.full_like(mass_PB, low))
    energy = sharpness * scores_PAB
    f, g = torch.zeros_like(mass_PA), torch.zeros_like(mass_PB)
    for _ in range(rounds):
        f = -torch.logsumexp(energy + (g + log_b)[:, None, :], 2)
        g = -torch.logsumexp(energy + (f + log_a)[:, :, None], 1)
    return torch.exp(energy + (f + log_a)[:, :, None] + (g + log_b)[:, None, :])
