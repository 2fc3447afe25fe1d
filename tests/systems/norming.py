"""Norms for the exact properties: built by their sentence, over tokens of a few modalities, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.contracts.parts import shake
from tests.tokens import FRAME
from unisono.core.tokens import Meta
from unisono.nn.norm import Norm, norms
from unisono.nn.part import Known

Answer = tuple[Tensor, ...]


def norm_of(sentence: str, width: int = 6, *, shaken: bool = True) -> Any:
    """A norm in float64 and training mode."""
    torch.manual_seed(5)
    made = norms.build(sentence, width=width, frame=FRAME)
    if shaken:
        shake(made)
    return made.double()


def values_of(meta: Meta, width: int = 6, seed: int = 0) -> Tensor:
    """Random tokens (T, D), each channel with a mean and a scale of its own."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(len(meta), width, dtype=torch.float64, generator=g)
    return x * torch.linspace(0.5, 2.0, width).double() + torch.linspace(-1.0, 1.5, width).double()


def normed(norm: Norm, x: Tensor, meta: Meta) -> Tensor:
    """What the norm makes of the tokens."""
    result: Tensor = norm(x, Known(meta).part(norm))
    return result


def gradient(norm: Norm, x: Tensor, meta: Meta, g: Tensor) -> Tensor:
    """The gradient of ``sum(g y)`` to the tokens."""
    x = x.clone().requires_grad_()
    (normed(norm, x, meta) * g).sum().backward()
    assert x.grad is not None
    return x.grad


def state_of(norm: Norm) -> dict[str, Tensor]:
    """The norm's running values."""
    return {k: v.clone() for k, v in norm.named_buffers()}
