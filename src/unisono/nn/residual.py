"""Residual rules: how a branch joins the stream, and how loud it is.

Letters: T tokens, D width, B samples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unisono.core.registry import NonNegative, Positive, Probability, Registry, Traits
from unisono.core.tokens import Meta
from unisono.nn.part import Frame, Part

Branch = Callable[[bool], Tensor]
Change = Callable[[Tensor], Tensor]


class Residual(Part):
    """How a branch ``f`` joins the stream ``x``.

    Whatever the rule, ``f`` is multiplied by ``s = gain * L^-per_depth``, with L the number of layers (arXiv:2510.03470: 1 or 1/2 keeps
    the sum over depth bounded without norms), by a learned ``layerscale`` for each channel (arXiv:2103.17239), and in training by
    ``b / (1 - drop')`` with one random b of 0 or 1 for each sample, ``drop'`` rising linearly from 0 at the first layer to ``drop`` at the
    last (stochastic depth, arXiv:1603.09382).

    Args:
        width: D.
        frame: knows L.
        at: how deep the layer lies, from 0 to 1.
        gain: a constant factor.
        per_depth: the power of 1 / L in the factor.
        layerscale: first value of the learned factors; None for none.
        drop: probability of leaving the branch out, in the last layer.
    """

    #: How many norms a branch needs.
    num_norms: ClassVar[int] = 1
    #: Whether mixer and feed-forward read the same normalised tokens.
    parallel: ClassVar[bool] = False

    def __init__(
        self, *, width: int, frame: Frame, at: float = 0.0, gain: Positive = 1.0, per_depth: NonNegative = 0.0,
        layerscale: NonNegative | None = None, drop: Probability = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.factor = gain * max(frame.num_layers, 1) ** -per_depth
        self.scale = None if layerscale is None else nn.Parameter(torch.full((width,), float(layerscale)))
        self.drop = drop * at

    def plan_key(self) -> Hashable:
        """Samples are needed where branches are left out."""
        return "samples" if self.drop else None

    def plan(self, meta: Meta) -> tuple[Tensor, int]:
        """The sample of each token."""
        return meta.sample, meta.num_samples

    def scaled(self, change_TD: Tensor, plan: Any) -> Tensor:
        """``s f``."""
        if self.factor != 1.0:
            change_TD = change_TD * self.factor
        if self.scale is not None:
            change_TD = change_TD * self.scale
        if self.training and self.drop:
            sample, count = plan
            kept = (torch.rand(count, 1, device=change_TD.device) >= self.drop).to(change_TD.dtype) / (1.0 - self.drop)
            change_TD = change_TD * kept[sample]
        return change_TD

    @abstractmethod
    def join(self, x_TD: Tensor, branch: Branch, norm: Change, plan: Any) -> Tensor:
        """The stream after the branch.

        Args:
            x_TD: the stream.
            branch: ``f`` of the normalised stream (True) or of the stream itself (False).
            norm: the branch's last norm.
            plan: what ``plan`` gave.
        """


residuals: Registry[Residual] = Registry("residual", Residual, package="unisono.nn", runtime=("width", "frame", "at"))


@residuals.register("pre", source="arXiv:2002.04745")
class Pre(Residual):
    """``x + s f(norm(x))``."""

    def join(self, x_TD: Tensor, branch: Branch, norm: Change, plan: Any) -> Tensor:
        """Add what the normalised stream gives."""
        return x_TD + self.scaled(branch(True), plan)


@residuals.register("post", source="arXiv:1706.03762")
class Post(Residual):
    """``norm(x + s f(x))``."""

    def join(self, x_TD: Tensor, branch: Branch, norm: Change, plan: Any) -> Tensor:
        """Normalise the sum."""
        return norm(x_TD + self.scaled(branch(False), plan))


@residuals.register("sandwich", source="arXiv:2105.13290")
class Sandwich(Residual):
    """``x + s norm'(f(norm(x)))``."""

    num_norms = 2

    def join(self, x_TD: Tensor, branch: Branch, norm: Change, plan: Any) -> Tensor:
        """Normalise before and behind the branch."""
        return x_TD + self.scaled(norm(branch(True)), plan)


@residuals.register("parallel", source="arXiv:2302.05442")
class Parallel(Pre):
    """``x + s (mixer(norm(x)) + ffn(norm(x)))``: both branches read the same normalised stream."""

    parallel = True


@residuals.register("replace", traits=Traits(exempt={"source": "no residual at all, which no paper claims"}))
class Replace(Residual):
    """``s f(norm(x))``: the branch takes the stream's place; for plain feed-forward networks without residuals."""

    def join(self, x_TD: Tensor, branch: Branch, norm: Change, plan: Any) -> Tensor:
        """What the normalised stream gives."""
        return self.scaled(branch(True), plan)
