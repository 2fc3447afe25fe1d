"""``vwformer``: windows that look at surroundings of several sizes, pooled to the size of the window (arXiv:2404.16573)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tests.systems.grids import WIDTH, after, close, influence, layer, pictures, trunk_of, values
from unisono.recipe import recipe_names


def test_the_recipe_is_listed() -> None:
    assert "vwformer" in recipe_names()


def test_ratio_one_is_attention_within_windows() -> None:
    meta = pictures((8, 8), (5, 7))
    x = values(meta)
    window = after(layer("attention(heads=2)", "window(4)"), x, meta)
    close(after(layer("attention(heads=2)", "context(4, ratio=1)"), x, meta), window, 1e-12)
    close(after(layer("pooled_attention(heads=2, places=4)", "context(4, ratio=1)"), x, meta), window, 1e-12)


def attended(q: Any, k: Any, v: Any, *given: Any, out_shape: Any = None, **named: Any) -> int:
    """Operations of the fused attention of a CPU, which the counter does not know."""
    count: int = sdpa_flop_count(q, k, v)
    return count


def flops(mixer: str, ratio: int, side: int) -> int:
    meta = pictures((side, side), (side, side + 4))
    trunk = layer(mixer, f"context(4, ratio={ratio})")
    plan, x = trunk.plan(meta), values(meta)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attended}) as counter:
        trunk.run(x, plan)
    return counter.get_total_flops()


POOLED, PLAIN = "pooled_attention(heads=2, places=4)", "attention(heads=2)"


def test_every_ratio_costs_the_same() -> None:
    for side in (8, 16):
        places = side * side + side * (side + 4)
        projected = 2 * places * WIDTH * (3 * WIDTH + WIDTH)
        scored = 2 * 2 * places * 16 * WIDTH  # each query meets 16 keys, for scores and for values
        assert [flops(POOLED, ratio, side) for ratio in (1, 2, 4, 8)] == [projected + scored] * 4


def test_without_pooling_wider_surroundings_cost_more() -> None:
    assert flops(PLAIN, 1, 16) == flops(POOLED, 1, 16)
    assert flops(PLAIN, 4, 16) > 2 * flops(PLAIN, 1, 16)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_who_lies_inside_the_surroundings_matters_and_no_one_else(ratio: int) -> None:
    meta = pictures((8, 8))
    steps = [{"mixer": "pooled_attention(heads=2, places=2)", "scope": f"context(2, ratio={ratio})", "ffn": "none"}, {"read": "mean"}]
    reached = influence(trunk_of(steps, {}), meta) > 0
    margin = (ratio - 1) * 2 // 2
    low = meta.place[:, None, :2] // 2 * 2 - margin
    inside = (meta.place[None, :, :2] >= low) & (meta.place[None, :, :2] < low + 2 + 2 * margin)
    assert torch.equal(reached, inside.all(-1))
