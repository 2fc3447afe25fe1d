"""``unifork``: the first layers serve all targets, the last ones each target alone (arXiv:2506.17202)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.systems.trunks import close, gradients, recipe_trunk, trunk_of, values_of
from tests.tokens import NAMES, rich_meta
from unisono.core.names import Names
from unisono.nn.part import Frame
from unisono.nn.trunk import Trunk

TASKS = Frame(Names(NAMES.modalities, NAMES.columns, NAMES.sources, ("understand", "generate")), 6, num_edge_values=2)
READ = {"read": "mean(by=source)"}
DEPTH = 3


def forked(k: int) -> Trunk:
    own: list[Any] = [{"repeat": DEPTH - k, "sharing": "task"}] if k < DEPTH else []
    shared: list[Any] = [{"repeat": k}] if k else []
    return trunk_of([*shared, {"fork": "task"}, *own, READ], frame=TASKS)


def by_task(trunk: Trunk) -> Tensor:
    """(K, B, D)."""
    meta = rich_meta(shuffle=1)
    found: Tensor = trunk(values_of(meta), trunk.plan(meta)).view(2, 4, -1)
    return found


def set_of(weights: dict[str, Tensor], task: int) -> dict[str, Tensor]:
    """The weights that serve one task, under the names of a model without a fork."""
    return {n.replace(f".parts.{task}.", "."): v for n, v in weights.items() if ".parts." not in n or f".parts.{task}." in n}


def plain(weights: dict[str, Tensor], before: int) -> Trunk:
    """An ordinary model with the weights of a forked one; ``before`` steps stand before the fork."""
    trunk = trunk_of([*({} for _ in range(DEPTH)), READ])
    moved = {}
    for name, value in weights.items():
        _, number, rest = name.split(".", 2)
        moved[f"steps.{int(number) - (int(number) > before)}.{rest}"] = value
    trunk.load_state_dict(moved)
    return trunk


@pytest.mark.parametrize("k", range(DEPTH + 1))
def test_each_target_has_the_model_of_the_shared_and_its_own_layers(k: int) -> None:
    """With k = depth that is one model for both, with k = 0 two separate ones."""
    meta, trunk = rich_meta(shuffle=1), forked(k)
    answers = by_task(trunk)
    for task in (0, 1):
        alone = plain(set_of(dict(trunk.state_dict()), task), k)
        close(answers[task], alone(values_of(meta), alone.plan(meta)))
    assert torch.equal(answers[0], answers[1]) == (k == DEPTH)


def test_one_targets_loss_gives_the_others_branch_no_gradient() -> None:
    trunk = recipe_trunk("unifork", frame=TASKS)
    (by_task(trunk)[1] ** 2).sum().backward()
    sizes = gradients(trunk)
    for name, size in sizes.items():
        if ".parts.0." in name:
            assert size == 0, name
        elif "nothing" not in name:
            assert size > 0, name
    assert any(".parts.1." in n for n in sizes) and any(".parts." not in n for n in sizes)


def test_only_one_branch_is_run_for_a_target() -> None:
    small, whole = forked(1), forked(DEPTH)
    active = sum(v.numel() for v in set_of(dict(small.state_dict()), 0).values())
    assert active == sum(v.numel() for v in whole.state_dict().values())
