"""Attention within blocks equals dense attention under the equivalent mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tokens import FRAME, meta_of, rich_meta, with_inserted
from unisono.core.relation import Blocks, Edges, Relation, Run, kernel_calls
from unisono.nn.mixer import gather_back
from unisono.nn.scope import relate
from unisono.ops.attention import attend, attend_edges, ragged

counts = st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=5)


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """softmax(q k' / sqrt(K)) v under a mask, row by row."""
    rows = []
    for t in range(q.shape[0]):
        keys = torch.nonzero(seen[t]).squeeze(1)
        if not len(keys):
            rows.append(torch.zeros(q.shape[1] * q.shape[2], dtype=q.dtype))
            continue
        weights = torch.softmax((q[t].unsqueeze(0) * k[keys]).sum(-1) / math.sqrt(q.shape[-1]), 0)
        rows.append((weights.unsqueeze(-1) * v[keys]).sum(0).reshape(-1))
    return torch.stack(rows) if rows else q.reshape(0, q.shape[1] * q.shape[2])


def ours_of(q: Tensor, k: Tensor, v: Tensor, relation: Relation) -> Tensor:
    """Attention of packed tokens within a relation."""
    if isinstance(relation, Edges):
        return attend_edges(q, k, v, relation.query, relation.key)
    query, key = relation.query_index(), relation.key_index()
    return gather_back(attend(q[query], k[key], v[key], relation.calls), relation)


SCOPES = [
    "sample", "source", "modality", "level", "cell", "window(2)", "window(3, shift=1)", "grid(2)", "dilated(2)", "axis(time)", "axis(row)",
    "axis(column)", "axis(band)", "context(2, ratio=2)", "context(2, ratio=1)", "causal(place)", "causal(sequence)", "causal(time)",
    "causal(level)", "source & causal(sequence)", "window(2) & causal(place)", "cross(title <- photo)", "cross(image <- [text, video])",
    "cross(title <- [photo, title]) & causal(sequence)", "cross(number <- inserted)", "neighbours", "neighbours(itself=true)",
    "neighbours & causal(sequence)", "neighbours & window(2)", "neighbours & cross(graph <- graph)", "source & window(2) & modality",
]  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("shuffle", [None, 3])
def test_equals_dense_attention_in_values_and_gradients(scope: str, shuffle: int | None) -> None:
    """Every scope, over grids of several sizes, graphs, empty samples, groups of one token and queries without keys."""
    meta = rich_meta(shuffle=shuffle)
    relation = relate(scope, meta, FRAME)
    torch.manual_seed(0)
    q, k, v = (torch.randn(len(meta), 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    agree(ours_of(q, k, v, relation), dense(q, k, v, relation.pairs()), (q, k, v))


def agree(ours: Tensor, reference: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Values and gradients agree to 1e-10."""
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-10)
    weights = torch.randn_like(ours)
    anchor = sum((0.0 * x.sum() for x in inputs), torch.zeros((), dtype=ours.dtype))  # where nothing is seen, nothing depends on the inputs
    mine, theirs = (
        torch.autograd.grad((x * weights).sum() + anchor, inputs, allow_unused=True, retain_graph=True) for x in (ours, reference)
    )
    for a, b, x in zip(mine, theirs, inputs, strict=True):
        torch.testing.assert_close(torch.zeros_like(x) if a is None else a, torch.zeros_like(x) if b is None else b, rtol=0, atol=1e-10)


@settings(max_examples=25)
@given(counts=counts, seed=st.integers(0, 99), scope=st.sampled_from(["sample", "source", "modality", "causal(sequence)"]))
def test_equals_dense_attention_whatever_the_lengths(counts: list[list[int]], seed: int, scope: str) -> None:
    meta = meta_of(counts, shuffle=seed)
    relation = relate(scope, meta)
    torch.manual_seed(seed)
    q, k, v = (torch.randn(len(meta), 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    agree(ours_of(q, k, v, relation), dense(q, k, v, relation.pairs()), (q, k, v))


def test_inserted_tokens_average_over_their_blocks() -> None:
    meta = with_inserted(meta_of([[2, 3]]), 1)
    blocks = relate("source & bottleneck", meta)
    assert isinstance(blocks, Blocks)
    torch.manual_seed(0)
    q, k, v = (torch.randn(6, 1, 4, dtype=torch.float64) for _ in range(3))
    ours = ours_of(q, k, v, blocks)
    parts = [dense(q[5:], k[group], v[group], torch.ones(1, len(group), dtype=torch.bool)) for group in ([0, 1, 5], [2, 3, 4, 5])]
    torch.testing.assert_close(ours[5], torch.stack(parts).mean(0)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 5, 64])
def test_bf16_keeps_its_accuracy_in_training(length: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(4 * length, 2, 16) for _ in range(3))
    calls, _ = kernel_calls([Run(4, length, length)])
    exact = attend(q, k, v, calls)
    half = attend(*(t.to(torch.bfloat16).requires_grad_() for t in (q, k, v)), calls).float()
    assert float((exact - half).detach().abs().max()) < 0.05
    assert float(torch.nn.functional.cosine_similarity(exact, half.detach()).min()) > 0.999


def by_loops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ends_q: Tensor,
    ends_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What the variable-length kernel is documented to do, block by block."""
    assert ends_q.dtype == ends_k.dtype == torch.int32
    assert int(ends_q.diff().max()) == max_q and int(ends_k.diff().max()) == max_k and window_size in {(-1, -1), (-1, 0)}
    assert int(ends_q[-1]) == len(q) and int(ends_k[-1]) == len(k) == len(v)
    assert enable_gqa == (q.shape[1] != k.shape[1])
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    out = torch.empty_like(q)
    for (q0, q1), (k0, k1) in zip(ends_q.unfold(0, 2, 1).tolist(), ends_k.unfold(0, 2, 1).tolist(), strict=True):
        seen = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        out[q0:q1] = dense(q[q0:q1], k[k0:k1], v[k0:k1], seen.tril() if window_size[1] == 0 else seen).view(-1, *q.shape[1:])
    return out


@pytest.mark.parametrize("scope", ["sample", "source", "window(2)", "in order", "cross(title <- photo)", "context(2, ratio=2)"])
@pytest.mark.parametrize("few", [1, 2])
def test_one_call_without_padding_is_told_the_blocks(monkeypatch: pytest.MonkeyPatch, scope: str, few: int) -> None:
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", by_loops)
    if scope == "in order":
        runs, places = [Run(2, 3, 3), Run(1, 5, 5)], np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4])
        calls = tuple(call for run, part in zip(runs, np.split(places, [6]), strict=True) for call in kernel_calls([run], (part, part))[0])
        assert all(c.causal for c in calls) and len(calls) == 2
    else:
        relation = relate(scope, rich_meta(), FRAME)
        assert isinstance(relation, Blocks)
        calls = relation.calls
    assert all(c.lengths is not None for c in calls)
    torch.manual_seed(0)
    q, (k, v) = torch.randn(sum(c.queries for c in calls), 2, 3), (torch.randn(sum(c.keys for c in calls), few, 3) for _ in range(2))
    torch.testing.assert_close(ragged(q, k, v, calls), attend(q, k, v, calls), rtol=0, atol=1e-5)


def test_blocks_within_which_an_order_hides_keys_say_so() -> None:
    relation = relate("causal(time)", rich_meta(), FRAME)
    assert isinstance(relation, Blocks)
    assert any(c.lengths is None for c in relation.calls)


def test_padded_and_exact_calls_agree() -> None:
    runs = [Run(2, 3, 3), Run(1, 4, 4), Run(3, 7, 7)]
    joined, apart = kernel_calls(runs)[0], tuple(call for run in runs for call in kernel_calls([run])[0])
    assert len(joined) == 1
    assert len(apart) == 3
    torch.manual_seed(0)
    q, k, v = (torch.randn(31, 2, 5, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(attend(q, k, v, joined), attend(q, k, v, apart), rtol=0, atol=1e-12)


def test_very_unequal_blocks_are_not_padded() -> None:
    assert len(kernel_calls([Run(500, 2, 2), Run(1, 512, 512)])[0]) == 2
