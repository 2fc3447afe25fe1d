"""Self-normalising feed-forward parts.

Letters: T tokens, D width, F inner width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear, selu

from unisono.core.registry import Positive, Probability
from unisono.nn.dropout import AlphaDropout
from unisono.nn.ffn import MLP, feed_forwards
from unisono.nn.part import Flow


@feed_forwards.register("snn", source="arXiv:1706.02515")
class SelfNormalisingMLP(MLP):
    """``y = drop(selu(W2 drop(selu(W1 x + b1)) + b2))``: keeps mean 0 and variance 1 over any depth, without a norm.

    Weights begin with variance 1 / fan-in and mean zero, biases at zero, so that (0, 1) attracts mean and variance. Meant for layers
    without mixer, ``{norm: none, mixer: none, residual: replace}``; each counts as two layers.

    Args:
        width: D.
        expansion: F / D.
        dropout: probability of alpha dropout.
    """

    def __init__(self, *, width: int, expansion: Positive = 1.0, dropout: Probability = 0.0) -> None:
        super().__init__(width=width, expansion=expansion, act="selu")
        self.dropout = AlphaDropout(dropout)
        for part in (self.up, self.down):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            nn.init.zeros_(part.bias)

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D)."""
        hidden = selu(linear(x_TD, self.up.weight[:units], self.up.bias[:units]))
        return self.dropout(selu(linear(self.dropout(hidden), self.down.weight[:, :units], self.down.bias)))  # type: ignore[no-any-return]
