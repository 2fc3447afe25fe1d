"""Layer norms as RMS norms while a trunk goes on training, and with one value less of each token (arXiv:2305.14858).

``fold rms`` keeps a stream at mean zero once and for all; here the means are taken off in every pass, so that training goes on as it would
have, or the last of a token's D values is left out, being minus the sum of the others.

Letters: T tokens, D width, I inputs, O outputs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unisono.compress.branch import Branch, branches, norms_of, walk
from unisono.compress.fold import fold
from unisono.compress.stream import Centre, hindrance
from unisono.core.errors import ConfigError
from unisono.nn.affine import Standard, affine_of
from unisono.nn.dropout import Dropout
from unisono.nn.ffn import MLP, GatedMLP
from unisono.nn.fork import ForkByTask, Within
from unisono.nn.insert import Bottleneck
from unisono.nn.layer import Layer
from unisono.nn.norm import CompressedRMSNorm, LayerNorm, RMSNorm
from unisono.nn.part import Flow, Part
from unisono.nn.read import Read
from unisono.nn.resample import Pool
from unisono.nn.share import Linear, PerSet
from unisono.nn.step import Step, Walk
from unisono.nn.tap import Save
from unisono.nn.trunk import Trunk

#: Steps that work on tokens of any width, and those whose own vectors can be shortened.
_ANY_WIDTH = (Save, Within, ForkByTask, Pool, Bottleneck, Centre, Layer)


def recentred(weight: Tensor) -> Tensor:
    """``(I - 11'/O) W``: a map's weight (O, I) or bias (O,) with the mean over its outputs taken off."""
    return weight - weight.mean(0, keepdim=True)


def reading_short(weight_OI: Tensor) -> Tensor:
    """The map (O, I - 1) that gives of the first I - 1 values what (O, I) gives of all, where these sum to zero."""
    return weight_OI[:, :-1] - weight_OI[:, -1:]


class Recentred(nn.Module):
    """``recentred`` as a parametrisation: the weights beneath are free, and what is used of them has mean zero."""

    def forward(self, weight: Tensor) -> Tensor:
        """Take the mean off."""
        return recentred(weight)


class Shorten(Step):
    """``x - mean(x)`` without its last value, on entering a trunk."""

    def plan(self, walk: Walk) -> None:
        """Nothing."""
        return

    def forward(self, x_TD: Tensor, plan: Any, flow: Flow) -> Tensor:
        """(T, D) to (T, D - 1)."""
        return (x_TD - x_TD.mean(1, keepdim=True))[:, :-1]


class Complete(Step):
    """Adds the value that makes each token sum to zero, before a trunk's read."""

    def plan(self, walk: Walk) -> None:
        """Nothing."""
        return

    def forward(self, x_TD: Tensor, plan: Any, flow: Flow) -> Tensor:
        """(T, D - 1) to (T, D)."""
        return torch.cat([x_TD, -x_TD.sum(1, keepdim=True)], 1)


def check_rms(trunk: Trunk) -> None:
    """Refuse a trunk whose layer norms are no RMS norms.

    Raises:
        ConfigError: something reads the stream otherwise than through a layer norm, or gives it a mean; there is no last norm.
    """
    reason = hindrance(trunk)
    if reason is not None:
        raise ConfigError(f"layer norm cannot become RMS norm: {reason or 'there is none'}")


def trainable_rms(trunk: Trunk) -> Trunk:
    """A copy of the trunk with RMS norms in place of layer norms, that trains as the trunk itself would have.

    The maps that write to the stream are parametrised: what is learned are the trunk's own weights, and their mean is taken off in
    every pass. Weights shared over depth stay shared.

    Raises:
        ConfigError: layer norm cannot become RMS norm, or dropout behind a branch's last map would shift the mean in training.
    """
    check_rms(trunk)
    made = copy.deepcopy(trunk)
    for b in branches(made):
        if _drops_behind(b):
            raise ConfigError(f"{b.place}: dropout behind the last map shifts the mean of tokens in training; set it to 0")
        for linear in (part for bundle in b.writes or () for part in bundle.parts):
            if not parametrize.is_parametrized(linear):
                for name, _ in list(linear.named_parameters(recurse=False)):
                    parametrize.register_parametrization(linear, name, Recentred())
    known: dict[int, Part] = {}
    for _, step in walk(made):
        if isinstance(step, Read):
            step.norm = _turned(step.norm, known)
        elif isinstance(step, Layer):
            step.norms = nn.ModuleList(_turned(n, known) for n in step.norms)
            step.ffn_norms = nn.ModuleList(_turned(n, known) for n in step.ffn_norms)
    steps: list[Step] = [Centre()]
    names = ["centre"]
    for step, name in zip((s for s in made.steps if isinstance(s, Step)), made.names, strict=True):
        if isinstance(step, Within) and any(isinstance(s, Bottleneck) for s in step.modules()):
            raise ConfigError(f"{name}: tokens inserted on a selection cannot be centred in every pass")
        steps, names = [*steps, step], [*names, name]
        if isinstance(step, Bottleneck):
            steps, names = [*steps, Centre()], [*names, f"{name}.centre"]
    return Trunk(steps=steps, names=names, frame=made.frame, sorts_by=made.sorts_by)


def _drops_behind(b: Branch) -> bool:
    """Whether a branch drops values of its result; an MLP drops values before its last map."""
    parts: list[nn.Module] = [b.layer.mixer] if b.mixes else []
    if not b.mixes or b.rule.parallel:
        parts += [p for p in (b.layer.ffn.parts if isinstance(b.layer.ffn, PerSet) else [b.layer.ffn]) if type(p) not in {MLP, GatedMLP}]
    return any(isinstance(m, Dropout) and m.dropped for part in parts for m in part.modules())


def _turned(part: nn.Module, known: dict[int, Part]) -> Part:
    """A layer norm, or one for each set, as an RMS norm that has its parameters."""
    if id(part) not in known:
        if isinstance(part, PerSet):
            known[id(part)] = PerSet([_turned(p, known) for p in part.parts], part.by, part.key)
        else:
            assert isinstance(part, LayerNorm)
            made = RMSNorm(width=len(part.weight), eps=part.eps, shift=True).train(part.training)
            made.weight, made.bias = part.weight, part.bias
            known[id(part)] = made
    return known[id(part)]


def compressed(trunk: Trunk) -> Trunk:
    """A copy of the trunk that carries D - 1 values of each token, with compressed RMS norms in place of layer norms.

    Scales, gains and shifts are folded into the maps. Answers are the same to rounding, in evaluation, and without dropout behind a
    branch's last map in training as well.

    Raises:
        ConfigError: layer norm cannot become RMS norm, or a part works at the width D alone.
    """
    made, training = copy.deepcopy(trunk), trunk.training
    fold(made, "scale")
    check_rms(made)
    for word in ("affine", "rms"):
        fold(made, word)
    last = made.steps[-1]
    for name, step in walk(made):
        if step is not last and type(step) not in _ANY_WIDTH:
            raise ConfigError(f"{name}: a step {type(step).__name__} works at the whole width alone")
    done: set[tuple[int, bool]] = set()
    for b in branches(made):
        if b.reads is None or b.writes is None:
            raise ConfigError(f"{b.place}: which maps read and write the stream is not known")
        b.norms[0] = _short_norm(b)
        for maps, reads in ((b.reads, True), (b.writes, False)):
            for linear in (part for bundle in maps for part in bundle.parts if isinstance(part, Linear)):
                if (id(linear), reads) not in done:
                    _shorten(linear, reads)
                    done.add((id(linear), reads))
    for _, step in walk(made):
        if isinstance(step, Bottleneck):
            step.values = nn.Parameter(step.values.detach()[:, :-1].clone())
    inner = [s for s in made.steps if isinstance(s, Step)]
    steps: list[Step] = [Shorten(), *inner[1:-1], Complete(), inner[-1]]
    names = ["shorten", *made.names[1:-1], "complete", made.names[-1]]
    return Trunk(steps=steps, names=names, frame=made.frame, sorts_by=made.sorts_by).train(training)


def _short_norm(b: Branch) -> Part:
    """The compressed norm of a branch, its scale and shift gone into the maps behind it."""
    bundle = norms_of(b.norms[0])
    found = [] if bundle is None else [n for n in bundle.parts if isinstance(n, Standard)]
    if not found or len({n.eps for n in found}) > 1 or any(n.scale is not None or n.shift is not None for n in found):
        raise ConfigError(f"{b.place}: the norm's scale and shift cannot go into the map behind it; share norms as the maps, or not at all")
    return CompressedRMSNorm(width=len(found[0].one) - 1, eps=found[0].eps).to(found[0].one)


def _shorten(linear: Linear, reads: bool) -> None:
    """Take the last value out of what a map reads, or out of what it writes."""
    weight, bias = affine_of(linear)
    linear.weight = nn.Parameter(reading_short(weight.detach()) if reads else weight.detach()[:-1].clone())
    if bias is not None and not reads:
        linear.bias = nn.Parameter(bias.detach()[:-1].clone())
    linear.out_features, linear.in_features = linear.weight.shape
