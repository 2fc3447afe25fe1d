"""A recipe's trunk over the tokens of ``tests.tokens``, in float64, with no weight left at a special value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.contracts.parts import MODALITIES, shake
from tests.tokens import FRAME
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame
from unisono.nn.trunk import Trunk
from unisono.recipe import load_recipe

WIDTH = 8
SMALL = ("defaults.mixer=attention(heads=2)", "defaults.ffn=mlp(2)")


def recipe_trunk(name: str, changes: Sequence[str] = (), *, frame: Frame = FRAME, seed: int = 0, **trunk: Any) -> Trunk:
    """The trunk of a recipe, small."""
    recipe = load_recipe(name, [*SMALL, *changes])
    return trunk_of(trunk.get("steps", recipe["trunk"]), frame=frame, seed=seed, **{**recipe["defaults"]})


def trunk_of(steps: Any, *, frame: Frame = FRAME, seed: int = 0, width: int = WIDTH, **defaults: Any) -> Trunk:
    """A trunk of steps."""
    torch.manual_seed(seed)
    given = {"mixer": "attention(heads=2)", "ffn": "mlp(2)", **defaults}
    trunk = build_trunk(steps, given, width=width, num_modalities=MODALITIES, frame=frame)
    shake(trunk)
    return trunk.double().eval()


def values_of(meta: Meta, seed: int = 1, width: int = WIDTH) -> Tensor:
    """Random token values."""
    return torch.randn(len(meta), width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    """Equal to rounding."""
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def gradients(module: nn.Module) -> dict[str, float]:
    """The size of each parameter's gradient; 0 for none."""
    return {n: 0.0 if p.grad is None else float(p.grad.abs().sum()) for n, p in module.named_parameters()}
