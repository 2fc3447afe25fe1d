"""``swin``: attention within windows, shifted from layer to layer, and patch merging (arXiv:2103.14030)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.systems.grids import WIDTH, after, close, layer, pictures, recipe_trunk, values
from tests.tokens import block, cells
from unisono.core.relation import Blocks
from unisono.nn.layer import Layer
from unisono.nn.mixer import Attention, gather_back
from unisono.nn.part import Flow, Known
from unisono.nn.resample import Merge
from unisono.nn.scope import relate
from unisono.nn.step import Walk
from unisono.recipe import recipe_names

SHIFTED = "window(4, shift=2)"
ATTENTION = "attention(heads=2, bias=table(reach=7))"


def test_the_recipe_is_listed() -> None:
    assert "swin" in recipe_names()


@pytest.mark.parametrize("scope", ["window(4)", SHIFTED, "window(3, shift=1)"])
def test_cutting_into_windows_and_back_is_the_identity(scope: str) -> None:
    meta = pictures((8, 8), (5, 7), (1, 9))
    relation = relate(scope, meta)
    assert isinstance(relation, Blocks)
    x = values(meta)
    assert torch.equal(gather_back(x[relation.query_index()], relation), x)


def test_shifted_windows_are_attention_on_each_region_by_itself() -> None:
    trunk, meta = layer(ATTENTION, SHIFTED), pictures((8, 8), (6, 9))
    x = values(meta)
    out, alone = after(trunk, x, meta), layer(ATTENTION, "cell")
    regions = (meta.sample * 100 + (meta.place[:, 0] + 2) // 4 * 10 + (meta.place[:, 1] + 2) // 4).tolist()
    for region in set(regions):
        mine = torch.tensor([t for t, r in enumerate(regions) if r == region])
        close(out[mine], after(alone, x[mine], meta.select(mine)), 1e-12)
    assert len(set(regions)) == 9 + 6


def cyclic(attention: Attention, x: Tensor, side: int, size: int, shift: int) -> Tensor:
    """The map rolled by the shift, cut into full windows, a mask on pairs that were no neighbours, and rolled back."""
    heads, k = attention.heads, attention.size
    rolled = torch.roll(x.view(side, side, -1), (-shift, -shift), (0, 1))
    bands = torch.tensor([0 if p < side - size else 1 if p < side - shift else 2 for p in range(side)])
    out = torch.zeros_like(rolled)
    values_HU = attention.bias.values  # type: ignore[union-attr]
    reach = attention.bias.reach  # type: ignore[union-attr]
    for top in range(0, side, size):
        for left in range(0, side, size):
            window = rolled[top : top + size, left : left + size].reshape(size * size, -1)
            place = torch.tensor([(i, j) for i in range(top, top + size) for j in range(left, left + size)])
            region = bands[place[:, 0]] * 3 + bands[place[:, 1]]
            q, key, v = (window @ attention.project.weight.T + attention.project.bias).view(-1, 3, heads, k).unbind(1)  # type: ignore
            offset = (place[None] - place[:, None]).clamp(-reach, reach) + reach + 1
            bias = values_HU[offset[..., 0] * (2 * reach + 2) + offset[..., 1]]  # type: ignore[index]
            scores = torch.einsum("qhk,nhk->qnh", q, key) / math.sqrt(k) + bias
            weights = scores.masked_fill((region[:, None] != region[None])[..., None], -math.inf).softmax(1)
            out[top : top + size, left : left + size] = torch.einsum("qnh,nhk->qhk", weights, v).reshape(size, size, -1)
    mixed = torch.roll(out, (shift, shift), (0, 1)).view(side * side, -1)
    return mixed @ attention.out.weight.T + attention.out.bias  # type: ignore[operator, union-attr, no-any-return]


def test_shifted_windows_are_the_cyclic_shift_with_its_mask() -> None:
    trunk, meta = layer(ATTENTION, SHIFTED), pictures((8, 8))
    x, step = values(meta), trunk.steps[0]
    assert isinstance(step, Layer)
    assert isinstance(step.mixer, Attention)
    close(after(trunk, x, meta) - x, cyclic(step.mixer, x, 8, 4, 2), 1e-12)


def test_a_window_that_covers_the_map_is_attention_over_all_with_its_bias() -> None:
    meta = pictures((8, 8), (5, 3))
    x = values(meta)
    close(after(layer(ATTENTION, "window(8)"), x, meta), after(layer(ATTENTION, "cell"), x, meta), 1e-12)
    assert not torch.allclose(after(layer("attention(heads=2)", "cell"), x, meta), after(layer(ATTENTION, "cell"), x, meta))


def test_patch_merging_maps_four_neighbours_side_by_side() -> None:
    trunk, meta = recipe_trunk("swin"), cells(0, 2, block(4, 6))
    merge = next(s for s in trunk.steps if isinstance(s, Merge))
    x = values(meta)
    walk = Walk(Known(meta))
    out = merge(x, merge.plan(walk), Flow())
    grid = torch.nn.functional.layer_norm(x, (WIDTH,), merge.norm.weight, merge.norm.bias).view(4, 6, WIDTH)
    sides = torch.cat([grid[i::2, j::2] for i in range(2) for j in range(2)], -1)  # (2, 3, 4 D)
    places = [merge.maps[k] for k in _slots_of(merge)]
    close(out, (sides @ torch.cat(places)).reshape(6, WIDTH), 1e-12)
    assert walk.meta.place[:, :2].tolist() == [list(p) for p in block(2, 3)]
    assert walk.meta.level.tolist() == [1] * 6


def _slots_of(merge: Merge) -> list[int]:
    """The maps of the four neighbours of a picture among those of up to three axes."""
    step = merge.size ** (merge.axes - 2)
    return [step * k for k in range(4)]
