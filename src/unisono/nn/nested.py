"""Nested feed-forwards: one set of weights of which the first part is a smaller network by itself.

Letters: T tokens, D width, F inner width, m inner units in use.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError, UserError
from unisono.core.registry import Positive
from unisono.core.tokens import Meta
from unisono.nn.ffn import MLP, FeedForward, GatedMLP
from unisono.nn.norm import LayerNorm
from unisono.nn.part import Flow, Frame, Part
from unisono.nn.share import Linear, Make, Sharing, sharings


class Nested(Part):
    """``y = W2[:, :m] act(W1[:m] x)``: the first m inner units alone.

    In training m is drawn for each pass, the same for all layers; in evaluation it is ``units``, a buffer: F unless ``choose_units`` said
    otherwise.

    Args:
        ffn: the whole feed-forward.
        sizes: the values of m that are trained, ascending up to F.
    """

    units: Tensor

    def __init__(self, *, ffn: FeedForward, sizes: Sequence[int]) -> None:
        super().__init__()
        self.ffn, self.sizes = ffn, tuple(sizes)
        self.register_buffer("units", torch.tensor(ffn.inner))

    def plan_key(self) -> Hashable:
        """As of the whole."""
        return self.ffn.plan_key()

    def plan(self, meta: Meta) -> Any:
        """As of the whole."""
        return self.ffn.plan(meta)

    def forward(self, x_TD: Tensor, plan: Any = None, flow: Flow | None = None) -> Tensor:
        """Transform (T, D)."""
        if self.training:
            units = self.sizes[(Flow() if flow is None else flow).draw(("nested", self.sizes), len(self.sizes))]
        else:
            units = int(self.units)
        return self.ffn(x_TD, plan, flow, None if units == self.ffn.inner else units)  # type: ignore[no-any-return]

    def cut(self) -> FeedForward:
        """The feed-forward of its first ``units`` inner units, with weights of its own."""
        return cut(self.ffn, int(self.units))


def cut(ffn: FeedForward, units: int) -> FeedForward:
    """A feed-forward of the first ``units`` inner units of another; the weights are copied.

    Raises:
        UserError: there are not so many, or the feed-forward has no inner units in an order.
    """
    if not isinstance(ffn, MLP | GatedMLP):
        raise UserError(f"no slice can be cut from a {type(ffn).__name__}: it has to be an mlp or a gated one")
    if not 0 < units <= ffn.inner:
        raise UserError(f"{units} inner units are wanted of a feed-forward that has {ffn.inner}; choose 1 to {ffn.inner}")
    part = copy.deepcopy(ffn)
    rows = torch.arange(ffn.up.out_features).view(-1, ffn.inner)[:, :units].flatten()
    part.inner = units
    if isinstance(ffn.sub_norm, LayerNorm) and isinstance(part.sub_norm, LayerNorm):
        part.sub_norm.weight = nn.Parameter(ffn.sub_norm.weight[:units].detach().clone())
        part.sub_norm.bias = nn.Parameter(ffn.sub_norm.bias[:units].detach().clone())
    part.up, part.down = _linear(ffn.up.weight[rows], ffn.up.bias[rows]), _linear(ffn.down.weight[:, :units], ffn.down.bias)
    return part


def _linear(weight: Tensor, bias: Tensor) -> Linear:
    part = Linear(weight.shape[1], weight.shape[0], device="meta")  # no random number is spent on what is overwritten
    part.weight, part.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return part


def nested_parts(module: nn.Module) -> list[Nested]:
    """The nested feed-forwards of a module, each once, in order."""
    return [part for part in module.modules() if isinstance(part, Nested)]


def choose_units(module: nn.Module, units: int | Sequence[int]) -> None:
    """Say how many inner units are used in evaluation: one number for all layers or one for each (mix and match).

    Raises:
        UserError: there are not so many layers or units.
    """
    parts = nested_parts(module)
    wanted = [units] * len(parts) if isinstance(units, int) else list(units)
    if len(wanted) != len(parts):
        raise UserError(f"numbers of units are given for {len(wanted)} nested feed-forwards, but there are {len(parts)}")
    for part, number in zip(parts, wanted, strict=True):
        if not 0 < number <= part.ffn.inner:
            raise UserError(f"{number} inner units are wanted of a feed-forward that has {part.ffn.inner}; choose 1 to {part.ffn.inner}")
    for part, number in zip(parts, wanted, strict=True):
        part.units.fill_(number)


def extract(module: nn.Module) -> nn.Module:
    """A copy in which every nested feed-forward is the smaller one that evaluation would use; it is nested no more."""
    module = copy.deepcopy(module)
    if isinstance(module, Nested):
        return module.cut()
    made: dict[int, FeedForward] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Nested):
                setattr(parent, name, made.setdefault(id(child), child.cut()))
    return module


@sharings.register("nested", source="arXiv:2310.07707")
class ShareNested(Sharing):
    """One feed-forward whose first inner units are smaller feed-forwards by themselves.

    Each pass in training uses the first ``m = widths[i] F`` inner units for a random i, in all layers alike; evaluation uses all of them,
    or as many for each layer as ``choose_units`` says; ``extract`` gives the smaller model.

    Args:
        widths: the shares of the inner units that are trained, ascending up to 1.

    Raises:
        ConfigError: the shares do not ascend up to 1, or are too small for two of them to differ.
    """

    roles = ("ffn",)

    def __init__(self, *, widths: Sequence[Positive] = (0.125, 0.25, 0.5, 1.0)) -> None:
        if not widths or widths[-1] != 1 or any(b <= a for a, b in pairwise(widths)):
            raise ConfigError(f"nested: widths={list(widths)} has to ascend up to 1, for example [0.25, 0.5, 1]")
        self.widths = tuple(widths)

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """A nested feed-forward."""
        ffn = make()
        if not isinstance(ffn, FeedForward) or not ffn.inner:
            raise ConfigError("nested: this feed-forward has no inner units to choose from; take mlp or gated")
        sizes = [max(1, round(w * ffn.inner)) for w in self.widths]
        if len(set(sizes)) < len(sizes):
            raise ConfigError(f"nested: widths={list(self.widths)} of {ffn.inner} inner units are {sizes} units; leave some out")
        return Nested(ffn=ffn, sizes=sizes)
