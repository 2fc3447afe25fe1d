"""A plan goes to another device as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from unisono.core.plan import move


class Pair(NamedTuple):
    first: torch.Tensor
    rest: Any


@dataclass(frozen=True)
class Held:
    index: torch.Tensor
    parts: tuple[Any, ...]


def test_whatever_holds_a_tensor_is_moved_and_what_stands_twice_once() -> None:
    twice = torch.ones(2)
    plan = (Pair(twice, None), Held(torch.ones(3), (Pair(torch.ones(1), [twice, 3]),)), {"a": Pair(torch.ones(4), "word")})
    moved = move(plan, torch.device("meta"))
    assert isinstance(moved[0], Pair) and moved[0].rest is None
    inner = moved[1].parts[0]
    tensors = [moved[0].first, moved[1].index, inner.first, inner.rest[0], moved[2]["a"].first]
    assert [t.device.type for t in tensors] == ["meta"] * 5
    assert moved[0].first is inner.rest[0] and inner.rest[1] == 3 and moved[2]["a"].rest == "word"
