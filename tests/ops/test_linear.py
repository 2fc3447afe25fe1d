"""Linear maps by oneDNN: the same numbers and gradients as plain ones, in every shape and layout, and only where they are wanted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from unisono.ops import linear as module
from unisono.ops.linear import foreign, linear

there = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build has no oneDNN"
)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product is large enough, on every machine."""
    monkeypatch.setattr(module, "foreign", lambda: True)
    monkeypatch.setattr(module, "_SMALLEST", 0)
    monkeypatch.setattr(module, "_FEWEST", 1)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_near(mine: Tensor, exact: Tensor) -> None:
    """Within float32 rounding of the largest value: the terms of a sum may cancel."""
    assert mine.shape == exact.shape
    mine, exact = mine.detach().double(), exact.detach().double()
    assert float((mine - exact).abs().max()) <= 4e-6 * float(exact.abs().max())


@there
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (7, 5, 3), (33, 64, 192), (130, 192, 64), (3, 1, 40)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.usefixtures("always")
def test_values_and_gradients_are_those_of_float64(rows: int, inputs: int, outputs: int, biased: bool) -> None:
    x, w, b = drawn(rows, inputs, seed=0), drawn(outputs, inputs, seed=1), drawn(outputs, seed=2)
    dy = drawn(rows, outputs, seed=3).detach()
    given = (x, w, b) if biased else (x, w)
    y = linear(*given)
    assert type(y.grad_fn).__name__ != "AddmmBackward0"
    found = torch.autograd.grad(y, given, dy)
    exact = tuple(t.detach().double().requires_grad_() for t in given)
    expected = fn.linear(*exact)
    assert_near(y, expected)
    for mine, theirs in zip(found, torch.autograd.grad(expected, exact, dy.double()), strict=True):
        assert_near(mine, theirs)
    with torch.inference_mode():
        assert_near(linear(*(t.detach() for t in given)), expected.detach())


@there
@pytest.mark.usefixtures("always")
def test_layouts_leading_axes_and_spread_gradients() -> None:
    w, b = drawn(6, 8, seed=1), drawn(6, seed=2)
    for x in (drawn(3, 5, 8, seed=0), drawn(5, 3, 8, seed=0).transpose(0, 1), drawn(8, 15, seed=0).t(), drawn(15, 16, seed=0)[:, ::2]):
        y, expected = linear(x, w, b), fn.linear(x, w, b)
        assert y.shape == expected.shape
        torch.testing.assert_close(y, expected)
        for mine, theirs in zip(torch.autograd.grad(y.mean(), (w, b)), torch.autograd.grad(expected.mean(), (w, b)), strict=True):
            torch.testing.assert_close(mine, theirs)


@there
@pytest.mark.usefixtures("always")
def test_only_the_gradients_that_are_wanted_and_gradients_of_gradients() -> None:
    x, w, b = drawn(9, 8, seed=0), drawn(6, 8, seed=1), drawn(6, seed=2)
    linear(x, w.detach(), b.detach()).sum().backward()
    assert x.grad is not None and w.grad is None and b.grad is None

    def second(f) -> Tensor:  # type: ignore[no-untyped-def]
        (dx,) = torch.autograd.grad(f(x, w, b).square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), w)[0]  # type: ignore[no-any-return]

    assert_near(second(linear), second(fn.linear))


@pytest.mark.usefixtures("always")
def test_other_types_and_no_rows_are_left_to_plain_products() -> None:
    w, b = drawn(6, 8, seed=1), drawn(6, seed=2)
    assert linear(torch.zeros(0, 8), w, b).shape == (0, 6)
    x = drawn(4, 8, seed=0)
    assert linear(x.double(), w.double(), b.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, w, b).dtype == torch.bfloat16


@there
def test_small_products_are_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "foreign", lambda: True)
    x, w, b = drawn(4, 8, seed=0), drawn(6, 8, seed=1), drawn(6, seed=2)
    assert type(linear(x, w, b).grad_fn).__name__ == "AddmmBackward0"


@pytest.mark.parametrize(("maker", "capability", "wanted"), [
    ("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False), ("", "AVX512", False),
])  # fmt: skip
@there
def test_the_machine_decides(monkeypatch: pytest.MonkeyPatch, maker: str, capability: str, wanted: bool) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "_maker", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    foreign.cache_clear()
    try:
        assert foreign() is wanted
    finally:
        foreign.cache_clear()
