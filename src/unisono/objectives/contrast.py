"""Contrast: what belongs together is nearer than what does not.

Letters: N and M rows of the two sides, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError, ShapeError
from unisono.core.registry import Positive
from unisono.objectives.base import Objective, objectives


def cosines(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    """``a_i b_j / (|a_i| |b_j|)``, (N, M), in float32 or better."""
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (a_ND, b_MD))
    return nn.functional.normalize(a, dim=1) @ nn.functional.normalize(b, dim=1).T


def info_nce(similarity: Tensor, positive: Tensor, temperature: Tensor | float, allowed: Tensor | None = None) -> Tensor:
    """``L_i = -1 / |P_i| sum_{p in P_i} log(exp(s_ip / t) / sum_j exp(s_ij / t))``: InfoNCE with any number of positives.

    Source: arXiv:1807.03748 (eq. 4) for one positive, arXiv:2004.11362 (eq. 2) for several.

    Args:
        similarity: s, (N, M).
        positive: (N, M) bool, which belong together; P_i is row i.
        temperature: t.
        allowed: (N, M) bool, what the sum over j runs over; positives are always in it. None for all.

    Returns:
        (N,) nats; exactly zero, without gradient, for a row without a positive.

    Raises:
        ShapeError: positives of another shape.
    """
    log_p, has = log_shares(similarity, positive, temperature, allowed)
    total = torch.where(positive, log_p, torch.zeros_like(log_p)).sum(1)
    return torch.where(has, -total / positive.sum(1).clamp(min=1), torch.zeros_like(total))


def log_shares(similarity: Tensor, positive: Tensor, temperature: Tensor | float, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``log softmax_j(s_ij / t)`` over what is allowed, (N, M), and which rows have a positive, (N,); the arguments are ``info_nce``'s.

    Raises:
        ShapeError: positives of another shape.
    """
    if positive.shape != similarity.shape:
        raise ShapeError(f"similarities {tuple(similarity.shape)}, but positives {tuple(positive.shape)}")
    has = positive.any(1)
    scores = torch.where(has[:, None], similarity / temperature, torch.zeros_like(similarity))
    if allowed is not None:
        scores = torch.where(allowed | positive | ~has[:, None], scores, torch.full_like(scores, -torch.inf))
    return torch.log_softmax(scores, 1), has


def same(a_N: Tensor, b_M: Tensor) -> Tensor:
    """(N, M) bool, where two identities agree; a negative one agrees with nothing."""
    return (a_N[:, None] == b_M[None, :]) & (a_N[:, None] >= 0)


class Temperature(nn.Module):
    """A learned temperature: ``t = lowest (highest / lowest)^sigmoid(r)``, r learned: between the bounds, and never stuck at one.

    Args:
        start: t at the start.
        lowest: t stays above; arXiv:2103.00020 keeps it above 0.01.
        highest: t stays below.
        where: the place to name in an error.
    """

    def __init__(self, start: float, lowest: float, highest: float, where: str) -> None:
        super().__init__()
        if not lowest < start < highest:
            raise ConfigError(f"{where}: the temperature {start} has to lie between its bounds, {lowest} and {highest}")
        self.lowest, self.highest = lowest, highest
        share = math.log(start / lowest) / math.log(highest / lowest)
        self.raw = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self) -> Tensor:
        """T."""
        return self.lowest * (self.highest / self.lowest) ** torch.sigmoid(self.raw)


@objectives.register("infonce", source="arXiv:2103.00020")
class InfoNCE(Objective):
    """The mean of ``info_nce`` from a to b and from b to a, over rows that have a positive, with a learned temperature within bounds.

    Args:
        temperature: t at the start.
        lowest: t stays above.
        highest: t stays below.
    """

    def __init__(self, *, temperature: Positive = 0.07, lowest: Positive = 0.01, highest: Positive = 1.0) -> None:
        super().__init__()
        self.learned = Temperature(temperature, lowest, highest, "infonce")

    @property
    def temperature(self) -> Tensor:
        """T."""
        t: Tensor = self.learned()
        return t

    def forward(self, a_ND: Tensor, b_MD: Tensor, positive: Tensor | None = None) -> Tensor:
        """The loss of two sides.

        Args:
            a_ND: (N, D).
            b_MD: (M, D).
            positive: (N, M) bool; None where row i belongs to row i.

        Raises:
            ShapeError: the positives do not fit.
        """
        similarity = cosines(a_ND, b_MD)
        if positive is None:
            if len(a_ND) != len(b_MD):
                raise ShapeError(f"{len(a_ND)} and {len(b_MD)} rows: say which belong together")
            positive = torch.eye(len(a_ND), dtype=torch.bool, device=similarity.device)
        t = self.temperature.to(similarity.dtype)
        sides = [(info_nce(similarity, positive, t), positive.any(1)), (info_nce(similarity.T, positive.T, t), positive.any(0))]
        return torch.stack([losses.sum() / has.sum().clamp(min=1) for losses, has in sides]).mean()
