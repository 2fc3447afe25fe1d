"""Sharing: which tokens use which set of weights.

A layer asks its sharing to wrap every token-wise part (a norm, a projection, a feed-forward); the wrapped part takes the tokens and what
it planned for the batch. ``sharing: modality`` shares every part so; ``sharing: {norm: all, mixer: depth, ffn: modality}`` says it for
each. Tokens are sorted by set once a batch: where they lie so already, nothing is moved.

Letters: T tokens, D width, S sets of weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from unisono.core.plan import Sets
from unisono.core.registry import Registry, Traits
from unisono.core.tokens import Meta
from unisono.nn.part import Flow, Frame, Known, Part
from unisono.ops.linear import linear
from unisono.ops.permute import permute

Make = Callable[[], Part]
#: What a layer's weights belong to.
ROLES = ("norm", "mixer", "ffn")


class Linear(nn.Linear, Part):
    """``y = W x + b`` as a part."""

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Map (T, D) to (T, D')."""
        return linear(x_TD, self.weight, self.bias)


class Linears(NamedTuple):
    """The linear maps at the ends of a part ``f``: all it sees of its input is what ``reads`` make of it, and ``writes`` gives its result.

    Attributes:
        reads: linear maps, shared or not, of the input as it is.
        writes: the last map; nothing but dropout behind it.
    """

    reads: tuple[nn.Module, ...]
    writes: nn.Module


class SetsPlan(NamedTuple):
    """Tokens by set, and what the sets' parts need of theirs."""

    sets: Sets
    parts: tuple[Any, ...]


class PerSet(Part):
    """One copy of a part for each set; every token goes through its own set's copy.

    Args:
        parts: the copies.
        by: labels tokens with their set's number, (T,) int64.
        key: equal for labelings that agree.
    """

    def __init__(self, parts: Sequence[Part], by: Callable[[Meta], Tensor], key: Hashable) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.by, self.key = by, key

    def plan_key(self) -> Hashable:
        """The labelling, and what the copies need."""
        first = self.parts[0]
        assert isinstance(first, Part)
        return ("sets", self.key, len(self.parts), first.plan_key())

    def plan(self, meta: Meta) -> SetsPlan:
        """Tokens sorted by set, and each copy's plan for its own."""
        sets = Sets.of(self.by(meta), len(self.parts))
        parts: tuple[Any, ...] = (None,) * len(self.parts)
        if any(part.plan_key() is not None for part in self.parts if isinstance(part, Part)):
            order = torch.arange(len(meta)) if sets.order is None else sets.order
            mine = torch.split(order, list(sets.sizes))
            parts = tuple(
                Known(meta.select(index)).part(part) for part, index in zip(self.parts, mine, strict=True) if isinstance(part, Part)
            )
        return SetsPlan(sets, parts)

    def forward(self, x_TD: Tensor, plan: SetsPlan, *flow: Flow) -> Tensor:
        """Apply each set's copy to its tokens."""
        sets, needs = plan
        if not torch.is_grad_enabled() and sets.order is None and len(x_TD) in sets.sizes:
            only = sets.sizes.index(len(x_TD))
            alone: Tensor = self.parts[only](x_TD, needs[only], *flow)
            return alone
        sorted_TD = x_TD if sets.order is None or sets.inverse is None else permute(x_TD, sets.order, sets.inverse)
        pieces = torch.split(sorted_TD, list(sets.sizes))
        done = torch.cat([part(piece, need, *flow) for part, piece, need in zip(self.parts, pieces, needs, strict=True)])
        return done if sets.order is None or sets.inverse is None else permute(done, sets.inverse, sets.order)


class Sharing(ABC):
    """How weights are shared over tokens."""

    #: The parts of a layer that it can share.
    roles: ClassVar[tuple[str, ...]] = ROLES

    @abstractmethod
    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """Wrap a token-wise part.

        Args:
            make: makes one copy.
            frame: the model around it.
            name: what the part is called within its layer; the same in every repeat of a step.
        """

    def sorts_by(self) -> str | None:
        """The metadata by which this sharing likes tokens sorted, or None."""
        return None


sharings: Registry[Sharing] = Registry("sharing", Sharing, package="unisono.nn")


@sharings.register("all", traits=Traits(exempt={"source": "the ordinary case, which no paper claims"}))
class ShareAll(Sharing):
    """One set of weights for all tokens."""

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """One part for all."""
        return make()


def _modality(meta: Meta) -> Tensor:
    return meta.modality


def _level(meta: Meta) -> Tensor:
    return meta.level


def _task(meta: Meta) -> Tensor:
    return torch.zeros_like(meta.sample) if meta.task is None else meta.task.clamp_min(0)


@sharings.register(
    "modality",
    source="arXiv:2411.04996",
    traits=Traits(exempt={"gradient": "a modality without tokens, inserted tokens among them, leaves its weights untouched"}),
)
class SharePerModality(Sharing):
    """One set of weights for each modality, and one for inserted tokens: every token-wise part is the token's modality's own."""

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """A part for each modality."""
        return PerSet([make() for _ in range(frame.num_modalities)], _modality, "modality")

    def sorts_by(self) -> str | None:
        """Tokens of one modality side by side."""
        return "modality"


@sharings.register(
    "level", source="arXiv:2106.14881", traits=Traits(exempt={"gradient": "a scale without tokens leaves its weights untouched"})
)
class SharePerLevel(Sharing):
    """One set of weights for each scale."""

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """A part for each level."""
        return PerSet([make() for _ in range(frame.num_levels)], _level, "level")


@sharings.register("task", source="arXiv:2506.17202")
class SharePerTask(Sharing):
    """One set of weights for each target, after a ``fork`` by task; before one the first set serves all."""

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """A part for each task."""
        return PerSet([make() for _ in range(frame.num_tasks)], _task, "task")


@sharings.register("depth", source="arXiv:1909.11942")
class ShareOverDepth(Sharing):
    """One set reused in every repeat of a step, itself shared over tokens as ``of`` says.

    Args:
        of: how the one set is shared over tokens.
    """

    def __init__(self, *, of: Sharing | None = None) -> None:
        self.of = of if of is not None else ShareAll()
        self.roles = self.of.roles  # type: ignore[misc]
        self._made: dict[str, Part] = {}

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """The part of the first repeat again."""
        if name not in self._made:
            self._made[name] = self.of.wrap(make, frame, name)
        return self._made[name]

    def sorts_by(self) -> str | None:
        """As the one set is shared."""
        return self.of.sorts_by()
