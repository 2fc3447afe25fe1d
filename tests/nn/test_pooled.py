"""Attention over pooled keys against its definition, token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tokens import FRAME, block, cells, rich_meta
from unisono.core.errors import ConfigError
from unisono.core.tokens import Meta, concatenate
from unisono.nn.mixer import Attention
from unisono.nn.part import Known
from unisono.nn.pooled import PooledAttention
from unisono.nn.scope import relate
from unisono.nn.share import ShareAll

WIDTH = 8


def attention(kind: type[Attention] = PooledAttention, **settings: Any) -> Attention:
    torch.manual_seed(0)
    mixer = kind(width=WIDTH, sharing=ShareAll(), frame=FRAME, heads=2, **settings).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.copy_(torch.randn_like(p))
    return mixer


def mixed(mixer: Attention, x: Tensor, meta: Meta, scope: str) -> Tensor:
    relation = relate(scope, meta, FRAME)
    return mixer(x, relation, mixer.plan(Known(meta), relation, scope))


def reference(mixer: Any, x: Tensor, meta: Meta, scope: str) -> Tensor:
    """What each token sees of a grid is cut into equal parts; keys and values are the parts' means."""
    sees, p = relate(scope, meta, FRAME).pairs(), mixer.places
    h, f, k = mixer.heads, mixer.few, mixer.size
    qkv = (x @ mixer.project.weight.T + mixer.project.bias).view(len(x), h + 2 * f, k)
    result = torch.zeros_like(x)
    for t in range(len(x)):
        keys = torch.nonzero(sees[t]).flatten().tolist()
        grids: dict[Any, list[int]] = {}
        for n in keys:
            grids.setdefault(tuple(int(getattr(meta, name)[n]) for name in ("column", "item", "level")), []).append(n)
        parts: dict[Any, list[int]] = {}
        for grid, members in grids.items():
            places = meta.place[members]
            low, high = places.min(0).values, places.max(0).values
            for n, place in zip(members, places, strict=True):
                if bool((place < 0).all()):
                    parts[(grid, "alone", n)] = [n]
                    continue
                name = [
                    int((place[a] - low[a]) * min(p, int(high[a] - low[a]) + 1) // (high[a] - low[a] + 1))
                    for a in range(3)
                    if place[a] >= 0
                ]
                parts.setdefault((grid, *name), []).append(n)
        pooled = torch.stack([qkv[members, h:].mean(0) for members in parts.values()])
        for head in range(h):
            scores = pooled[:, head // (h // f)] @ qkv[t, head] / math.sqrt(k)
            result[t, head * k : (head + 1) * k] = torch.softmax(scores, 0) @ pooled[:, f + head // (h // f)]
    return result @ mixer.out.weight.T + mixer.out.bias


SCOPES = ["sample", "cell", "window(3)", "context(2, ratio=3)", "context(1, ratio=5)", "source"]


@pytest.mark.parametrize("kv_heads", [0, 1])
@pytest.mark.parametrize("scope", SCOPES)
def test_pooled_attention_is_its_definition(scope: str, kv_heads: int) -> None:
    mixer, meta = attention(places=2, kv_heads=kv_heads), rich_meta(shuffle=3)
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    torch.testing.assert_close(mixed(mixer, x, meta, scope), reference(mixer, x, meta, scope), rtol=0, atol=1e-12)


@settings(max_examples=10)
@given(height=st.integers(1, 9), width=st.integers(1, 9), size=st.integers(1, 3), ratio=st.integers(1, 5), drop=st.integers(0, 3))
def test_pictures_with_holes(height: int, width: int, size: int, ratio: int, drop: int) -> None:
    meta = cells(0, 2, block(height, width))
    meta = meta.select(torch.tensor([t for t in range(len(meta)) if not drop or t % (drop + 2)], dtype=torch.int64))
    mixer, x = attention(places=2), torch.randn(len(meta), WIDTH, dtype=torch.float64)
    scope = f"context({size}, ratio={ratio})"
    torch.testing.assert_close(mixed(mixer, x, meta, scope), reference(mixer, x, meta, scope), rtol=0, atol=1e-12)


def test_as_many_parts_as_places_is_plain_attention() -> None:
    mixer, plain, meta = attention(places=9), attention(Attention), rich_meta(shuffle=1)
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    for scope in ("sample", "context(2, ratio=2)"):
        torch.testing.assert_close(mixed(mixer, x, meta, scope), mixed(plain, x, meta, scope), rtol=0, atol=1e-12)


def test_what_several_windows_see_is_pooled_once() -> None:
    meta = concatenate([cells(s, 2, block(8, 8), samples=2) for s in range(2)])
    relation = relate("context(2, ratio=8)", meta, FRAME)  # every window sees the whole map
    pooled = attention(places=2).plan(Known(meta), relation, "x").pooled  # type: ignore[attr-defined]
    assert pooled.segments.num == 2 * 4


def test_rotary_turns_before_pooling() -> None:
    meta = cells(0, 2, block(4, 4))
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    a, b = (mixed(attention(k, rotary=1, **s), x, meta, "cell") for k, s in ((PooledAttention, {"places": 4}), (Attention, {})))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scope", ["causal(place)", "neighbours"])
def test_orders_and_edges_are_refused(scope: str) -> None:
    with pytest.raises(ConfigError, match="no order and no edges"):
        mixed(attention(), torch.zeros(4, WIDTH, dtype=torch.float64), cells(0, 2, block(2, 2)), scope)
