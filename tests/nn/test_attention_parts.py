"""What attention is made of, against loops: relative biases, rotary places, grouped queries, normalised queries and keys."""

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
from unisono.nn.bias import Bias, biases
from unisono.nn.mixer import Attention
from unisono.nn.part import Known
from unisono.nn.rotary import Rotary, rotate
from unisono.nn.scope import relate
from unisono.nn.share import ShareAll

WIDTH = 8


def attention(**settings: Any) -> Attention:
    torch.manual_seed(0)
    if "bias" in settings:
        settings["bias"] = biases.build(settings["bias"])
    mixer = Attention(width=WIDTH, sharing=ShareAll(), frame=FRAME, **{"heads": 2, **settings}).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.copy_(torch.randn_like(p))
    return mixer


def mixed(mixer: Attention, x: Tensor, meta: Meta, scope: str) -> Tensor:
    relation = relate(scope, meta, FRAME)
    return mixer(x, relation, mixer.plan(Known(meta), relation, scope))


def last_axes(row: Tensor) -> list[int | None]:
    """A place's axes, moved to the last of three."""
    found = [int(p) for p in row if p >= 0]
    return [None] * (3 - len(found)) + found  # type: ignore[return-value]


def one_bias(bias: Any, meta: Meta, t: int, n: int) -> Tensor:
    """The bias of one pair (H,), from the definition."""
    same = all(bool(getattr(meta, f)[t] == getattr(meta, f)[n]) for f in ("column", "item", "level"))
    a, b = last_axes(meta.place[t]), last_axes(meta.place[n])
    offset = [y - x if same and x is not None and y is not None else None for x, y in zip(a, b, strict=True)]
    if hasattr(bias, "values"):
        code = 0
        for d in offset[3 - bias.axes :]:
            code = code * (2 * bias.reach + 2) + (0 if d is None else max(-bias.reach, min(bias.reach, d)) + bias.reach + 1)
        row: Tensor = bias.values[code]
        return row
    shrunk = [0.0 if d is None else math.copysign(math.log1p(abs(d)), d) for d in offset]
    features = torch.tensor([*shrunk, *(float(d is not None) for d in offset)], dtype=torch.float64)
    hidden = torch.relu(bias.first.weight @ features + bias.first.bias)
    found: Tensor = bias.second.weight @ hidden + bias.second.bias
    return found


def turned(x: Tensor, row: Tensor, axes: int, base: float = 100.0) -> Tensor:
    """Rotary places on one head's vector (K,): pair k turns by its axis' place times its frequency."""
    places, pairs, out = last_axes(row)[3 - axes :], len(x) // 2, x.clone()
    for k in range(pairs):
        axis, turn, count = k % axes, k // axes, len(range(k % axes, pairs, axes))
        angle = (places[axis] or 0) * base ** (-turn / count)
        out[k] = x[k] * math.cos(angle) - x[k + pairs] * math.sin(angle)
        out[k + pairs] = x[k] * math.sin(angle) + x[k + pairs] * math.cos(angle)
    return out


def reference(mixer: Attention, x: Tensor, meta: Meta, scope: str, rotary: int = 0) -> Tensor:
    """Softmax attention, token by token and head by head."""
    sees, project, out = relate(scope, meta, FRAME).pairs(), mixer.project, mixer.out
    h, f, k = mixer.heads, mixer.few, mixer.size
    qkv = (x @ project.weight.T + project.bias).view(len(x), h + 2 * f, k)  # type: ignore[operator, union-attr]
    result = torch.zeros_like(x)

    def prepared(t: int, head: int) -> Tensor:
        vector = qkv[t, head]
        if mixer.scales is not None:
            vector = vector / torch.sqrt((vector**2).mean() + 1e-6) * mixer.scales[0 if head < h else 1]
        return turned(vector, meta.place[t], rotary) if rotary else vector

    for t in range(len(x)):
        keys = torch.nonzero(sees[t]).flatten().tolist()
        heads = []
        for head in range(h):
            serving = head // (h // f)
            scores = torch.stack([prepared(t, head) @ prepared(n, h + serving) / math.sqrt(k) for n in keys])
            if mixer.bias is not None:
                scores = scores + torch.stack([one_bias(mixer.bias, meta, t, n)[head] for n in keys])
            heads.append(torch.softmax(scores, 0) @ torch.stack([qkv[n, h + f + serving] for n in keys]))
        result[t] = torch.cat(heads)
    return result @ out.weight.T + out.bias  # type: ignore[operator, union-attr]


