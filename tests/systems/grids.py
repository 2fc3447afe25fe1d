"""Trunks over pictures, in float64 and evaluation, no weight left at a special value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.contracts.parts import MODALITIES, shake
from tests.tokens import FRAME, block, cells
from unisono.core.tokens import Meta, concatenate
from unisono.nn.grammar import build_trunk
from unisono.nn.trunk import Trunk
from unisono.recipe import load_recipe

WIDTH = 16
IMAGE, VIDEO = 2, 3


def recipe_trunk(name: str, changes: Sequence[str] = (), seed: int = 0) -> Trunk:
    """The trunk of a recipe."""
    recipe = load_recipe(name, changes)
    return trunk_of(list(recipe["trunk"]), dict(recipe["defaults"]), seed)


def trunk_of(steps: Any, defaults: Any, seed: int = 0) -> Trunk:
    """A trunk of steps."""
    torch.manual_seed(seed)
    trunk = build_trunk(steps, defaults, width=WIDTH, num_modalities=MODALITIES, frame=FRAME)
    shake(trunk)
    return trunk.double().eval()


def layer(mixer: str, scope: str, seed: int = 0) -> Trunk:
    """A layer of a mixer alone, without norm, so that ``after(...) - x`` is what the mixer gives."""
    return trunk_of([{"mixer": mixer, "scope": scope, "ffn": "none", "norm": "none"}, {"read": "mean"}], {}, seed)


def pictures(*sides: tuple[int, ...]) -> Meta:
    """One picture a sample."""
    return concatenate([cells(k, IMAGE, block(*side), samples=len(sides)) for k, side in enumerate(sides)])


def values(meta: Meta, seed: int = 1) -> Tensor:
    """Random token values."""
    return torch.randn(len(meta), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def after(trunk: Trunk, x: Tensor, meta: Meta) -> Tensor:
    """The tokens as they leave."""
    return trunk.run(x, trunk.plan(meta)).tokens


def influence(trunk: Trunk, meta: Meta, seed: int = 1) -> Tensor:
    """(T', T) how much each token that leaves depends on each that enters: the norm of the Jacobian's block."""
    x = values(meta, seed)
    plan = trunk.plan(meta)
    jacobian = torch.func.jacrev(lambda v: trunk.run(v, plan).tokens)(x)
    return jacobian.movedim(2, 1).flatten(2).norm(dim=2)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    """Equal to rounding."""
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
