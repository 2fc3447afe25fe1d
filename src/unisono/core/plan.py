"""A batch's plan: what every step of a trunk needs, worked out once on the host from token metadata alone.

Letters: B samples, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from unisono.core.tokens import Meta

Part = TypeVar("Part")


@dataclass(frozen=True)
class Sets:
    """Which set of weights each token uses.

    Attributes:
        order: (T,) token indices sorted by set; None when the tokens lie so already.
        inverse: (T,) its inverse permutation, or None.
        sizes: number of tokens of each set.
    """

    order: Tensor | None
    inverse: Tensor | None
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, labels: Tensor, num_sets: int) -> Sets:
        """Sort tokens by their set's number (T,)."""
        sizes = tuple(torch.bincount(labels, minlength=num_sets).tolist())
        if bool((labels[1:] >= labels[:-1]).all()):
            return cls(None, None, sizes)
        order = torch.argsort(labels, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        return cls(order, inverse, sizes)


@dataclass(frozen=True)
class Segments:
    """Groups of tokens to be pooled.

    Attributes:
        index: (T',) segment of each pooled token.
        tokens: (T',) which tokens are pooled; None when all, in order.
        num: number of segments.
    """

    index: Tensor
    tokens: Tensor | None
    num: int


@dataclass(frozen=True)
class Plan:
    """A batch's plan: for every step of the trunk what that step needs, and the tokens as they enter and as they leave.

    Attributes:
        meta: the tokens that enter the trunk.
        steps: one entry a step; its type is the step's own business.
        num_samples: B.
        last: the tokens that leave it.
    """

    meta: Meta
    steps: tuple[Any, ...]
    num_samples: int
    last: Meta

    def to(self, device: torch.device) -> Plan:
        """The same on another device."""
        return move(self, device)


def move(part: Part, device: torch.device, memo: dict[int, Any] | None = None) -> Part:
    """A structure of data classes, tuples, lists and mappings with all its tensors on another device; what stands twice is moved once."""
    memo = {} if memo is None else memo
    if id(part) in memo:
        found: Part = memo[id(part)]
        return found
    moved: Any = part
    if isinstance(part, Tensor):
        moved = part.to(device, non_blocking=True)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        moved = dataclasses.replace(part, **{f.name: move(getattr(part, f.name), device, memo) for f in dataclasses.fields(part)})
    elif isinstance(part, tuple):
        inner = [move(p, device, memo) for p in part]
        moved = type(part)(*inner) if hasattr(part, "_fields") else tuple(inner)
    elif isinstance(part, list):
        moved = [move(p, device, memo) for p in part]
    elif isinstance(part, Mapping):
        moved = {k: move(v, device, memo) for k, v in part.items()}
    memo[id(part)] = moved
    return moved  # type: ignore[no-any-return]
