"""Helpers of the contracts over trunk parts: build any registered part inside a small trunk, and batches of metadata to run it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.tokens import meta_of
from unisono.core.registry import Registry
from unisono.core.tokens import Meta
from unisono.nn.ffn import feed_forwards
from unisono.nn.insert import inserts
from unisono.nn.mixer import mixers
from unisono.nn.norm import norms
from unisono.nn.read import reads
from unisono.nn.scope import scopes
from unisono.nn.share import sharings
from unisono.nn.trunk import Trunk, build_trunk
from unisono.recipe import load_recipe, recipe_names

WIDTH, MODALITIES = 8, 3
#: Samples with every mixture of sources: all, some, one, none.
COUNTS = [[2, 3, 1], [0, 1, 1], [0, 0, 0], [4, 0, 2], [1, 1, 1], [0, 5, 0], [2, 3, 1]]
#: The roles a trunk is made of, and the registry of each.
ROLES: dict[str, Registry[Any]] = {
    "norm": norms, "mixer": mixers, "ffn": feed_forwards, "sharing": sharings, "scope": scopes, "insert": inserts, "read": reads,
}  # fmt: skip
_DEFAULTS = {"mixer": "attention(heads=2)", "ffn": "mlp(2)"}


@dataclass(frozen=True)
class Part:
    """A trunk that has one registered part in it, everything else being plain."""

    label: str
    steps: tuple[dict[str, Any], ...]
    defaults: tuple[tuple[str, Any], ...] = ()
    width: int = WIDTH

    def build(self, seed: int = 1) -> Trunk:
        """The trunk in float64 and evaluation mode, no parameter left at a special value."""
        torch.manual_seed(seed)
        trunk = build_trunk(list(self.steps), dict(self.defaults), width=self.width, num_modalities=MODALITIES)
        shake(trunk)
        return trunk.double().eval()


def shake(module: nn.Module) -> None:
    """Move every weight a little from where it starts, which may be a special place such as zero."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))


def parts() -> list[Part]:
    """Every registered part of every role, and every recipe's whole trunk."""
    found: list[Part] = []
    for role, registry in ROLES.items():
        for name in registry.entries:
            steps: list[dict[str, Any]] = [{"repeat": 2}, {"read": "mean"}]
            defaults: dict[str, Any] = dict(_DEFAULTS)
            if role == "insert":
                steps = [{}, {"insert": name}, {"repeat": 2, "scope": "source & bottleneck"}, {"read": "mean"}]
            elif role == "read":
                steps[-1] = {"read": name}
            elif role == "scope":
                steps = [{}, {"insert": "bottleneck(2)"}, {"repeat": 2, "scope": name}, {"scope": "sample"}, {"read": "mean"}]
            else:
                defaults[role] = name
            found.append(Part(f"{role}-{name}", tuple(steps), tuple(defaults.items())))
    for name in recipe_names():
        recipe = load_recipe(name)
        found.append(Part(f"recipe-{name}", tuple(recipe["trunk"]), tuple(recipe["defaults"].items()), 16))
    return found


def batch(part: Part, *, shuffle: int | None = None, seed: int = 0) -> tuple[Tensor, Meta]:
    """Random token values and their metadata."""
    meta = meta_of(COUNTS, shuffle=shuffle)
    values = torch.randn(len(meta), part.width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values, meta


def run(trunk: Trunk, values: Tensor, meta: Meta) -> Tensor:
    """The trunk's answer (B, D)."""
    result: Tensor = trunk(values, trunk.plan(meta))
    return result


def only(meta: Meta, values: Tensor, samples: list[int]) -> tuple[Tensor, Meta]:
    """The tokens of some samples, which are numbered anew in this order."""
    index = torch.cat([torch.nonzero(meta.sample == s).squeeze(1) for s in samples])
    part = meta.select(index)
    number = torch.full((meta.num_samples,), -1)
    number[torch.tensor(samples)] = torch.arange(len(samples))
    return values[index], replace(part, sample=number[part.sample], num_samples=len(samples))
