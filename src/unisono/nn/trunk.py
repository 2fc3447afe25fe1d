"""The trunk: a schedule of steps over one packed tensor.

A schedule is decoded once from a recipe's ``trunk`` list. ``Trunk.plan`` walks it over a batch's metadata on the host;
``Trunk.forward`` walks it over the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError, nearest
from unisono.core.plan import Blocks, Plan, Sets
from unisono.core.registry import check
from unisono.core.tokens import Meta
from unisono.nn.ffn import FeedForward, feed_forwards
from unisono.nn.insert import Insert, InsertPlan, inserts
from unisono.nn.mixer import Mixer, mixers
from unisono.nn.norm import norms
from unisono.nn.read import Read, ReadPlan, reads
from unisono.nn.scope import relate
from unisono.nn.share import Sharing, sharings

# B samples, T tokens, D width

#: What a layer can be told; ``defaults`` gives what a step leaves out.
LAYER_KEYS = ("norm", "mixer", "scope", "sharing", "ffn", "residual")
_STEP_KEYS = ("name", "repeat", *LAYER_KEYS, "insert", "read")
_FALLBACK: dict[str, Any] = {"norm": "layer", "mixer": "attention", "scope": "sample", "sharing": "all", "ffn": "mlp", "residual": "pre"}


@dataclass(frozen=True)
class LayerPlan:
    """What a layer needs of a batch: who mixes with whom, and which weights each token uses."""

    blocks: Blocks
    sets: Sets | None

    def to(self, device: torch.device) -> LayerPlan:
        """The same on another device."""
        return LayerPlan(self.blocks.to(device), None if self.sets is None else self.sets.to(device))


class Layer(nn.Module):
    """One pre-norm transformer layer: ``x += mixer(norm(x)); x += ffn(norm(x))``, tokens that are no query left unchanged.

    Args:
        mixer: mixes tokens within blocks.
        ffn: transforms each token; None for none.
        norm_mixer: before the mixer.
        norm_ffn: before the feed-forward.
        scope: the scope's text.
        sharing: which weights each token uses.
    """

    def __init__(self, *, mixer: Mixer, ffn: nn.Module, norm_mixer: nn.Module, norm_ffn: nn.Module, scope: str, sharing: Sharing) -> None:
        super().__init__()
        self.norm_mixer, self.mixer, self.norm_ffn, self.ffn = norm_mixer, mixer, norm_ffn, ffn
        self.scope, self.sharing = scope, sharing

    def forward(self, x_TD: Tensor, plan: LayerPlan) -> Tensor:
        """Transform (T, D)."""
        x_TD = x_TD + _quiet(self.mixer(self.norm_mixer(x_TD, plan.sets), plan.blocks, plan.sets), plan.blocks)
        return x_TD + _quiet(self.ffn(self.norm_ffn(x_TD, plan.sets), plan.sets), plan.blocks)


def _quiet(change_TD: Tensor, blocks: Blocks) -> Tensor:
    """Exactly zero for tokens that are no query or have no key."""
    if blocks.active is None:
        return change_TD
    return torch.where(blocks.active.unsqueeze(1), change_TD, torch.zeros((), dtype=change_TD.dtype, device=change_TD.device))


class Trunk(nn.Module):
    """Runs a schedule.

    Args:
        steps: the parts, in order; exactly one read, at the end.
        names: a name for each step.
        num_modalities: number of modalities, inserted tokens not counted.
    """

    def __init__(self, *, steps: Sequence[Layer | Insert | Read], names: Sequence[str], num_modalities: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.names = tuple(names)
        self.num_modalities = num_modalities

    def plan(self, meta: Meta) -> Plan:
        """Work out what every step needs of a batch; nothing but metadata is read.

        Args:
            meta: the tokens as they enter.
        """
        plans: list[Any] = []
        known: dict[Any, Any] = {}
        now, inserted = meta, 0
        for step in self.steps:
            if isinstance(step, Layer):
                plans.append(self._layer_plan(step, now, known))
            elif isinstance(step, Insert):
                now, insert_plan = step.plan(now, inserted)
                inserted += 1
                known.clear()
                plans.append(insert_plan)
            else:
                assert isinstance(step, Read)
                plans.append(step.plan(now))
        return Plan(meta, tuple(plans), meta.num_samples)

    def _layer_plan(self, step: Layer, meta: Meta, known: dict[Any, Any]) -> LayerPlan:
        """Equal scopes and equal sharings are worked out once."""
        sharing = type(step.sharing)
        if step.scope not in known:
            known[step.scope] = relate(step.scope, meta)
        if sharing not in known:
            known[sharing] = step.sharing.sets(meta, self.num_modalities + 1)
        if (step.scope, sharing) not in known:
            known[step.scope, sharing] = LayerPlan(known[step.scope], known[sharing])
        plan: LayerPlan = known[step.scope, sharing]
        return plan

    def forward(self, x_TD: Tensor, plan: Plan) -> Tensor:
        """From tokens (T, D) to samples (B, D)."""
        for step, needs in zip(self.steps, plan.steps, strict=True):
            assert isinstance(needs, LayerPlan | InsertPlan | ReadPlan)
            x_TD = step(x_TD, needs)
        return x_TD


def build_trunk(steps: Any, defaults: Mapping[str, Any], *, width: int, num_modalities: int, where: str = "recipe") -> Trunk:
    """Decode a recipe's ``trunk`` and ``defaults`` and build the modules.

    Args:
        steps: the list of steps.
        defaults: layer settings for steps that leave them out.
        width: D.
        num_modalities: number of modalities, inserted tokens not counted.
        where: the place to name in an error.

    Raises:
        ConfigError: a step is no sentence of the language; the message names its place and the nearest valid word.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise ConfigError(f"{where}.trunk: expected a list of steps, got {steps!r}")
    unknown = [key for key in defaults if key not in LAYER_KEYS]
    if unknown:
        raise ConfigError(f"{where}.defaults.{unknown[0]} is unknown{nearest(unknown[0], LAYER_KEYS)}")
    builder = _Builder({**_FALLBACK, **defaults}, width, num_modalities)
    parts: list[Layer | Insert | Read] = []
    names: list[str] = []
    for number, step in enumerate(steps):
        name, made = builder.step(step, number, f"{where}.trunk[{number}]")
        parts += made
        names += [name] if len(made) == 1 else [f"{name}.{k}" for k in range(len(made))]
    at_end = [isinstance(part, Read) for part in parts]
    if not at_end[-1] or sum(at_end) != 1:
        raise ConfigError(f"{where}.trunk: the last step, and no other, has to be a read, for example {{read: mean}}")
    return Trunk(steps=parts, names=names, num_modalities=num_modalities)


