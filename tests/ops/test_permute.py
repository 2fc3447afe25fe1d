"""Reordering rows, forwards and backwards."""

from __future__ import annotations

import torch
from torch.autograd import gradcheck, gradgradcheck

from unisono.ops.permute import permute


def test_rows_are_reordered_and_gradients_come_back_in_order() -> None:
    order = torch.tensor([2, 0, 3, 1])
    inverse = torch.argsort(order)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(permute(x, order, inverse), x[order])
    assert torch.equal(permute(permute(x, order, inverse), inverse, order), x)
    weights = torch.randn(4, 3, dtype=torch.float64)
    mine, theirs = (torch.autograd.grad((out * weights).sum(), x)[0] for out in (permute(x, order, inverse), x[order]))
    assert torch.equal(mine, theirs)
    assert gradcheck(lambda v: permute(v, order, inverse), (x,))
    assert gradgradcheck(lambda v: permute(v, order, inverse), (x,))
