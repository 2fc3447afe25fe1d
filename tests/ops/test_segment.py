from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from unisono.core.errors import ShapeError
from unisono.ops.segment import segment_count, segment_max, segment_mean, segment_softmax, segment_sum


def by_hand(values: torch.Tensor, index: torch.Tensor, s: int) -> dict[str, torch.Tensor]:
    out = {k: torch.zeros(s, *values.shape[1:], dtype=values.dtype) for k in ("sum", "mean", "max")}
    out["softmax"] = torch.zeros_like(values)
    for segment in range(s):
        members = [t for t in range(len(index)) if int(index[t]) == segment]
        if not members:
            continue
        rows = values[members]
        out["sum"][segment] = sum(rows, torch.zeros_like(rows[0]))
        out["mean"][segment] = out["sum"][segment] / len(members)
        out["max"][segment] = torch.stack(list(rows)).max(0).values
        out["softmax"][members] = torch.softmax(rows, 0)
    return out


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 3), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_matches_loops(index: list[int], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    where = torch.tensor(index, dtype=torch.int64)
    values = torch.randn(len(index), width, dtype=torch.float64)
    wanted = by_hand(values, where, 8)
    torch.testing.assert_close(segment_sum(values, where, 8), wanted["sum"])
    torch.testing.assert_close(segment_mean(values, where, 8), wanted["mean"])
    torch.testing.assert_close(segment_max(values, where, 8), wanted["max"])
    torch.testing.assert_close(segment_softmax(values, where, 8), wanted["softmax"])
    assert segment_count(where, 8).tolist() == [index.count(s) for s in range(8)]
    assert not segment_max(values, where, 8)[7].any()


@pytest.mark.parametrize("function", [segment_sum, segment_mean, segment_max, segment_softmax])
def test_gradients(function) -> None:
    torch.manual_seed(0)
    values = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([3, 0, 0, 5, 3, 3, 1, 0, 5])
    assert gradcheck(lambda v: function(v, index, 7), (values,))


@pytest.mark.parametrize("function", [segment_sum, segment_mean, segment_softmax])
def test_half_precision_accumulates_wide(function) -> None:
    torch.manual_seed(0)
    values = torch.rand(5000, 1).bfloat16()
    index = torch.zeros(5000, dtype=torch.int64)
    result = function(values, index, 1)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, function(values.double(), index, 1).bfloat16(), rtol=2**-7, atol=0)


def test_softmax_of_huge_and_excluded_scores() -> None:
    scores = torch.tensor([1e30, 1e30, -1e30, float("-inf"), float("-inf"), 0.0])
    index = torch.tensor([0, 0, 0, 1, 1, 2])
    assert segment_softmax(scores, index, 3).tolist() == [0.5, 0.5, 0.0, 0.0, 0.0, 1.0]


def test_order_does_not_matter() -> None:
    torch.manual_seed(0)
    values, index, order = torch.randn(50, 3, dtype=torch.float64), torch.randint(0, 5, (50,)), torch.randperm(50)
    for function in (segment_sum, segment_mean, segment_max):
        torch.testing.assert_close(function(values, index, 5), function(values[order], index[order], 5))


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="index"):
        segment_sum(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), 2)
    with pytest.raises(ShapeError, match="int32"):
        segment_mean(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int32), 2)
    with pytest.raises(ShapeError, match="segments"):
        segment_max(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), -1)
