"""The same function with other weights: pure functions of linear maps ``y = W x + b`` and what stands before, behind and beside them.

Whatever is linear in evaluation can be multiplied out once and for all. A norm with fixed statistics is a scale and a shift of each
channel; scale and shift vanish in the linear map that reads or writes them; a chain or a sum of linear maps is one. Where nothing looks
at the mean over channels of the stream, every map that writes to it can give its part without one, so that ``LayerNorm(x) = RMSNorm(x)``
(arXiv:2305.14858). All hold without loss beyond rounding; each function computes in the type of its weights.

Letters: D width of the stream, I inputs, O outputs, H outputs of a map between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unisono.core.errors import ShapeError
from unisono.nn.norm import LayerNorm, Norm, RMSNorm


class Affine(NamedTuple):
    """A linear map.

    Attributes:
        weight: W, (O, I).
        bias: b, (O,), or None for zero.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        return nn.functional.linear(x, self.weight, self.bias)


def affine_of(linear: nn.Linear) -> Affine:
    """A module's weights."""
    return Affine(linear.weight, linear.bias)


def write_affine(linear: nn.Linear, affine: Affine) -> None:
    """Put weights into a module of the same shape; a bias is added where it had none."""
    with torch.no_grad():
        linear.weight.copy_(affine.weight)
    linear.register_parameter("bias", None if affine.bias is None else nn.Parameter(affine.bias.detach().clone()))


def scaled_before(linear: Affine, scale: Tensor | None, shift: Tensor | None) -> Affine:
    """``W (s x + t) + b`` as one map: ``W' = W diag(s)``, ``b' = b + W t``.

    Args:
        linear: W, b.
        scale: s, (I,), or None for ones.
        shift: t, (I,), or None for zeros.

    Raises:
        ShapeError: scale or shift are not of the map's inputs.
    """
    weight, bias = linear
    _fits(weight.shape[1], scale, shift)
    if shift is not None:
        bias = weight @ shift + (0.0 if bias is None else bias)
    return Affine(weight if scale is None else weight * scale, bias)


def scaled_behind(linear: Affine, scale: Tensor | float | None, shift: Tensor | None) -> Affine:
    """``s (W x + b) + t`` as one map: ``W' = diag(s) W``, ``b' = s b + t``.

    Args:
        linear: W, b.
        scale: s, (O,) or a number, or None for ones.
        shift: t, (O,), or None for zeros.

    Raises:
        ShapeError: scale or shift are not of the map's outputs.
    """
    weight, bias = linear
    _fits(weight.shape[0], scale, shift)
    if scale is not None:
        weight = weight * (scale.unsqueeze(1) if isinstance(scale, Tensor) else scale)
        bias = None if bias is None else bias * scale
    if shift is not None:
        bias = shift.clone() if bias is None else bias + shift
    return Affine(weight, bias)


def chained(second: Affine, first: Affine) -> Affine:
    """``W2 (W1 x + b1) + b2`` as one map: ``W2 W1`` and ``W2 b1 + b2``.

    Raises:
        ShapeError: the second does not read what the first gives.
    """
    if second.weight.shape[1] != first.weight.shape[0]:
        raise ShapeError(f"a map of {second.weight.shape[1]} inputs cannot follow one of {first.weight.shape[0]} outputs")
    bias = second.bias
    if first.bias is not None:
        bias = second.weight @ first.bias + (0.0 if bias is None else bias)
    return Affine(second.weight @ first.weight, bias)


def summed(linears: Sequence[Affine]) -> Affine:
    """``sum_k (W_k x + b_k)`` as one map (arXiv:2101.03697).

    Raises:
        ShapeError: there is none, or they are of different shapes.
    """
    shapes = {tuple(one.weight.shape) for one in linears}
    if len(shapes) != 1:
        raise ShapeError(f"linear maps of the shapes {sorted(shapes)} cannot be summed")
    biases = [one.bias for one in linears if one.bias is not None]
    return Affine(torch.stack([one.weight for one in linears]).sum(0), torch.stack(biases).sum(0) if biases else None)


def centred(linear: Affine) -> Affine:
    """The map without the mean over its outputs: ``C (W x + b)`` with ``C = I - 11' / O``."""
    weight, bias = linear
    return Affine(weight - weight.mean(0, keepdim=True), None if bias is None else bias - bias.mean())


def _fits(size: int, *parts: Tensor | float | None) -> None:
    for part in parts:
        if isinstance(part, Tensor) and part.shape != (size,):
            raise ShapeError(f"a scale or shift of shape {tuple(part.shape)} does not fit {size} channels")


class Parted(NamedTuple):
    """A norm as ``scale * n(x) + shift`` with ``n(x) = c / sqrt(mean(c^2) + eps)``.

    Attributes:
        centre: whether ``c = x - mean(x)``, else ``c = x``.
        eps: added to the mean square.
        scale: (D,).
        shift: (D,), or None for zeros.
    """

    centre: bool
    eps: float
    scale: Tensor
    shift: Tensor | None


def parted(norm: Norm) -> Parted | None:
    """A layer or RMS norm's scale and shift apart from its standardisation; None for a norm of another form."""
    if type(norm) is LayerNorm:
        return Parted(True, norm.eps, norm.weight, norm.bias)
    if type(norm) is RMSNorm:
        return Parted(False, norm.eps, norm.weight, getattr(norm, "bias", None))
    return None


class Standard(Norm):
    """``n(x) s + t`` with ``n(x) = c / sqrt(mean(c^2) + eps)``, and ``c = x - mean(x)`` or, where x has no mean, ``c = x``.

    What is left of a layer or RMS norm after its scale and shift have gone into the map behind it.

    Args:
        width: D.
        eps: added to the mean square.
        centre: whether the mean is taken off.
        scale: s, or None for ones.
        shift: t, or None for zeros.
    """

    one: Tensor
    zero: Tensor

    def __init__(self, *, width: int, eps: float, centre: bool, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        self.eps, self.centre, self.shape = eps, centre, (width,)
        self.scale = None if scale is None else nn.Parameter(scale.detach().clone())
        self.shift = None if shift is None else nn.Parameter(shift.detach().clone())
        # a kernel without weights takes twice the time of the one that multiplies by one
        self.register_buffer("one", torch.ones(width), persistent=False)
        self.register_buffer("zero", torch.zeros(width), persistent=False)

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Normalise (T, D)."""
        if self.centre:
            scale = self.one if self.scale is None else self.scale
            shift = self.zero if self.shift is None else self.shift
            return nn.functional.layer_norm(x_TD, self.shape, scale, shift, self.eps)
        y_TD = nn.functional.rms_norm(x_TD, self.shape, None, self.eps)
        if self.scale is None:
            return y_TD if self.shift is None else y_TD + self.shift
        return y_TD * self.scale if self.shift is None else torch.addcmul(self.shift, y_TD, self.scale)
