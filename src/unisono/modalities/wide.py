"""The wide part: a linear map straight from fixed features of the cells to the scores, beside the deep network.

What a linear model of standardised numbers, TF-IDF weights or fixed-kernel features can say, the network then need not learn through
its layers; they learn the rest. Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems", arXiv:1606.07792.

The weights begin at zero and are learned ``rate`` times as fast as the others: ``y = rate * W x``, under an optimiser whose steps do
not depend on the gradient's scale. Missing cells add nothing.

Letters: B rows, N items of a column, F features, K scores of all targets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unisono.modalities.base import Packed
from unisono.nn.dropout import Dropout

#: How much faster the wide weights are learned, for few features.
RATE = 10.0
#: Beyond so many features the rate falls as one over their number, since so many weights moving together move the score.
MANY = 64


def wide_rate(features: int) -> float:
    """``RATE min(1, MANY / features)``."""
    return RATE * min(1.0, MANY / max(features, 1))


class Wide(nn.Module):
    """``y = rate * W x`` for (B, F) or (N, F) features; W (F, K) is zero at first.

    Args:
        features: F.
        outputs: K.
        dropout: probability of leaving a feature out in training.
    """

    def __init__(self, features: int, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, outputs))
        self.rate = wide_rate(features)
        self.dropout = Dropout(dropout)

    def forward(self, x_NF: Tensor) -> Tensor:
        """Scores (N, K)."""
        scores: Tensor = self.dropout(x_NF).to(self.weight.dtype) @ self.weight
        return self.rate * scores


class WideItems(nn.Module):
    """The wide part of a column whose items have F features each: the mean over a row's items, zero for a row without any.

    Args:
        name: which of the pack's inputs holds the features (N, F).
        first: name of the pack's input that says before how many tokens the items' own ones begin; None for none.
        every: tokens of an item, side by side.
        wide: the map.
    """

    def __init__(self, name: str, wide: nn.Module, *, every: int = 1, first: str | None = None) -> None:
        super().__init__()
        self.name, self.first, self.every, self.wide = name, first, every, wide

    def forward(self, packed: Packed, rows: int) -> Tensor:
        """Scores (B, K)."""
        features = packed.inputs[self.name]
        start = int(packed.inputs[self.first]) if self.first is not None else 0
        sample = packed.sample[start : start + len(features) * self.every : self.every]
        return mean_by_row(self.wide(features), sample, rows)


def mean_by_row(scores_NK: Tensor, sample_N: Tensor, rows: int) -> Tensor:
    """The mean over each row's items: (N, K) -> (B, K), zeros for a row without any."""
    total = scores_NK.new_zeros(rows, scores_NK.shape[1]).index_add(0, sample_N, scores_NK)
    return total / torch.bincount(sample_N, minlength=rows).clamp_min(1).unsqueeze(1).to(scores_NK.dtype)
