"""Dropout from random bytes."""

from __future__ import annotations

import pytest
import torch

from unisono.nn.dropout import Dropout, random_bytes


def test_evaluation_and_zero_probability_change_nothing() -> None:
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert (Dropout(1.0)(x) == 0).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_scale_and_gradient(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 1001, requires_grad=True)
    y = Dropout(p)(x)
    q = round(256 * p) / 256
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(1 - q, abs=5 * (q * (1 - q) / x.numel()) ** 0.5)
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - q)))
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_bytes_are_uniform_and_repeat_with_the_seed() -> None:
    torch.manual_seed(3)
    found = random_bytes(torch.Size([256 * 1000 + 3]), torch.device("cpu"))
    counts = torch.bincount(found.long(), minlength=256).float()
    assert ((counts - 1000).abs() < 6 * 1000**0.5).all()
    torch.manual_seed(3)
    assert torch.equal(found, random_bytes(found.shape, found.device))


def test_values_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(20000, 8)) != 0).double() - 0.5
    correlation = kept.T @ kept / (0.25 * len(kept)) - torch.eye(8)
    assert correlation.abs().max() < 0.05


def test_half_precision_stays_half() -> None:
    assert Dropout(0.3)(torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
