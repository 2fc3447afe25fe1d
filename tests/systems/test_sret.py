"""``sret``: one block applied several times, attention within groups that differ from loop to loop (arXiv:2111.05297)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.systems.trunks import close, recipe_trunk, trunk_of, values_of
from tests.tokens import block, cells, rich_meta
from unisono.nn.layer import Layer
from unisono.nn.scope import relate
from unisono.recipe import load_recipe

READ = {"read": "mean"}


def test_one_loop_is_the_base_network() -> None:
    meta = rich_meta(shuffle=1)
    x, step = values_of(meta), load_recipe("sret")["trunk"][0]
    once, base = trunk_of([{**step, "repeat": 1, "scope": ["sample"]}, READ]), trunk_of([{}, READ])
    base.load_state_dict(once.state_dict())
    assert torch.equal(once(x, once.plan(meta)), base(x, base.plan(meta)))


@pytest.mark.parametrize("word", ["sliced(1)", "sliced(1, runs=true)"])
def test_one_group_is_global_attention(word: str) -> None:
    meta = rich_meta(shuffle=2)
    x, sliced, whole = values_of(meta), trunk_of([{"scope": word, "repeat": 2}, READ]), trunk_of([{"repeat": 2}, READ])
    whole.load_state_dict(sliced.state_dict())
    close(sliced.run(x, sliced.plan(meta)).tokens, whole.run(x, whole.plan(meta)).tokens)


def test_dealing_out_and_back_leaves_every_token_where_it_was() -> None:
    """With a branch that gives nothing the layer is the identity, whatever the groups and the order of tokens."""
    meta = rich_meta(shuffle=3)
    x, trunk = values_of(meta), trunk_of([{"scope": ["sliced(2)", "sliced(3, runs=true)"], "repeat": 4, "ffn": "none"}, READ])
    with torch.no_grad():
        for step in trunk.steps:
            if isinstance(step, Layer):
                for p in step.mixer.parameters():
                    p.zero_()
    assert torch.equal(trunk.run(x, trunk.plan(meta)).tokens, x)


@pytest.mark.parametrize(("groups", "runs"), [(2, False), (2, True), (3, False), (3, True), (5, True)])
def test_groups_are_by_the_rank_of_the_token(groups: int, runs: bool) -> None:
    meta = cells(0, 1, block(7))
    seen = relate(f"sliced({groups}, runs={str(runs).lower()})", meta).pairs().numpy()
    group = [r * groups // 7 if runs else r % groups for r in range(7)]
    assert np.array_equal(seen, np.equal.outer(group, group))


def test_weights_do_not_grow_with_the_loops_but_for_the_norms_between() -> None:
    def count(loops: int) -> tuple[int, int]:
        trunk = recipe_trunk("sret", [f"steps.loop.repeat={loops}"])
        norms = sum(p.numel() for n, p in trunk.named_parameters() if "norm" in n)
        return sum(p.numel() for p in trunk.parameters()) - norms, norms

    assert count(1)[0] == count(2)[0] == count(6)[0]
    assert count(6)[1] > count(2)[1] > count(1)[1]


def test_loops_are_the_same_block_again_with_their_own_scopes() -> None:
    trunk = recipe_trunk("sret", ["steps.loop.repeat=4"])
    layers = [step for step in trunk.steps if isinstance(step, Layer)]
    assert len({id(layer.mixer) for layer in layers}) == len({id(layer.ffn) for layer in layers}) == 1
    assert [layer.scope.text for layer in layers] == ["sliced(4)", "sample"] * 2


def test_slicing_saves_the_products_it_should() -> None:
    meta = cells(0, 2, block(8, 8))

    def pairs(scope: str) -> int:
        return int(relate(scope, meta).pairs().sum())

    assert pairs("sliced(4)") == pairs("sample") // 4
    assert pairs("sliced(4)") + pairs("sample") <= 0.7 * 2 * pairs("sample")
