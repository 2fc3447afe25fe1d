"""Matching: does what two sources show belong together?

A trunk reads a pair as one sample and its pooled state is scored. Pairs that do not match are made within a batch, the more often the
more they look alike.

Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from unisono.core.errors import ShapeError
from unisono.core.registry import NonNegative
from unisono.core.tokens import Meta, concatenate
from unisono.objectives.base import Objective, objectives


def hard_partners(similarity: Tensor, together: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
    """For each row another side that does not belong to it: j with probability ``exp(s_ij / t) / sum_k exp(s_ik / t)`` over those.

    Source: arXiv:2107.07651, section 3.2.

    Args:
        similarity: s, (B, B), without gradient.
        together: (B, B) bool, which belong together.
        uniform: (B,) numbers in [0, 1), one a row.
        temperature: t; small for the most alike, large for any.

    Returns:
        (B,) int64, -1 for a row to which everything belongs.

    Raises:
        ShapeError: the shapes do not fit.
    """
    if together.shape != similarity.shape or uniform.shape != similarity.shape[:1]:
        raise ShapeError(f"similarities {tuple(similarity.shape)}, pairs {tuple(together.shape)}, numbers {tuple(uniform.shape)}")
    none = together.all(1)
    scores = (similarity.detach().double() / temperature).masked_fill(together, -torch.inf)
    scores = torch.where(none[:, None], torch.zeros_like(scores), scores)
    share = torch.softmax(scores, 1)
    reached = torch.cumsum(share, 1) > uniform.double()[:, None] * share.sum(1, keepdim=True)
    chosen = torch.where(reached & (share > 0), 1, 0).argmax(1)
    return torch.where(none, torch.full_like(chosen, -1), chosen)


def paired_with(meta: Meta, other: Tensor, partner: Tensor) -> tuple[Tensor, Meta]:
    """The tokens of pairs: of row i what it has itself, and of row ``partner[i]`` the tokens that ``other`` names.

    Args:
        meta: tokens of B rows.
        other: (T,) bool, tokens of the side that is exchanged.
        partner: (B,) int64; -1 makes no pair.

    Returns:
        (T',) where each token of the pairs comes from, and what is known of it; a row without a partner has no tokens.
    """
    own = torch.nonzero(~other & (partner[meta.sample] >= 0)).squeeze(1)
    theirs = torch.nonzero(other).squeeze(1)
    pairs = [(theirs[meta.sample[theirs] == j], i) for i, j in enumerate(partner.tolist()) if j >= 0]
    index = torch.cat([own, *(tokens for tokens, _ in pairs)])
    row = torch.cat([meta.sample[own], *(torch.full((len(tokens),), i) for tokens, i in pairs)])
    parts = [meta.select(own), *(meta.select(tokens) for tokens, _ in pairs)]
    return index, replace(concatenate(parts), sample=row)


def matching_loss(matched: Tensor, mismatched: Tensor) -> Tensor:
    """``mean(log(1 + exp(-s)))`` over matched and ``mean(log(1 + exp(s)))`` over mismatched pairs, every pair weighing alike.

    Args:
        matched: (N,) scores of pairs that belong together.
        mismatched: (M,) scores of pairs that do not.

    Returns:
        Nats a pair; zero without any pair.
    """
    losses = torch.cat([nn.functional.softplus(-matched), nn.functional.softplus(mismatched)])
    return losses.sum() / max(len(losses), 1)


@objectives.register("matching", source="arXiv:2107.07651")
class Matching(Objective):
    """Whether a pair matches: ``matching_loss`` of a linear map of its pooled state.

    Args:
        width: D.
        sharpness: how much more often what is more alike in the shared space is taken for a pair that does not match: the cosine's factor
            in ``hard_partners``.
        weight: of the loss beside others.
    """

    def __init__(self, *, width: int, sharpness: NonNegative = 10.0, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.sharpness, self.weight = sharpness, weight
        self.score = nn.Linear(width, 1)

    def scores(self, pooled: Tensor) -> Tensor:
        """(N, D) to (N,)."""
        wide: Tensor = self.score(pooled)[:, 0]
        return wide if wide.dtype == torch.float64 else wide.float()

    def forward(self, matched: Tensor, mismatched: Tensor) -> Tensor:
        """The loss of pooled states of pairs that belong together (N, D), and of pairs that do not (M, D)."""
        return matching_loss(self.scores(matched), self.scores(mismatched))
