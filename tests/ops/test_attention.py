"""Attention within blocks equals dense attention under the equivalent mask."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tokens import FRAME, meta_of, rich_meta, with_inserted
from unisono.core.relation import Blocks, Edges, Relation, Run, kernel_calls
from unisono.nn.mixer import gather_back
from unisono.nn.scope import relate
from unisono.ops.attention import attend, attend_edges

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