@dataclass(frozen=True)
class _Builder:
    """Turns one step of a recipe into modules."""

    defaults: Mapping[str, Any]
    width: int
    num_modalities: int

    def step(self, step: Any, number: int, where: str) -> tuple[str, list[Layer | Insert | Read]]:
        if not isinstance(step, Mapping):
            raise ConfigError(f"{where}: expected a step such as {{name: meet, repeat: 2, scope: sample}}, got {step!r}")
        for key in step:
            if key not in _STEP_KEYS:
                raise ConfigError(f"{where}.{key} is unknown{nearest(str(key), _STEP_KEYS)}")
        name = str(step.get("name", f"step{number}"))
        if "insert" in step or "read" in step:
            kind = "insert" if "insert" in step else "read"
            extra = set(step) - {"name", kind}
            if extra:
                raise ConfigError(f"{where}.{sorted(extra)[0]}: a step that is an {kind} takes no other key than 'name'")
            if kind == "insert":
                return name, [inserts.build(step["insert"], where=f"{where}.insert", width=self.width)]
            return name, [self._read(step["read"], f"{where}.read")]
        repeat = check(step.get("repeat", 1), int, f"{where}.repeat")
        if repeat < 0:
            raise ConfigError(f"{where}.repeat: a step cannot be repeated {repeat} times")
        settings = {**self.defaults, **{k: v for k, v in step.items() if k in LAYER_KEYS}}
        return name, [self._layer(settings, where) for _ in range(repeat)]

    def _read(self, spec: Any, where: str) -> Read:
        read = reads.build(spec, where=where, width=self.width)
        if isinstance(getattr(read, "norm", None), nn.Identity):
            read.norm = norms.build(self.defaults["norm"], where=f"{where}.norm", width=self.width)
        return read

    def _layer(self, settings: Mapping[str, Any], where: str) -> Layer:
        if settings["residual"] != "pre":
            raise ConfigError(
                f"{where}.residual: no residual rule is called {settings['residual']!r}{nearest(str(settings['residual']), ['pre'])}"
            )
        scope = check(settings["scope"], str, f"{where}.scope")
        relate(scope, _nothing(self.num_modalities), f"{where}.scope")
        sharing = sharings.build(settings["sharing"], where=f"{where}.sharing")
        sets = self.num_modalities + 1

        def ffn() -> FeedForward:
            return feed_forwards.build(settings["ffn"], where=f"{where}.ffn", width=self.width)

        def norm() -> nn.Module:
            return norms.build(settings["norm"], where=f"{where}.norm", width=self.width)

        mixer = mixers.build(settings["mixer"], where=f"{where}.mixer", width=self.width, sharing=sharing, num_modalities=sets)
        return Layer(
            mixer=mixer,
            ffn=sharing.wrap(ffn, sets),
            norm_mixer=sharing.wrap(norm, sets),
            norm_ffn=sharing.wrap(norm, sets),
            scope=scope,
            sharing=sharing,
        )


def _nothing(num_modalities: int) -> Meta:
    """Metadata of a batch without tokens, on which a scope's words can be tried."""
    none = torch.zeros(0, dtype=torch.int64)
    place, coords = torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3)
    return Meta(none, none, none, none, none, none, place, coords, torch.zeros(0), 0, num_modalities)
