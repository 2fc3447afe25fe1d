"""Next token: every state says which token comes behind it in its cell.

Letters: T tokens, D width, V codes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.errors import ShapeError
from unisono.core.registry import Count
from unisono.core.tokens import Meta
from unisono.objectives.base import Objective, objectives
from unisono.objectives.losses import cross_entropy


def following(meta: Meta) -> Tensor:
    """The token behind each token in the raster order of its cell's item, (T,) int64; -1 for the last, and where there is no order.

    Inserted tokens and those of one place (points, nodes) have none. The order is that of ``causal(place)`` and ``causal(sequence)``
    within a cell, so that a state of a trunk with one of these scopes has not seen the token that it is to tell.
    """
    keys = [*meta.place.numpy().T[::-1], meta.level.numpy(), meta.item.numpy(), meta.column.numpy(), meta.groups.numpy()]
    order = np.lexsort(keys)
    cell = np.stack([keys[k][order] for k in (-1, -2, -3, -4)])
    together = (cell[:, 1:] == cell[:, :-1]).all(0) & (meta.column.numpy()[order][1:] >= 0)
    place = meta.place.numpy()[order]
    together &= (place[1:] != place[:-1]).any(1)
    behind = np.full(len(meta), -1, np.int64)
    behind[order[:-1][together]] = order[1:][together]
    return torch.from_numpy(behind)


def next_token(scores: Tensor, codes: Tensor, behind: Tensor) -> Tensor:
    """``-log softmax(scores_t)[codes_u]`` with u the token behind t: the likelihood of a sequence given its first token.

    Source: arXiv:1706.03762, section 3; as a training objective of its own arXiv:2005.14165.

    Args:
        scores: (T, V).
        codes: (T,) the code of each token.
        behind: (T,) what ``following`` gives.

    Returns:
        (T,) nats, zero for a token with none behind it.

    Raises:
        ShapeError: the shapes do not fit.
    """
    if codes.shape != scores.shape[:1] or behind.shape != codes.shape:
        raise ShapeError(f"scores {tuple(scores.shape)}, codes {tuple(codes.shape)}, tokens behind {tuple(behind.shape)}")
    return cross_entropy(scores, codes[behind.clamp(min=0)] if len(codes) else codes, behind >= 0)


@objectives.register("next_token", source="arXiv:2005.14165")
class NextToken(Objective):
    """The mean of ``next_token`` of a linear map of the states, over tokens that have one behind them.

    Args:
        width: D.
        codes: V.
    """

    def __init__(self, *, width: int, codes: Count) -> None:
        super().__init__()
        self.head = nn.Linear(width, codes)

    def forward(self, states_TD: Tensor, codes: Tensor, behind: Tensor) -> Tensor:
        """The loss of states (T, D)."""
        return next_token(self.head(states_TD), codes, behind).sum() / (behind >= 0).sum().clamp(min=1)
