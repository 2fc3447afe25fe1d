"""Exact changes of a trunk's norms: layer norms become root-mean-square ones, and fixed norms fold into the next map.

The stream of a pre-norm trunk can be kept at mean zero: tokens are centred where they enter, and every branch's last map has the mean of
its outputs taken off. Then layer norm is RMS norm, and the last of a token's D values can be left out, being minus the sum of the others
(arXiv:2305.14858). A norm that is a fixed scale and shift in evaluation is no step of its own there (arXiv:2208.01313).

Letters: T tokens, D width, I inputs, O outputs, M modalities.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unisono.core.errors import ConfigError
from unisono.nn.ffn import MLP, GatedMLP, NoFeedForward
from unisono.nn.insert import Bottleneck
from unisono.nn.layer import Layer
from unisono.nn.mixer import Attention, NoMixer
from unisono.nn.norm import CompressedRMSNorm, LayerNorm, NoNorm, RMSNorm
from unisono.nn.norm_batch import BatchNorm
from unisono.nn.norm_unified import UnifiedNorm
from unisono.nn.part import Flow, Part
from unisono.nn.read import Read
from unisono.nn.residual import Parallel, Pre, Residual
from unisono.nn.share import Linear, PerSet, SharePerModality
from unisono.nn.step import Step, Walk
from unisono.nn.tap import Save
from unisono.nn.trunk import Trunk

# --- pure functions on weights -------------------------------------------------------------------------------------------------------


def recentred(weight: Tensor) -> Tensor:
    """``(I - 11'/O) W``: a map's weight (O, I) or bias (O,) with the mean over its outputs taken off."""
    return weight - weight.mean(0, keepdim=True)


def shortened(weight: Tensor) -> Tensor:
    """``recentred`` without the last output, which is minus the sum of the others: (O - 1, I) or (O - 1,)."""
    return recentred(weight)[:-1]


def reading_short(weight_OI: Tensor) -> Tensor:
    """The map (O, I - 1) that gives of the first I - 1 values what (O, I) gives of all, where these sum to zero."""
    return weight_OI[:, :-1] - weight_OI[:, -1:]


def folded(weight_OI: Tensor, bias_O: Tensor, scale_I: Tensor, shift_I: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``W (s x + t) + b`` as a map of x."""
    return weight_OI * scale_I, bias_O + weight_OI @ shift_I


class Recentred(nn.Module):
    """``recentred`` as a parametrisation: the weights beneath are free, and what is used of them has mean zero."""

    def forward(self, weight: Tensor) -> Tensor:
        """Take the mean off."""
        return recentred(weight)


# --- steps at both ends --------------------------------------------------------------------------------------------------------------


class Centre(Step):
    """Takes each token's mean off, and with ``short`` its last value as well.

    Args:
        short: whether the last value is left out.
    """

    def __init__(self, *, short: bool) -> None:
        super().__init__()
        self.short = short

    def plan(self, walk: Walk) -> None:
        """Nothing."""
        return None

    def forward(self, x_TD: Tensor, plan: Any, flow: Flow) -> Tensor:
        """(T, D) to (T, D), or to (T, D - 1)."""
        x_TD = x_TD - x_TD.mean(1, keepdim=True)
        return x_TD[:, :-1] if self.short else x_TD


class Complete(Step):
    """Adds the value that makes each token sum to zero."""

    def plan(self, walk: Walk) -> None:
        """Nothing."""
        return None

    def forward(self, x_TD: Tensor, plan: Any, flow: Flow) -> Tensor:
        """(T, D - 1) to (T, D)."""
        return torch.cat([x_TD, -x_TD.sum(1, keepdim=True)], 1)


# --- layer norm to RMS norm ----------------------------------------------------------------------------------------------------------


def to_rms(trunk: Trunk, form: Literal["rms", "compressed"] = "rms", *, training: bool = False) -> Trunk:
    """The same function without layer norms (arXiv:2305.14858): the trunk's own weights are left as they are.

    Args:
        trunk: of layers with pre-norm or parallel residuals, attention and MLPs, and inserted tokens.
            What its layers share over depth they have copies of afterwards, save with ``training``.
        form: ``rms`` keeps the width; ``compressed`` carries D - 1 values of each token, with gains and shifts folded into the maps.
        training: whether the means are taken off in every forward pass, so that further training goes on as it would have; ``rms`` alone.

    Raises:
        ConfigError: the trunk has another residual rule, another norm, a step or part that would shift the mean, or no last norm.
    """
    if training and form != "rms":
        raise ConfigError("only the form rms can be trained on as the layer norm would have been")
    made = copy.deepcopy(trunk)
    steps = [s for s in made.steps if isinstance(s, Step)]
    work = _Short() if form == "compressed" else _Centred(training)
    whole: list[tuple[str, Step]] = [("centre", Centre(short=form == "compressed"))]
    for name, step in zip(made.names, steps, strict=True):
        more: list[tuple[str, Step]] = []
        if isinstance(step, Layer):
            _check_layer(step, name, training)
            work.layer(step, name)
        elif isinstance(step, Bottleneck):
            work.inserted(step)
            more = [(f"{name}.centre", Centre(short=False))] if training else []
        elif isinstance(step, Read) and step is steps[-1]:
            step.norm = work.last(_each(step.norm, f"{name}: the read", LayerNorm))
            whole += [("complete", Complete())] if form == "compressed" else []
        elif not isinstance(step, Save):
            raise ConfigError(f"{name}: a step {type(step).__name__} may shift the mean of tokens, so that layer norm is no RMS norm")
        whole += [(name, step), *more]
    return Trunk(steps=[s for _, s in whole], names=[n for n, _ in whole], frame=made.frame, sorts_by=made.sorts_by)


def _each(part: nn.Module, what: str, *kinds: type[nn.Module]) -> Any:
    """The part if it, or every copy of it, is of one of these kinds exactly.

    Raises:
        ConfigError: it is not.
    """
    copies = list(part.parts) if isinstance(part, PerSet) else [part]
    for one in copies:
        if type(one) not in kinds:
            raise ConfigError(f"{what} has a {type(one).__name__}, not a {' or '.join(k.__name__ for k in kinds)}")
    return part


def _check_layer(layer: Layer, name: str, training: bool) -> None:
    """Refuse what is no pre-norm layer of attention and an MLP.

    Raises:
        ConfigError: what stands in the way.
    """
    for rule in layer.residuals:
        _each(rule, f"{name}: the residual rule", Pre, Parallel)
        if training and isinstance(rule, Residual) and rule.scale is not None:
            raise ConfigError(f"{name}: a learned scale of the branch behind its last map shifts the mean as it learns")
    for norm in (*layer.norms, *layer.ffn_norms):
        _each(norm, f"{name}: the norm", LayerNorm)
    _each(layer.mixer, f"{name}: the mixer", Attention, NoMixer)
    _each(layer.ffn, f"{name}: the feed-forward", MLP, GatedMLP, NoFeedForward)
    if training and isinstance(layer.mixer, Attention) and layer.mixer.dropout.dropped:
        raise ConfigError(f"{name}: dropout behind the attention's last map shifts the mean in training; set it to 0")


def _copies(part: Any) -> Iterator[Any]:
    """A part, or each of its copies for a set of tokens.

    Yields:
        A part.
    """
    yield from part.parts if isinstance(part, PerSet) else [part]


def _outputs(layer: Layer) -> Iterator[tuple[Linear, Residual]]:
    """The last map of each branch, and the rule by which it joins.

    Yields:
        A map and its rule.
    """
    first, second = layer.residuals
    if isinstance(layer.mixer, Attention):
        yield from ((out, first) for out in _copies(layer.mixer.out))  # type: ignore[misc]
    rule = first if first.parallel else second
    yield from ((one.down, rule) for one in _copies(layer.ffn) if not isinstance(one, NoFeedForward))  # type: ignore[misc]


def _unshared(layer: Layer) -> None:
    """Give a layer weights of its own, and fold the branches' learned scales into their last maps."""
    layer.mixer, layer.ffn = copy.deepcopy(layer.mixer), copy.deepcopy(layer.ffn)
    layer.norms, layer.ffn_norms = copy.deepcopy(layer.norms), copy.deepcopy(layer.ffn_norms)
    with torch.no_grad():
        for linear, rule in _outputs(layer):
            if rule.scale is not None:
                linear.weight.mul_(rule.scale.unsqueeze(1))
                linear.bias.mul_(rule.scale)
    for joined in layer.residuals:
        joined.scale = None  # type: ignore[assignment]


class _Centred:
    """Layer norms become RMS norms of the same width."""

    def __init__(self, training: bool) -> None:
        self.training = training
        self.made: dict[int, nn.Module] = {}

    def layer(self, layer: Layer, name: str) -> None:
        """Change a layer."""
        if not self.training:
            _unshared(layer)
        for linear, _ in _outputs(layer):
            self.recentre(linear)
        layer.norms = nn.ModuleList(self.last(n) for n in layer.norms)
        layer.ffn_norms = nn.ModuleList(self.last(n) for n in layer.ffn_norms)

    def recentre(self, linear: Linear) -> None:
        """Take the mean off a map's outputs, once and for all or whenever it is used."""
        if parametrize.is_parametrized(linear):
            return
        if self.training:
            parametrize.register_parametrization(linear, "weight", Recentred())
            parametrize.register_parametrization(linear, "bias", Recentred())
            return
        with torch.no_grad():
            linear.weight.copy_(recentred(linear.weight))
            linear.bias.copy_(recentred(linear.bias))

    def inserted(self, step: Bottleneck) -> None:
        """Centre learned tokens, unless a step behind does."""
        if not self.training:
            with torch.no_grad():
                step.values.copy_(recentred(step.values.T).T)

    def last(self, norm: Any) -> Any:
        """An RMS norm with a layer norm's gain and shift, for each copy."""
        if isinstance(norm, PerSet):
            norm.parts = nn.ModuleList(self.last(one) for one in norm.parts)
            return norm
        if isinstance(norm, RMSNorm):
            return norm
        if id(norm) not in self.made:
            made = RMSNorm(width=len(norm.weight), eps=norm.eps, shift=True)
            made.weight, made.bias = norm.weight, norm.bias
            made.train(norm.training)
            self.made[id(norm)] = made
        return self.made[id(norm)]


class _Short(_Centred):
    """Layer norms become compressed RMS norms; tokens carry one value less."""

    def __init__(self) -> None:
        super().__init__(training=False)

    def layer(self, layer: Layer, name: str) -> None:
        """Change a layer."""
        _unshared(layer)
        if isinstance(layer.mixer, Attention):
            _replace(layer.mixer, "project", lambda one, k: _behind(one, _of_set(layer.norms[0], k, layer.mixer.project, name)))
            _replace(layer.mixer, "out", lambda one, k: _shorter(one))
        if not isinstance(layer.ffn, NoFeedForward):
            norm = layer.norms[0] if layer.residuals[0].parallel else layer.ffn_norms[0]
            for k, one in enumerate(_copies(layer.ffn)):
                one.up, one.down = _behind(one.up, _of_set(norm, k, layer.ffn, name)), _shorter(one.down)
        layer.norms = nn.ModuleList(self._bare(n) for n in layer.norms)
        layer.ffn_norms = nn.ModuleList(self._bare(n) for n in layer.ffn_norms)

    def inserted(self, step: Bottleneck) -> None:
        """Centre learned tokens and leave their last value out."""
        step.values = nn.Parameter(shortened(step.values.detach().T).T.contiguous())

    @staticmethod
    def _bare(norm: Any) -> CompressedRMSNorm:
        first = next(_copies(norm))
        return CompressedRMSNorm(width=len(first.weight) - 1, eps=first.eps).to(first.weight)


def _behind(linear: Linear, norm: LayerNorm) -> Linear:
    """The map behind a norm, reading short tokens, the norm's gain and shift folded in."""
    weight, bias = folded(linear.weight.detach(), linear.bias.detach(), norm.weight.detach(), norm.bias.detach())
    return _linear(reading_short(weight), bias)


def _shorter(linear: Linear) -> Linear:
    return _linear(shortened(linear.weight.detach()), shortened(linear.bias.detach()))


def _linear(weight: Tensor, bias: Tensor) -> Linear:
    made = Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made


def _replace(owner: nn.Module, key: str, change: Callable[[Any, int], nn.Module]) -> None:
    """Put something else in the place of a part, or of each of its copies."""
    part = getattr(owner, key)
    if isinstance(part, PerSet):
        part.parts = nn.ModuleList(change(one, k) for k, one in enumerate(part.parts))
    else:
        setattr(owner, key, change(part, 0))


def _of_set(norm: nn.Module, number: int, part: Any, name: str) -> Any:
    """The norm whose tokens the copy of a part gets.

    Raises:
        ConfigError: tokens of several norms go through one map.
    """
    if not isinstance(norm, PerSet):
        return norm
    if not isinstance(part, PerSet) or part.key != norm.key:
        raise ConfigError(f"{name}: the norm is not shared as the map behind it, into which it would be folded")
    return norm.parts[number]


# --- fixed norms into the next map ---------------------------------------------------------------------------------------------------


def fold_norms(trunk: Trunk) -> Trunk:
    """The same function in evaluation with ``batch`` and ``unified`` norms folded into the maps behind them; the read's norm stays.

    A norm's scale is a modality's, so that a map that all modalities share becomes one for each.

    Args:
        trunk: of layers with pre-norm or parallel residuals, attention and MLPs where they have such a norm; other layers stay. What layers
            share over depth they have copies of afterwards.

    Raises:
        ConfigError: a norm's place has no map of its own behind it.
    """
    made = copy.deepcopy(trunk).eval()
    for name, step in zip(made.names, made.steps, strict=True):
        if isinstance(step, Layer) and any(
            type(n) in {BatchNorm, UnifiedNorm} for k in (step.norms, step.ffn_norms) for p in k for n in _copies(p)
        ):
            _fold_layer(step, name, made)
    return made


def _fold_layer(layer: Layer, name: str, trunk: Trunk) -> None:
    for rule in layer.residuals:
        _each(rule, f"{name}: the residual rule", Pre, Parallel)
    for norm in (*layer.norms, *layer.ffn_norms):
        _each(norm, f"{name}: the norm", BatchNorm, UnifiedNorm)
    mixer = _each(layer.mixer, f"{name}: the mixer", Attention, NoMixer)
    ffn = _each(layer.ffn, f"{name}: the feed-forward", MLP, GatedMLP, NoFeedForward)
    if isinstance(mixer, Attention):
        layer.mixer = mixer = copy.deepcopy(mixer)
        mixer.project = _for_modalities(mixer.project, layer.norms[0], trunk, _folded_linear, name)
    if not isinstance(ffn, NoFeedForward):
        norm = layer.norms[0] if layer.residuals[0].parallel else layer.ffn_norms[0]
        layer.ffn = _for_modalities(ffn, norm, trunk, _folded_mlp, name)
    layer.norms = nn.ModuleList(NoNorm() for _ in layer.norms)
    layer.ffn_norms = nn.ModuleList(NoNorm() for _ in layer.ffn_norms)


Fold = Callable[[Any, Tensor, Tensor], Part]


def _for_modalities(part: Any, norm: nn.Module, trunk: Trunk, fold: Fold, name: str) -> Part:
    """A copy of the part for each modality, that modality's scale and shift folded in."""
    for shared in (part, norm):
        if isinstance(shared, PerSet) and shared.key != "modality":
            raise ConfigError(f"{name}: weights are shared by {shared.key}, statistics by modality, so that these cannot be folded in")
    copies = []
    for m in range(trunk.frame.num_modalities):
        one = norm.parts[m] if isinstance(norm, PerSet) else norm
        assert isinstance(one, BatchNorm | UnifiedNorm)
        scale, shift = one.fixed()
        copies.append(fold(part.parts[m] if isinstance(part, PerSet) else part, scale[m].detach(), shift[m].detach()))
    return SharePerModality().wrap(iter(copies).__next__, trunk.frame)


def _folded_linear(linear: Linear, scale: Tensor, shift: Tensor) -> Linear:
    return _linear(*folded(linear.weight.detach(), linear.bias.detach(), scale, shift))


def _folded_mlp(mlp: Any, scale: Tensor, shift: Tensor) -> Any:
    made = copy.copy(mlp)
    made._modules = {**mlp._modules, "up": _folded_linear(mlp.up, scale, shift)}
    return made