def small(shuffle: int = 1) -> Meta:
    """A picture, a picture beside it in the cell, a clip, words and numbers of one sample."""
    meta = concatenate([cells(0, 2, block(2, 3)), cells(0, 2, block(1, 2), item=1), cells(0, 3, block(2, 1, 2)), cells(0, 1, block(2))])
    meta = concatenate([meta, cells(0, 0, [()])])
    return meta.select(torch.randperm(len(meta), generator=torch.Generator().manual_seed(shuffle)))


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "table": {"bias": "table(reach=1)"},
    "table on three axes": {"bias": "table(reach=2, axes=3)"},
    "mlp": {"bias": "mlp(hidden=5)"},
    "rotary": {"rotary": 2},
    "rotary on one axis": {"rotary": 1},
    "normalised": {"qk_norm": True},
    "grouped": {"heads": 4, "kv_heads": 2},
    "one head of keys": {"heads": 4, "kv_heads": 1},
    "all together": {"heads": 2, "kv_heads": 1, "rotary": 2, "qk_norm": True, "bias": "mlp(hidden=3)"},
}


@pytest.mark.parametrize("scope", ["sample", "window(2)", "context(1, ratio=3)", "cell & causal(place)"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_attention_is_its_definition(kind: str, scope: str) -> None:
    mixer, meta = attention(**KINDS[kind]), small()
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    expected = reference(mixer, x, meta, scope, int(KINDS[kind].get("rotary", 0)))
    torch.testing.assert_close(mixed(mixer, x, meta, scope), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("word", ["table(reach=2)", "mlp(hidden=4)"])
def test_a_bias_is_worked_out_once_for_blocks_that_look_alike(word: str) -> None:
    meta = concatenate([cells(s, 2, block(6, 6), samples=2) for s in range(2)])
    bias: Bias = biases.build(word).made(2)
    plan = bias.plan(meta, relate("window(3)", meta, FRAME))  # type: ignore[arg-type]
    assert [tuple(p.shape) for p in plan.planes] == [(1, 9, 9)]
    assert len(plan.offsets) == 25
    holes = meta.select(torch.tensor([t for t in range(len(meta)) if t % 7]))
    assert any(p.shape[0] > 1 for p in bias.plan(holes, relate("window(3)", holes, FRAME)).planes)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(axes=st.integers(1, 3), seed=st.integers(0, 99), moved=st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_rotary_scores_depend_on_relative_places_alone(axes: int, seed: int, moved: list[int]) -> None:
    rng = torch.Generator().manual_seed(seed)
    q, k = torch.randn(1, 2, 12, generator=rng, dtype=torch.float64), torch.randn(1, 2, 12, generator=rng, dtype=torch.float64)
    places = torch.randint(0, 30, (2, axes), generator=rng)
    turn = Rotary(axes=axes, size=12)

    def scores(at: Tensor) -> Tensor:
        column = {1: 1, 2: 2, 3: 3}[axes]
        plan = [turn.plan(cells(0, column, [tuple(p)])) for p in at.tolist()]
        return (rotate(q, plan[0]) * rotate(k, plan[1])).sum(-1)

    torch.testing.assert_close(scores(places), scores(places + torch.tensor(moved[:axes])), rtol=0, atol=1e-10)
    torch.testing.assert_close(rotate(q, turn.plan(cells(0, 2, [()]))), q)


def test_rotary_turns_a_still_as_a_clip_of_one_frame() -> None:
    for axes in (2, 3):
        turn = Rotary(axes=axes, size=12)
        for a, b in zip(turn.plan(cells(0, 2, block(3, 4))), turn.plan(cells(0, 3, block(1, 3, 4))), strict=True):
            assert torch.equal(a, b)


def test_normalised_queries_and_keys_do_not_feel_their_length() -> None:
    mixer, meta = attention(qk_norm=True), small()
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    before = mixed(mixer, x, meta, "sample")
    with torch.no_grad():  # queries and keys a hundred times as long, values as they were
        mixer.project.weight[: 2 * WIDTH] *= 100  # type: ignore[index, operator]
        mixer.project.bias[: 2 * WIDTH] *= 100  # type: ignore[index, operator]
    torch.testing.assert_close(mixed(mixer, x, meta, "sample"), before, rtol=0, atol=1e-5)
    bare = attention()
    first = mixed(bare, x, meta, "sample")
    with torch.no_grad():
        bare.project.weight[: 2 * WIDTH] *= 100  # type: ignore[index, operator]
    assert not torch.allclose(mixed(bare, x, meta, "sample"), first, atol=1e-2)


def test_every_head_of_keys_its_own_is_plain_attention() -> None:
    meta = rich_meta()
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    assert torch.equal(mixed(attention(kv_heads=2), x, meta, "sample"), mixed(attention(), x, meta, "sample"))
    few = attention(heads=4, kv_heads=2)
    assert few.project.weight.shape[0] == (4 + 2 * 2) * 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"heads": 4, "kv_heads": 3}, "no multiple of 3 heads of keys"),
        ({"rotary": 4}, "for 1 to 3 axes"),
        ({"heads": 4, "rotary": 2}, "even head width of at least 4"),
    ],
)
def test_what_is_refused(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attention(**given_settings)
