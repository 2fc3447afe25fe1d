"""Perceiver (arXiv:2103.03206): sixteen latents a sample see all of its tokens twice and think among themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.systems.whole import after, tokens, trunk_of
from unisono.core.relation import Blocks
from unisono.core.tokens import Meta, concatenate
from unisono.recipe import load_recipe

LATENTS, THINKING = 16, ("think", "rethink")


def pairs_of_thinking(meta: Meta) -> int:
    """Queries times keys in the layers between the looks."""
    trunk = trunk_of("perceiver")
    plan = trunk.plan(meta)
    found = 0
    for name, needs in zip(trunk.names, plan.steps, strict=True):
        if name.startswith(THINKING):
            relation: Any = needs.relation  # type: ignore[attr-defined]
            assert isinstance(relation, Blocks)
            found += sum(run.blocks * run.queries * run.keys for run in relation.runs)
    return found


def test_thinking_costs_the_same_however_much_there_is_to_see() -> None:
    values, meta = tokens()
    with_tokens = len(torch.unique(meta.sample))
    assert after(trunk_of("perceiver"), values, meta).shape[0] == LATENTS * with_tokens
    once, twice = pairs_of_thinking(meta), pairs_of_thinking(concatenate([meta, meta]))
    assert once == twice == 4 * with_tokens * LATENTS**2


@pytest.mark.parametrize("again", [True, False])
def test_the_second_look_sees_the_tokens_themselves(again: bool) -> None:
    values, meta = tokens()
    steps = [step for step in load_recipe("perceiver")["trunk"] if again or step["name"] != "again"]
    trunk = trunk_of("perceiver", changes={"trunk": steps})
    look: Any = trunk.steps[trunk.names.index("look")]
    with torch.no_grad():
        look.out.weight.zero_()
    other = values + torch.randn(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(after(trunk, values, meta), after(trunk, other, meta)) is not again


def test_a_sample_sees_nothing_of_another() -> None:
    values, meta = tokens()
    trunk = trunk_of("perceiver")
    mine = int(meta.sample[0])
    other = torch.where((meta.sample == mine)[:, None], values, values.flip(1))
    before, now = after(trunk, values, meta), after(trunk, other, meta)
    same = trunk.plan(meta).last.sample == mine
    torch.testing.assert_close(now[same], before[same], rtol=0, atol=1e-12)
    assert not torch.allclose(before[~same], now[~same])
