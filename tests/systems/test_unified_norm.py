"""Unified normalisation: exact properties."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.contracts.parts import WIDTH, build, shake
from tests.systems.norming import gradient, norm_of, normed, values_of
from tests.tokens import rich_meta
from unisono.compress.fold import fold
from unisono.nn.norm import NoNorm
from unisono.nn.norm_unified import geometric_mean, outlier

STEPS: list[dict[str, Any]] = [{"repeat": 2}, {"read": "mean"}]


@pytest.mark.parametrize("norm", ["unified(warmup=0)", "batch"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"sharing": "modality"}, {"residual": "parallel"}, {"sharing": {"ffn": "modality"}}, {"ffn": "gated(2)"}],
    ids=str,
)
def test_evaluation_folded_into_the_next_map_is_the_same(norm: str, changes: dict[str, Any]) -> None:
    torch.manual_seed(3)
    trunk = build([{"insert": "bottleneck(2)"}, *STEPS], {"mixer": "attention(heads=2)", "ffn": "mlp(2)", "norm": norm, **changes})
    shake(trunk)
    trunk.double().train()
    meta = rich_meta(shuffle=2)
    for seed in range(6):
        trunk(values_of(meta, WIDTH, seed), trunk.plan(meta)).sum().backward()
    folded = copy.deepcopy(trunk)
    notes = [*fold(folded, "fixed"), *fold(folded, "copies")]
    assert any(n.done for n in notes)
    layers: list[Any] = [s for s in folded.steps if hasattr(s, "ffn_norms")]
    assert all(isinstance(n, NoNorm) for layer in layers for n in (*layer.norms, *layer.ffn_norms))
    x = values_of(meta, WIDTH, 9)
    trunk.eval()
    torch.testing.assert_close(folded(x, folded.plan(meta)), trunk(x, trunk.plan(meta)), rtol=0, atol=1e-5)
    inside, plain = folded.run(x, folded.plan(meta)).tokens, trunk.run(x, trunk.plan(meta)).tokens
    torch.testing.assert_close(inside, plain, rtol=0, atol=1e-11)


@pytest.mark.parametrize("norm", ["evonorm_b0", "evonorm_s0", "loan(photo)", "power", "layer"])
def test_what_is_no_fixed_scale_says_so(norm: str) -> None:
    assert norm_of(norm, 4).fixed() is None


def test_constant_batches_have_their_moment_as_geometric_mean() -> None:
    window = torch.rand(4, 5).double() + 0.1
    torch.testing.assert_close(geometric_mean(window), window.log().mean(0).exp())
    constant = window[:1].expand(4, 5)
    torch.testing.assert_close(geometric_mean(constant, 1e-5), window[0])
    norm, meta = norm_of("unified(warmup=0)", shaken=False), rich_meta()
    x = values_of(meta)
    for _ in range(6):
        y = normed(norm, x, meta)
    for m in (1, 2, 3):
        mine = meta.modality == m
        square = x[mine].square().mean(0)
        torch.testing.assert_close(norm.running[m], square)
        torch.testing.assert_close(y[mine], x[mine] / (square + norm.eps).sqrt())


def test_statistics_and_gradient_follow_the_equations() -> None:
    """Eight batches of one modality against the equations in plain code."""
    norm, meta = norm_of("unified(warmup=6, filtering=false)"), rich_meta()
    meta = meta.select(torch.nonzero(meta.modality == 3).squeeze(1))
    g = values_of(meta, seed=50)
    squares: list[torch.Tensor] = []
    alongs: list[torch.Tensor] = []
    running = torch.ones(6).double()
    for step in range(9):
        x = values_of(meta, seed=step) * (1 + 0.1 * step)
        dx = gradient(norm, x, meta, g)
        squares.append(x.square().mean(0))
        early = step < 6
        used = squares[-1] if early else torch.stack([(s + norm.eps).log() for s in squares[-4:]]).mean(0).exp() - norm.eps
        r = torch.ones(6).double() if early else ((used + norm.eps) / (running + norm.eps)).sqrt()
        z, h = x / (used + norm.eps).sqrt(), r * g * norm.weight
        alongs.append((h * z).mean(0))
        nu = alongs[-1] if early else torch.stack(alongs[-4:]).mean(0)
        torch.testing.assert_close(dx, (h - nu * z) / (used + norm.eps).sqrt())
        running = running + (used - running) * max(norm.momentum, 1 / (step + 1))
        torch.testing.assert_close(norm.running[3], running)


def _after_a_spike(sentence: str, spiked: bool) -> torch.Tensor:
    """What the batch after a spike is divided by, squared, each channel's own."""
    norm, meta = norm_of(sentence, shaken=False), rich_meta()
    meta = meta.select(torch.nonzero(meta.modality == 3).squeeze(1))
    for step in range(8):
        x = values_of(meta, seed=step) * (1000.0 if spiked and step == 6 else 1.0)
        y = normed(norm, x, meta)
    return (x / y)[0].square()


def test_a_batch_a_thousand_times_as_large_is_left_out() -> None:
    calm = _after_a_spike("unified(warmup=0, filtering=false)", False)
    left = _after_a_spike("unified(warmup=0)", True) / _after_a_spike("unified(warmup=0)", False)
    torch.testing.assert_close(left, torch.ones(6).double(), rtol=0, atol=0.1)
    assert bool((_after_a_spike("unified(warmup=0, filtering=false)", True) / calm > 10).all())


def test_an_outlier_is_told_by_the_distance_of_the_means() -> None:
    g = torch.Generator().manual_seed(0)
    window = 1 + 0.2 * torch.rand(4, 6, generator=g).double()
    assert not bool(outlier(window, window.mean(0), 1))
    assert bool(outlier(window, 1e6 * window[0], 1))
    after = window.clone()
    after[1] = 1e6 * window[0]
    distance = after.mean(0) - after.prod(0) ** 0.25
    assert bool((distance > 4 * window.sqrt().var()).any())
