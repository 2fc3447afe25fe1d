"""Losses of contrast: from scores and positives to one number, with a learned temperature within bounds.

Letters: N queries, M candidates, R rows, S sources, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unisono.core.registry import NonNegative, Positive, Registry
from unisono.objectives.alike import multiply
from unisono.objectives.contrast import Temperature, info_nce, log_shares


@dataclass(frozen=True)
class Scored:
    """One direction of an ask.

    Attributes:
        scores: (N, M), larger for what is more alike.
        positive: (N, M) bool, what belongs together.
        allowed: (N, M) bool, what the loss may look at besides positives; None for all.
    """

    scores: Tensor
    positive: Tensor
    allowed: Tensor | None = None

    @property
    def negative(self) -> Tensor:
        """(N, M) bool, what is looked at and does not belong."""
        return ~self.positive if self.allowed is None else ~self.positive & self.allowed


def mean_over(losses: Tensor, has: Tensor) -> Tensor:
    """The mean over rows that have a positive; zero without any."""
    return losses.sum() / has.sum().clamp(min=1)


class Separation(nn.Module):
    """A loss of one direction."""

    #: How it is called.
    word = ""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, found: Scored) -> Tensor:
        """The mean over queries that have a positive, in nats; zero without any."""
        raise NotImplementedError


separations: Registry[Separation] = Registry("loss", Separation, package="unisono.objectives")


@separations.register("softmax", source="arXiv:1807.03748")
class Softmax(Separation):
    """InfoNCE, ``-mean_p log p_ip`` with ``p = softmax(s / t)``; with ``focus`` g a query counts ``(1 - mean_p p_ip)^g`` times.

    Weighing hard queries more is from arXiv:2506.20923; g = 0 is plain InfoNCE.

    Args:
        temperature: t at the start; it is learned.
        lowest: t stays above.
        highest: t stays below.
        focus: g.
    """

    word = "softmax"

    def __init__(self, *, temperature: Positive = 0.07, lowest: Positive = 0.01, highest: Positive = 1.0, focus: NonNegative = 0.0) -> None:
        super().__init__()
        self.temperature, self.focus = Temperature(temperature, lowest, highest, "softmax"), focus

    def forward(self, found: Scored) -> Tensor:
        """``info_nce`` of what is allowed."""
        t = self.temperature()
        losses = info_nce(found.scores, found.positive, t, found.allowed)
        if self.focus:
            log_p, _ = log_shares(found.scores.detach(), found.positive, t.detach(), found.allowed)
            share = torch.where(found.positive, log_p.exp(), torch.zeros_like(log_p)).sum(1)
            losses = losses * (1 - share / found.positive.sum(1).clamp(min=1)) ** self.focus
        return mean_over(losses, found.positive.any(1))


@separations.register("multiple", source="arXiv:1912.06430")
class Multiple(Separation):
    """MIL-NCE, ``-log(sum_{p in P_i} exp(s_ip / t) / sum_j exp(s_ij / t))``: it is enough if one of several positives is near.

    Args:
        temperature: t at the start; it is learned.
        lowest: t stays above.
        highest: t stays below.
    """

    word = "multiple"

    def __init__(self, *, temperature: Positive = 0.07, lowest: Positive = 0.01, highest: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, lowest, highest, "multiple")

    def forward(self, found: Scored) -> Tensor:
        """The share of all positives together."""
        log_p, has = log_shares(found.scores, found.positive, self.temperature(), found.allowed)
        mine = torch.where(found.positive, log_p, torch.full_like(log_p, -torch.inf))
        mine = torch.where(has[:, None], mine, torch.zeros_like(mine))
        return mean_over(torch.where(has, -torch.logsumexp(mine, 1), torch.zeros_like(mine[:, 0])), has)


@separations.register("soft", source="arXiv:2303.12501")
class Soft(Separation):
    """Similarity distribution matching, ``KL(p_i || q_i) = sum_j p_ij log(p_ij / (q_ij + e))``, q an equal share for each positive.

    Several positives share the probability, and at p = q no gradient is left.

    Args:
        temperature: t of ``p = softmax(s / t)`` at the start; it is learned.
        lowest: t stays above.
        highest: t stays below.
        least: e.
    """

    word = "soft"

    def __init__(self, *, temperature: Positive = 0.05, lowest: Positive = 0.01, highest: Positive = 1.0, least: Positive = 1e-8) -> None:
        super().__init__()
        self.temperature, self.least = Temperature(temperature, lowest, highest, "soft"), least

    def forward(self, found: Scored) -> Tensor:
        """The divergence."""
        log_p, has = log_shares(found.scores, found.positive, self.temperature(), found.allowed)
        q = found.positive.to(log_p.dtype) / found.positive.sum(1, keepdim=True).clamp(min=1)
        seen = torch.isfinite(log_p)
        log_p = torch.where(seen, log_p, torch.zeros_like(log_p))
        losses = torch.where(seen, log_p.exp() * (log_p - (q + self.least).log()), torch.zeros_like(log_p)).sum(1)
        return mean_over(torch.where(has, losses, torch.zeros_like(losses)), has)


@separations.register("sigmoid", source="arXiv:2303.15343")
class Sigmoid(Separation):
    """``-sum_ij log sigmoid(y_ij (s_ij / t + b)) / N``, y = 1 where i and j belong together, else -1; t and b are learned.

    Args:
        temperature: t at the start.
        lowest: t stays above.
        highest: t stays below.
        rarity: -b at the start: pairs that belong together are rare.
    """

    word = "sigmoid"

    def __init__(
        self, *, temperature: Positive = 0.1, lowest: Positive = 0.005, highest: Positive = 1.0, rarity: NonNegative = 10.0
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, lowest, highest, "sigmoid")
        self.bias = nn.Parameter(torch.tensor(-rarity))

    def forward(self, found: Scored) -> Tensor:
        """Over all pairs; the mean over queries."""
        z = found.scores / self.temperature() + self.bias
        sign = torch.where(found.positive, -1.0, 1.0).to(z.dtype)
        looked = found.positive | found.negative
        losses = torch.where(looked, nn.functional.softplus(sign * z), torch.zeros_like(z))
        has = found.positive.any(1)
        return mean_over(torch.where(has, losses.sum(1), torch.zeros_like(losses[:, 0])), has)


@separations.register("margin", source="arXiv:1707.05612")
class Margin(Separation):
    """``max_n [m - s_ip + s_in]_+``, the mean over positives p, n the most alike negative; with ``hardest: false`` the mean over negatives.

    Args:
        margin: m.
        hardest: look at the most alike negative only.
    """

    word = "margin"

    def __init__(self, *, margin: Positive = 0.2, hardest: bool = True) -> None:
        super().__init__()
        self.margin, self.hardest = margin, hardest

    def forward(self, found: Scored) -> Tensor:
        """The hinge."""
        s, negative = found.scores, found.negative
        has = found.positive.any(1) & negative.any(1)
        if self.hardest:
            worst = torch.where(negative, s, torch.full_like(s, -torch.inf)).amax(1) if s.shape[1] else s.sum(1)
            worst = torch.where(has, worst, torch.zeros_like(worst))
            over = (self.margin - s + worst[:, None]).clamp(min=0)
            losses = torch.where(found.positive, over, torch.zeros_like(over)).sum(1) / found.positive.sum(1).clamp(min=1)
        else:
            mine = torch.where(found.positive, s, torch.zeros_like(s)).sum(1) / found.positive.sum(1).clamp(min=1)
            over = (self.margin - mine[:, None] + s).clamp(min=0)
            losses = torch.where(negative, over, torch.zeros_like(over)).sum(1) / negative.sum(1).clamp(min=1)
        return mean_over(torch.where(has, losses, torch.zeros_like(losses)), has)


@separations.register("total_correlation", source="arXiv:2411.01053")
class TotalCorrelation(Separation):
    """Symile: each source in turn tells its row's tuple of the others from tuples put together of different rows.

    ``L = -1/S sum_m mean_i log(exp(f_i / t) / (exp(f_i / t) + sum_c exp(f_ic / t)))``, ``f_i`` the product of row i's S vectors and
    ``f_ic`` of its vector of source m with a tuple c of the other sources, each of a row drawn by itself. It bounds the total correlation
    of all sources, of which pairs see a part only. For two sources it is InfoNCE both ways. Tuples whose contents stand together in some
    row of the batch are no negatives.

    Args:
        temperature: t at the start; it is learned.
        lowest: t stays above.
        highest: t stays below.
        combinations: take every tuple of the batch's rows, ``R^(S - 1)`` of them, instead of R drawn ones.
    """

    word = "total_correlation"

    def __init__(
        self, *, temperature: Positive = 0.2, lowest: Positive = 0.01, highest: Positive = 10.0, combinations: bool = False
    ) -> None:
        super().__init__()
        self.temperature, self.combinations = Temperature(temperature, lowest, highest, "total_correlation"), combinations

    def of_tuples(self, vectors: Sequence[Tensor], contents: Sequence[Tensor]) -> Tensor:
        """The loss of R rows that have all S sources.

        Args:
            vectors: (R, E) of each source.
            contents: (R,) of each source, equal for equal cells.
        """
        rows = len(vectors[0])
        if rows < 2:
            return torch.stack([v.sum() * 0.0 for v in vectors]).sum()
        known = [torch.unique(c, return_inverse=True)[1] for c in contents]
        together = _joint(known, known)
        t, losses = self.temperature(), []
        for m, anchor in enumerate(vectors):
            others = [k for k in range(len(vectors)) if k != m]
            index = self._tuples(rows, len(others), anchor.device)
            made = multiply([vectors[k][i] for k, i in zip(others, index, strict=True)])
            true = (anchor * multiply([vectors[k] for k in others])).sum(1)
            scores = anchor @ made.T
            part = [known[k][i] for k, i in zip(others, index, strict=True)]
            same = torch.isin(_joint([known[m], *(known[k] for k in others)], [known[m], *part], cross=True), _order(together, known, m))
            scores = torch.where(same, torch.full_like(scores, -torch.inf), scores / t)
            both = torch.cat([true[:, None] / t, scores], 1)
            losses.append(-torch.log_softmax(both, 1)[:, 0].mean())
        return torch.stack(losses).mean()

    def _tuples(self, rows: int, others: int, device: torch.device) -> list[Tensor]:
        """The rows that each tuple takes each source from."""
        if self.combinations:
            grid = torch.cartesian_prod(*[torch.arange(rows, device=device)] * others) if others > 1 else torch.arange(rows, device=device)
            return list(grid.reshape(rows**others, -1).T)
        return [torch.arange(rows, device=device), *(torch.randperm(rows).to(device) for _ in range(others - 1))]


def _sizes(codes: Sequence[Tensor]) -> list[int]:
    return [int(c.max()) + 1 for c in codes]


def _joint(whole: Sequence[Tensor], part: Sequence[Tensor], cross: bool = False) -> Tensor:
    """One number for a tuple of contents; with ``cross`` (R, C), the first source's rows with every tuple of the others."""
    sizes = _sizes(whole)
    number = part[0][:, None] if cross else part[0]
    for size, codes in zip(sizes[1:], part[1:], strict=True):
        number = number * size + (codes[None, :] if cross else codes)
    return number


def _order(together: Tensor, known: Sequence[Tensor], first: int) -> Tensor:
    """The numbers of the rows' own tuples, counted with source ``first`` in front."""
    if first == 0:
        return together
    order = [known[first], *(c for k, c in enumerate(known) if k != first)]
    return _joint(order, order)
