"""Feed-forward parts: token-wise two-layer networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, selu, silu

from unisono.core.registry import Positive, Probability, Registry, Traits
from unisono.nn.dropout import Dropout
from unisono.nn.part import Flow, Part
from unisono.nn.share import Linear

# T tokens, D width, F inner width

Activation = Literal["gelu", "relu", "silu", "selu", "tanh", "identity"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu, "relu": relu, "silu": silu, "selu": selu, "tanh": torch.tanh, "identity": torch.nn.Identity(),
}  # fmt: skip


class FeedForward(Part):
    """A token-wise network: ``forward((T, D), plan) -> (T, D)``.

    Attributes:
        inner: F.
    """

    inner: int = 0

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D).

        Args:
            x_TD: tokens.
            plan: what ``plan`` gave.
            flow: takes terms of the loss.
            units: use the first so many inner units alone; None for all.
        """
        raise NotImplementedError


feed_forwards: Registry[FeedForward] = Registry("feed-forward", FeedForward, package="unisono.nn", runtime=("width", "frame"))


def silent(linear: Linear) -> Linear:
    """Make the last map of a residual branch nearly zero, so that a new layer changes next to nothing (arXiv:2003.04887, arXiv:1901.09321).

    The network then starts as a function of each token by itself, linear from the token on, and takes up interaction as it learns.
    """
    nn.init.normal_(linear.weight, std=0.01 * linear.in_features**-0.5)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


@feed_forwards.register("mlp", source="arXiv:1706.03762")
class MLP(FeedForward):
    """``y = W2 act(W1 x + b1) + b2`` with an inner width of ``expansion`` times D.

    Args:
        width: D.
        expansion: F / D.
        dropout: probability of dropping an inner unit in training.
        act: the nonlinearity.
    """

    def __init__(self, *, width: int, expansion: Positive = 4.0, dropout: Probability = 0.0, act: Activation = "gelu") -> None:
        super().__init__()
        self.inner = max(1, round(width * expansion))
        self.up, self.down = Linear(width, self.inner), silent(Linear(self.inner, width))
        self.dropout = Dropout(dropout)
        self.act = ACTIVATIONS[act]

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D)."""
        if units is None:
            result: Tensor = self.down(self.dropout(self.act(self.up(x_TD))))
            return result
        hidden = self.act(nn.functional.linear(x_TD, self.up.weight[:units], self.up.bias[:units]))
        return nn.functional.linear(self.dropout(hidden), self.down.weight[:, :units], self.down.bias)


@feed_forwards.register("gated", source="arXiv:2002.05202")
class GatedMLP(FeedForward):
    """``y = W2 (act(Wg x) * W1 x)``: the inner units are gated (SwiGLU with silu, GeGLU with gelu).

    Args:
        width: D.
        expansion: F / D; 8/3 has as many weights as an MLP of 4.
        dropout: probability of dropping an inner unit in training.
        act: the gate's nonlinearity.
    """

    def __init__(self, *, width: int, expansion: Positive = 8 / 3, dropout: Probability = 0.0, act: Activation = "silu") -> None:
        super().__init__()
        self.inner = max(1, round(width * expansion))
        self.up, self.down = Linear(width, 2 * self.inner), silent(Linear(self.inner, width))
        self.dropout = Dropout(dropout)
        self.act = ACTIVATIONS[act]

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D)."""
        if units is None:
            gate, value = self.up(x_TD).chunk(2, -1)
            result: Tensor = self.down(self.dropout(self.act(gate) * value))
            return result
        rows = torch.cat([torch.arange(units), self.inner + torch.arange(units)]).to(x_TD.device)
        gate, value = nn.functional.linear(x_TD, self.up.weight[rows], self.up.bias[rows]).chunk(2, -1)
        return nn.functional.linear(self.dropout(self.act(gate) * value), self.down.weight[:, :units], self.down.bias)


@feed_forwards.register("none", traits=Traits(exempt={"source": "no feed-forward at all"}))
class NoFeedForward(FeedForward):
    """``y = 0``: a layer that only mixes."""

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Zeros (T, D)."""
        return torch.zeros_like(x_TD)
