"""``maxvit``: a convolution, attention within windows, attention over a dilated grid (arXiv:2204.01697)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.systems.grids import after, close, influence, layer, pictures, recipe_trunk, trunk_of, values
from unisono.core.relation import Blocks
from unisono.core.tokens import Meta
from unisono.nn.mixer import gather_back
from unisono.nn.scope import relate
from unisono.recipe import recipe_names

BLOCK, GRID = {"scope": "window(2)", "ffn": "none"}, {"scope": "grid(2)", "ffn": "none"}
PLAIN = {"mixer": "attention(heads=2)"}


def test_the_recipe_is_listed() -> None:
    assert "maxvit" in recipe_names()


def conjugated(meta: Meta, size: int, side: int) -> Meta:
    """Places (g c + k) of a map cut into g cells of c places become (k g' + g), along every axis: the reshape of the grid."""
    cell = side // size
    place = meta.place[:, :2]
    return replace(meta, place=torch.cat([place % cell * size + place // cell, meta.place[:, 2:]], 1))


@pytest.mark.parametrize(("side", "size"), [(8, 4), (8, 2), (12, 4)])
def test_grid_attention_is_block_attention_of_the_reshaped_map(side: int, size: int) -> None:
    meta = pictures((side, side))
    x = values(meta)
    by_grid = after(layer("attention(heads=2)", f"grid({size})"), x, meta)
    close(by_grid, after(layer("attention(heads=2)", f"window({size})"), x, conjugated(meta, size, side)), 1e-12)


@pytest.mark.parametrize("scope", ["window(4)", "grid(4)", "grid(3)"])
def test_cutting_and_putting_back_is_the_identity(scope: str) -> None:
    meta = pictures((8, 8), (5, 7), (1, 9))
    relation = relate(scope, meta)
    assert isinstance(relation, Blocks)
    x = values(meta)
    assert torch.equal(gather_back(x[relation.query_index()], relation), x)


def test_a_block_alone_stays_within_windows_and_with_the_grid_everything_meets() -> None:
    meta = pictures((4, 4))
    alone = influence(trunk_of([BLOCK, {"read": "mean"}], PLAIN), meta)
    window = meta.place[:, 0] // 2 * 2 + meta.place[:, 1] // 2
    assert torch.equal(alone > 0, window[:, None] == window[None])
    assert bool((influence(trunk_of([BLOCK, GRID, {"read": "mean"}], PLAIN), meta) > 0).all())
    assert not bool((influence(trunk_of([GRID, {"read": "mean"}], PLAIN), meta) > 0).all())


def test_the_recipe_connects_every_two_places() -> None:
    changes = ["steps.block.scope=window(2)", "steps.grid.scope=grid(2)", "defaults.mixer.heads=2"]
    assert bool((influence(recipe_trunk("maxvit", changes), pictures((4, 4))) > 0).all())


def test_the_products_of_attention_are_linear_in_the_places() -> None:
    for scope, size in (("window(4)", 4), ("grid(4)", 4)):
        for side in (8, 16, 32):
            relation = relate(scope, pictures((side, side)))
            assert isinstance(relation, Blocks)
            assert sum(r.blocks * r.queries * r.keys for r in relation.runs) == side * side * size * size
