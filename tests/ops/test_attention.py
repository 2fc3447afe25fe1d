"""Attention within blocks equals dense attention under the equivalent mask."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tokens import meta_of
from unisono.core.plan import Run, kernel_calls
from unisono.nn.insert import insert_tokens
from unisono.nn.mixer import gather_back
from unisono.nn.scope import relate
from unisono.ops.attention import attend

counts = st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=5)


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """softmax(q k' / sqrt(K)) v under a mask, row by row."""
    rows = []
    for t in range(q.shape[0]):
        keys = torch.nonzero(seen[t]).squeeze(1)
        weights = torch.softmax((q[t].unsqueeze(0) * k[keys]).sum(-1) / math.sqrt(q.shape[-1]), 0)
        rows.append((weights.unsqueeze(-1) * v[keys]).sum(0).reshape(-1))
    return torch.stack(rows) if rows else q.reshape(0, q.shape[1] * q.shape[2])


@settings(max_examples=25)
@given(counts=counts, seed=st.integers(0, 99), scope=st.sampled_from(["sample", "source", "modality"]))
def test_equals_dense_attention_in_values_and_gradients(counts: list[list[int]], seed: int, scope: str) -> None:
    meta = meta_of(counts, shuffle=seed)
    blocks = relate(scope, meta)
    torch.manual_seed(seed)
    q, k, v = (torch.randn(len(meta), 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    order = torch.arange(len(meta)) if blocks.query is None else blocks.query
    ours = gather_back(attend(q[order], k[order], v[order], blocks.calls), blocks)
    reference = dense(q, k, v, blocks.pairs())
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-10)
    weights = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad((ours * weights).sum(), (q, k, v), allow_unused=True),
        torch.autograd.grad((reference * weights).sum(), (q, k, v), allow_unused=True),
        strict=True,
    ):
        zero = torch.zeros_like(q)
        torch.testing.assert_close(zero if mine is None else mine, zero if theirs is None else theirs, rtol=0, atol=1e-10)


def test_inserted_tokens_average_over_their_blocks() -> None:
    meta, _ = insert_tokens(meta_of([[2, 3]]), 1, 0)
    blocks = relate("source & bottleneck", meta)
    torch.manual_seed(0)
    q, k, v = (torch.randn(6, 1, 4, dtype=torch.float64) for _ in range(3))
    assert blocks.query is not None
    ours = gather_back(attend(q[blocks.query], k[blocks.query], v[blocks.query], blocks.calls), blocks)
    parts = [dense(q[5:], k[group], v[group], torch.ones(1, len(group), dtype=torch.bool)) for group in ([0, 1, 5], [2, 3, 4, 5])]
    torch.testing.assert_close(ours[5], torch.stack(parts).mean(0)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 5, 64])
def test_bf16_keeps_its_accuracy_in_training(length: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(4 * length, 2, 16) for _ in range(3))
    calls = kernel_calls([Run(4, length, length)])
    exact = attend(q, k, v, calls)
    half = attend(*(t.to(torch.bfloat16).requires_grad_() for t in (q, k, v)), calls).float()
    assert float((exact - half).detach().abs().max()) < 0.05
    assert float(torch.nn.functional.cosine_similarity(exact, half.detach()).min()) > 0.999


def test_padded_and_exact_calls_agree() -> None:
    runs = [Run(2, 3, 3), Run(1, 4, 4), Run(3, 7, 7)]
    joined, apart = kernel_calls(runs), tuple(call for run in runs for call in kernel_calls([run]))
    assert len(joined) == 1
    assert len(apart) == 3
    torch.manual_seed(0)
    q, k, v = (torch.randn(31, 2, 5, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(attend(q, k, v, joined), attend(q, k, v, apart), rtol=0, atol=1e-12)


def test_very_unequal_blocks_are_not_padded() -> None:
    assert len(kernel_calls([Run(500, 2, 2), Run(1, 512, 512)])) == 2


def test_blocks_without_keys_give_zeros() -> None:
    q = torch.randn(3, 1, 2)
    out = attend(q, q[:0], q[:0], kernel_calls([Run(1, 3, 0)]))
    assert torch.equal(out, torch.zeros(3, 2))
