"""What every part of a trunk has in common: ``plan`` on the host, ``forward`` on the values.

Letters: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.names import Names
from unisono.core.tokens import Meta


@dataclass(frozen=True)
class Frame:
    """What a trunk's parts may know of the model around them.

    Attributes:
        names: of modalities, columns, sources and targets.
        num_modalities: number of modalities, inserted tokens counted as one more.
        num_levels: number of scales the trunk has.
        num_tasks: number of targets; 1 where the trunk never forks by task.
        num_layers: number of layers on the longest way through the trunk.
        num_edge_values: numbers that an edge of a graph carries.
        width: D.
    """

    names: Names = field(default_factory=Names)
    num_modalities: int = 1
    num_levels: int = 1
    num_tasks: int = 1
    num_layers: int = 1
    num_edge_values: int = 0
    width: int = 1


@dataclass
class Flow:
    """What a forward pass carries beside the tokens.

    Attributes:
        taps: saved values by name.
        metas: which tokens they are.
        reads: what reads before the last gave, by the name of their step.
        extra: terms that parts add to the loss, each already weighted.
        drawn: what parts drew at random for the whole pass.
    """

    taps: dict[str, Tensor] = field(default_factory=dict)
    metas: dict[str, Meta] = field(default_factory=dict)
    reads: dict[str, Tensor] = field(default_factory=dict)
    extra: list[Tensor] = field(default_factory=list)
    drawn: dict[Hashable, int] = field(default_factory=dict)

    def draw(self, key: Hashable, below: int) -> int:
        """A random number from 0 to ``below - 1``, the same for all parts that ask with an equal key."""
        if key not in self.drawn:
            self.drawn[key] = int(torch.randint(below, ()))
        return self.drawn[key]


class Part(nn.Module):
    """A token-wise function: ``forward((T, D), plan) -> (T, D')``.

    ``plan(meta)`` works out on the host, from metadata alone, what ``forward`` needs of a batch; parts of one ``plan_key`` need the same.
    """

    def __init__(self) -> None:
        super().__init__()

    def plan(self, meta: Meta) -> Any:
        """Nothing, unless a part says otherwise."""
        return None

    def plan_key(self) -> Hashable:
        """Equal for parts that need the same of a batch; None for nothing."""
        return None

    def forward(self, x_TD: Tensor, plan: Any) -> Tensor:
        """Transform (T, D)."""
        raise NotImplementedError

    def folded(self) -> Part | None:
        """A part that in evaluation is the same function multiplied out, with the weights of this one; None where there is none."""
        return None


class Known:
    """What has been worked out of one state of a batch's tokens, so that equal parts share it."""

    def __init__(self, meta: Meta) -> None:
        self.meta = meta
        self._found: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once for each key."""
        if key not in self._found:
            self._found[key] = make()
        return self._found[key]

    def part(self, part: Part) -> Any:
        """A part's plan."""
        key = part.plan_key()
        return None if key is None else self.once(("part", key), lambda: part.plan(self.meta))
