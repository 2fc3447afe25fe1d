"""Put any registered part into a small trunk, and make batches to run it on.

Letters: B samples, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unisono.contracts.tokens import FRAME, rich_meta
from unisono.core.registry import Registry
from unisono.core.tokens import Meta
from unisono.nn.bias import biases
from unisono.nn.ffn import feed_forwards
from unisono.nn.grammar import build_trunk
from unisono.nn.insert import inserts
from unisono.nn.mixer import mixers
from unisono.nn.norm import norms
from unisono.nn.read import reads
from unisono.nn.resample import resamples
from unisono.nn.residual import residuals
from unisono.nn.scope import scopes
from unisono.nn.share import sharings
from unisono.nn.tap import bridges
from unisono.nn.trunk import Trunk

WIDTH, MODALITIES = 8, 5
#: Samples of ``rich_meta``; the third has no token.
SAMPLES = 4
#: The roles a trunk is made of, and the registry of each.
ROLES: dict[str, Registry[Any]] = {
    "norm": norms, "mixer": mixers, "ffn": feed_forwards, "sharing": sharings, "scope": scopes, "insert": inserts, "read": reads,
    "residual": residuals, "bias": biases, "resample": resamples, "bridge": bridges,
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
        trunk = build(list(self.steps), dict(self.defaults), self.width)
        shake(trunk)
        return trunk.double().eval()


def build(steps: Any, defaults: Any, width: int = WIDTH) -> Trunk:
    """A trunk over the tokens of ``rich_meta``."""
    return build_trunk(steps, defaults, width=width, num_modalities=MODALITIES, frame=FRAME)


def shake(module: nn.Module) -> None:
    """Move every weight a little from where it starts, which may be a special place such as zero."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))


def steps_with(role: str, sentence: str, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A small schedule that has one part in it, and its defaults.

    Args:
        role: one of ``ROLES``.
        sentence: the part's word with its settings.
        name: the word alone.
    """
    defaults: dict[str, Any] = dict(_DEFAULTS)
    body: list[dict[str, Any]] = [{"repeat": 2}]
    end: dict[str, Any] = {"read": "mean"}
    if role == "insert":
        body = [{}, {"insert": sentence}, {"repeat": 2, "scope": "source & bottleneck"}]
    elif role == "read":
        body, end = [{"insert": "bottleneck(2)"}, {"repeat": 2}], {"read": sentence}
    elif role == "scope":
        body = [{}, {"insert": "bottleneck(2)"}, {"repeat": 2, "scope": sentence}, {"scope": "sample"}]
    elif role == "bias":
        defaults["mixer"] = {"type": "attention", "heads": 2, "bias": sentence}
    elif role == "resample":
        body = [{}, {"save": "fine"}, *([{"resample": "pool(2)"}] if name == "expand" else []), {"resample": sentence}, {}]
    elif role == "bridge":
        body = [{"save": "fine"}, {}, {"resample": "pool(2)"}, {"bridge": sentence}, {}]
    else:
        defaults[role] = sentence
        if role == "mixer":
            body = [{"scope": "neighbours", "repeat": 2}] if name == "edge_attention" else body
    return [*body, end], defaults


def part_of(role: str, name: str, sentence: str = "") -> Part:
    """A registered part in its trunk.

    Args:
        role: one of ``ROLES``.
        name: the registered name.
        sentence: with settings, where it cannot do without; else its own example, or its name alone.
    """
    sentence = sentence or ROLES[role].get(name).traits.example or name
    steps, defaults = steps_with(role, sentence, name)
    return Part(f"{role}-{name}", tuple(steps), tuple(defaults.items()))


def registered(sentences: Mapping[str, str]) -> list[Part]:
    """Every registered part of every role.

    Args:
        sentences: name -> the sentence to try it in.
    """
    return [part_of(role, name, sentences.get(name, "")) for role, registry in ROLES.items() for name in registry.entries]


def batch(part: Part, *, shuffle: int | None = None, seed: int = 0) -> tuple[Tensor, Meta]:
    """Random token values and their metadata."""
    meta = rich_meta(shuffle=shuffle)
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
