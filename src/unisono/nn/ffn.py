"""Feed-forward parts: token-wise two-layer networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, selu, silu

from unisono.core.registry import Count, Positive, Probability, Registry, Traits
from unisono.nn.affine import affine_of, chained, summed, write_affine
from unisono.nn.dropout import Dropout
from unisono.nn.norm import LayerNorm, NoNorm
from unisono.nn.part import Flow, Part
from unisono.nn.share import Linear, Linears
from unisono.ops.linear import linear

# T tokens, D width, F inner width


def _same(x: Tensor) -> Tensor:
    return x


Activation = Literal["gelu", "relu", "silu", "selu", "tanh", "identity"]
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gelu": (gelu, torch.ops.aten.gelu_), "relu": (relu, torch.relu_), "silu": (silu, torch.ops.aten.silu_), "selu": (selu, torch.selu_),
    "tanh": (torch.tanh, torch.tanh_), "identity": (_same, _same),
}  # fmt: skip


class Act(nn.Module):
    """The nonlinearity behind a linear map. Without gradients it overwrites its input, which nobody else holds.

    Args:
        word: which.
    """

    def __init__(self, word: Activation) -> None:
        super().__init__()
        self.word = word
        self.fresh, self.over = _ACTIVATIONS[word]

    @property
    def is_identity(self) -> bool:
        """Whether it does nothing."""
        return self.word == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """Of every number."""
        return self.fresh(x) if torch.is_grad_enabled() else self.over(x)


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

    def linears(self) -> Linears | None:
        """The linear maps at its ends; None where they are of another kind, or the input goes elsewhere too."""
        return None


feed_forwards: Registry[FeedForward] = Registry("feed-forward", FeedForward, package="unisono.nn", runtime=("width", "frame"))


class SubNorm(LayerNorm):
    """A layer norm within a branch, ahead of its last map (arXiv:2210.06423); of the first units alone where the others are not there."""

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Normalise (T, F), or the first units of it."""
        m = x_TD.shape[-1]
        return nn.functional.layer_norm(x_TD, (m,), self.weight[:m], self.bias[:m], self.eps)


def sub_norm_of(width: int, wanted: bool) -> SubNorm | NoNorm:
    """A norm ahead of a branch's last map, or none."""
    return SubNorm(width=width) if wanted else NoNorm()


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
        sub_norm: whether the inner units are layer-normalised (arXiv:2210.06423).
    """

    def __init__(
        self, *, width: int, expansion: Positive = 4.0, dropout: Probability = 0.0, act: Activation = "gelu", sub_norm: bool = False
    ) -> None:
        super().__init__()
        self.inner = max(1, round(width * expansion))
        self.up, self.down = Linear(width, self.inner), silent(Linear(self.inner, width))
        self.sub_norm = sub_norm_of(self.inner, sub_norm)
        self.dropout = Dropout(dropout)
        self.act = Act(act)

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D)."""
        if units is None:
            result: Tensor = self.down(self.dropout(self.sub_norm(self.act(self.up(x_TD)))))
            return result
        hidden = self.sub_norm(self.act(linear(x_TD, self.up.weight[:units], self.up.bias[:units])))
        return linear(self.dropout(hidden), self.down.weight[:, :units], self.down.bias)

    def linears(self) -> Linears:
        """Up and down."""
        return Linears((self.up,), self.down)

    def folded(self) -> OneMap | None:
        """One map, where neither a nonlinearity nor a norm stands between the two."""
        if not self.act.is_identity or not isinstance(self.sub_norm, NoNorm):
            return None
        one = OneMap(width=self.up.in_features).to(self.up.weight)
        write_affine(one.map, chained(affine_of(self.down), affine_of(self.up)))
        return one


