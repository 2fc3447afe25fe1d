"""Feed-forward parts: token-wise two-layer networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from unisono.core.registry import Positive, Probability, Registry
from unisono.nn.dropout import Dropout

# T tokens, D width, F inner width


class FeedForward(nn.Module):
    """A token-wise network: ``forward((T, D)) -> (T, D)``."""


feed_forwards: Registry[FeedForward] = Registry("feed-forward", FeedForward, package="unisono.nn", runtime=("width",))


def silent(linear: nn.Linear) -> nn.Linear:
    """Make the last map of a residual branch nearly zero, so that a new layer changes next to nothing (arXiv:2003.04887, arXiv:1901.09321).

    The network then starts as a function of each token by itself, linear from the token on, and takes up interaction as it learns.
    """
    nn.init.normal_(linear.weight, std=0.01 * linear.in_features**-0.5)
    nn.init.zeros_(linear.bias)
    return linear


@feed_forwards.register("mlp", source="arXiv:1706.03762")
class MLP(FeedForward):
    """``y = W2 gelu(W1 x + b1) + b2`` with an inner width of ``expansion`` times D.

    Args:
        width: D.
        expansion: F / D.
        dropout: probability of dropping an inner unit in training.
    """

    def __init__(self, *, width: int, expansion: Positive = 4.0, dropout: Probability = 0.0) -> None:
        super().__init__()
        inner = max(1, round(width * expansion))
        self.up, self.down = nn.Linear(width, inner), silent(nn.Linear(inner, width))
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Transform (T, D)."""
        result: Tensor = self.down(self.dropout(gelu(self.up(x_TD))))
        return result


@feed_forwards.register("gated", source="arXiv:2002.05202")
class GatedMLP(FeedForward):
    """``y = W2 (silu(Wg x) * W1 x)``: the inner units are gated (SwiGLU).

    Args:
        width: D.
        expansion: F / D; 8/3 has as many weights as an MLP of 4.
        dropout: probability of dropping an inner unit in training.
    """

    def __init__(self, *, width: int, expansion: Positive = 8 / 3, dropout: Probability = 0.0) -> None:
        super().__init__()
        inner = max(1, round(width * expansion))
        self.up, self.down = nn.Linear(width, 2 * inner), silent(nn.Linear(inner, width))
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Transform (T, D)."""
        gate, value = self.up(x_TD).chunk(2, -1)
        result: Tensor = self.down(self.dropout(silu(gate) * value))
        return result
