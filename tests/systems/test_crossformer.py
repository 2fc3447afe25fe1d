"""``crossformer``: patches of several sizes, short and long distances in turn, biases from a small network (arXiv:2108.00154)."""

from __future__ import annotations

import pytest
import torch

from tests.systems.grids import after, close, influence, layer, pictures, recipe_trunk, trunk_of, values
from unisono.core.relation import Blocks
from unisono.nn.bias import MLPBias
from unisono.nn.mixer import gather_back
from unisono.nn.scope import relate
from unisono.recipe import load_recipe, recipe_names


def test_the_recipe_is_listed_and_embeds_across_scales() -> None:
    assert "crossformer" in recipe_names()
    assert "stem=scales" in load_recipe("crossformer")["tokens"]["image"]


@pytest.mark.parametrize("scope", ["window(4)", "dilated(2)", "dilated(3)"])
def test_grouping_and_back_is_the_identity(scope: str) -> None:
    meta = pictures((8, 8), (5, 7), (1, 9))
    relation = relate(scope, meta)
    assert isinstance(relation, Blocks)
    x = values(meta)
    assert torch.equal(gather_back(x[relation.query_index()], relation), x)


@pytest.mark.parametrize("interval", [2, 3])
def test_over_a_long_distance_a_token_changes_those_at_whole_intervals_alone(interval: int) -> None:
    meta = pictures((5, 6))
    steps = [{"mixer": "attention(heads=2, bias=mlp(8))", "scope": f"dilated({interval})"}, {"read": "mean"}]
    reached = influence(trunk_of(steps, {}), meta) > 0
    offset = meta.place[:, None, :2] - meta.place[None, :, :2]
    assert torch.equal(reached, (offset % interval == 0).all(-1))


def test_the_biases_of_a_table_of_offsets_are_those_computed_pair_by_pair() -> None:
    torch.manual_seed(0)
    meta, bias = pictures((6, 6), (9, 3)), MLPBias(hidden=8).made(2).double()
    relation = relate("window(3)", meta)
    assert isinstance(relation, Blocks)
    plan = bias.plan(meta, relation)
    assert len(plan.offsets) == 25
    query, at = relation.query_index(), 0
    for call, table in zip(relation.calls, bias.tables(plan), strict=True):
        n = call.run.queries
        for number in range(call.run.blocks):
            place = meta.place[query[at + number * n : at + (number + 1) * n]]
            d = torch.nn.functional.pad((place[None, :, :2] - place[:, None, :2]).double(), (1, 0))
            known = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64).expand_as(d)
            direct = bias(d.reshape(-1, 3), known.reshape(-1, 3) > 0).view(n, n, 2)
            close(table[min(number, len(table) - 1)], direct.permute(2, 0, 1), 1e-12)
        at += call.queries


def test_sizes_that_were_never_seen_run_unchanged() -> None:
    trunk = recipe_trunk("crossformer")
    sizes = [(1, 1), (3, 5), (8, 8), (9, 4), (13, 2)]
    meta = pictures(*sizes)
    x = values(meta)
    together = after(trunk, x, meta)
    for k in range(len(sizes)):
        mine = torch.nonzero(meta.sample == k).flatten()
        close(after(trunk, x[mine], meta.select(mine)), together[mine])
    assert bool(torch.isfinite(together).all())


def test_with_the_bias_attention_knows_where_neighbours_are() -> None:
    meta = pictures((4, 4))
    x = values(meta)
    plain, biased = (after(layer(m, "cell"), x, meta) for m in ("attention(heads=2)", "attention(heads=2, bias=mlp(8))"))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = [after(layer(m, "cell"), x[order], meta) for m in ("attention(heads=2)", "attention(heads=2, bias=mlp(8))")]
    close(plain[order], moved[0])
    assert not torch.allclose(biased[order], moved[1], atol=1e-3)