@feed_forwards.register("gated", source="arXiv:2002.05202")
class GatedMLP(FeedForward):
    """``y = W2 (act(Wg x) * W1 x)``: the inner units are gated (SwiGLU with silu, GeGLU with gelu).

    Args:
        width: D.
        expansion: F / D; 8/3 has as many weights as an MLP of 4.
        dropout: probability of dropping an inner unit in training.
        act: the gate's nonlinearity.
        sub_norm: whether the gated units are layer-normalised (arXiv:2210.06423).
    """

    def __init__(
        self, *, width: int, expansion: Positive = 8 / 3, dropout: Probability = 0.0, act: Activation = "silu", sub_norm: bool = False
    ) -> None:
        super().__init__()
        self.inner = max(1, round(width * expansion))
        self.up, self.down = Linear(width, 2 * self.inner), silent(Linear(self.inner, width))
        self.sub_norm = sub_norm_of(self.inner, sub_norm)
        self.dropout = Dropout(dropout)
        self.act = Act(act)

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D)."""
        if units is None:
            gate, value = self.up(x_TD).chunk(2, -1)
            result: Tensor = self.down(self.dropout(self.sub_norm(self.act(gate) * value)))
            return result
        rows = torch.cat([torch.arange(units), self.inner + torch.arange(units)]).to(x_TD.device)
        gate, value = linear(x_TD, self.up.weight[rows], self.up.bias[rows]).chunk(2, -1)
        return linear(self.dropout(self.sub_norm(self.act(gate) * value)), self.down.weight[:, :units], self.down.bias)

    def linears(self) -> Linears:
        """Up, gates included, and down."""
        return Linears((self.up,), self.down)


class OneMap(FeedForward):
    """``y = W x + b``: what is left of a feed-forward without a nonlinearity.

    Args:
        width: D.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.map = Linear(width, width)

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D); it has no inner units to be chosen."""
        result: Tensor = self.map(x_TD)
        return result

    def linears(self) -> Linears:
        """The one map."""
        return Linears((self.map,), self.map)


@feed_forwards.register("branched", source="arXiv:2103.13425")
class Branched(FeedForward):
    """``y = W2 act(W1 x + b1 + sum_k V_k (U_k x + c_k) + d_k) + b2``: an MLP that learns its first map as a sum of maps and chains of two.

    More ways for the gradient in training; a plain MLP when it is folded.

    Args:
        width: D.
        expansion: F / D.
        branches: how many maps are summed, the first by itself, the others chains through D units.
        dropout: probability of dropping an inner unit in training.
        act: the nonlinearity.
    """

    def __init__(
        self, *, width: int, expansion: Positive = 4.0, branches: Count = 2, dropout: Probability = 0.0, act: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.inner = max(1, round(width * expansion))
        self.width, self.act = width, Act(act)
        self.up, self.down = Linear(width, self.inner), silent(Linear(self.inner, width))
        self.into = nn.ModuleList(Linear(width, width) for _ in range(branches - 1))
        self.out = nn.ModuleList(Linear(width, self.inner) for _ in range(branches - 1))
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Transform (T, D)."""
        hidden = self.up(x_TD)
        for first, second in zip(self.into, self.out, strict=True):
            hidden = hidden + second(first(x_TD))
        hidden = self.dropout(self.act(hidden[:, :units]))
        return linear(hidden, self.down.weight[:, :units], self.down.bias)

    def linears(self) -> Linears:
        """The first map of every branch, and down."""
        return Linears((self.up, *self.into), self.down)

    def folded(self) -> MLP:
        """The MLP that it is."""
        plain = MLP(width=self.width, expansion=self.inner / self.width, act=self.act.word).to(self.up.weight)
        ends = zip(self.into, self.out, strict=True)
        chains = [chained(affine_of(second), affine_of(first)) for first, second in ends]  # type: ignore[arg-type]
        write_affine(plain.up, summed([affine_of(self.up), *chains]))
        write_affine(plain.down, affine_of(self.down))
        plain.dropout = self.dropout
        return plain


@feed_forwards.register("none", traits=Traits(exempt={"source": "no feed-forward at all"}))
class NoFeedForward(FeedForward):
    """``y = 0``: a layer that only mixes."""

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None, units: int | None = None) -> Tensor:
        """Zeros (T, D)."""
        return torch.zeros_like(x_TD)
