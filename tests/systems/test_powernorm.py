"""Power normalisation: exact properties."""

from __future__ import annotations

import pytest
import torch

from tests.systems.norming import gradient, norm_of, normed, values_of
from tests.tokens import rich_meta
from unisono.core.errors import ConfigError
from unisono.nn.norm_power import group_scaled


def test_one_batch_again_and_again_converges_to_the_exact_gradient() -> None:
    norm, meta = norm_of("power(warmup=0, groups=0)"), rich_meta()
    x, g = values_of(meta), values_of(meta, seed=7)
    for _ in range(300):
        dx = gradient(norm, x, meta, g)
    for m in (1, 2, 3):
        mine = meta.modality == m
        own = x[mine].clone().requires_grad_()
        exact = own / (own.square().mean(0) + norm.eps).sqrt() * norm.weight + norm.bias
        (exact * g[mine]).sum().backward()
        torch.testing.assert_close(dx[mine], own.grad, rtol=0, atol=1e-4)
        torch.testing.assert_close(norm.psi2[m], own.detach().square().mean(0))
        z = own.detach() / (norm.psi2[m] + norm.eps).sqrt()
        torch.testing.assert_close(norm.nu[m], (g[mine] * norm.weight * z).mean(0) / z.square().mean(0), rtol=0, atol=1e-8)


def test_each_step_follows_the_equations() -> None:
    norm, meta = norm_of("power(warmup=3, groups=0, decay=0.8)"), rich_meta()
    meta = meta.select(torch.nonzero(meta.modality == 3).squeeze(1))
    g, nu, psi2 = values_of(meta, seed=50), torch.zeros(6).double(), torch.ones(6).double()
    for step in range(8):
        x = values_of(meta, seed=step)
        dx = gradient(norm, x, meta, g)
        own = x.square().mean(0)
        early = step < 3
        root = ((own if early else psi2) + norm.eps).sqrt()
        z, h = x / root, g * norm.weight
        used = (h * z).mean(0) if early else nu
        torch.testing.assert_close(dx, (h - used * z) / root)
        nu = nu * (1 - 0.2 * z.square().mean(0)) + 0.2 * (h * z).mean(0)
        psi2 = (psi2 * step + own) / (step + 1) if early else 0.8 * psi2 + 0.2 * own
        torch.testing.assert_close(norm.psi2[3], psi2)
        torch.testing.assert_close(norm.nu[3], nu)


def test_in_warm_up_the_gradient_is_exact() -> None:
    norm, meta = norm_of("power(warmup=9, groups=3)"), rich_meta()
    x, g = values_of(meta), values_of(meta, seed=7)
    dx = gradient(norm, x, meta, g)
    own = x.clone().requires_grad_()
    grouped = torch.cat([p / (p.square().mean(1, keepdim=True) + norm.eps).sqrt() for p in own.split(2, 1)], 1)
    mean = torch.zeros(6, 6).double()
    for m in meta.modality.unique().tolist():
        mean[m] = grouped[meta.modality == m].square().mean(0)
    (grouped / (mean[meta.modality] + norm.eps).sqrt() * norm.weight * g).sum().backward()
    # the running mean is a constant of the equation, the batch's own is not
    exact = torch.zeros_like(own)
    for m in meta.modality.unique().tolist():
        mine = meta.modality == m
        part = x[mine].clone().requires_grad_()
        inner = group_scaled(part, 3, norm.eps)
        (inner / (inner.square().mean(0) + norm.eps).sqrt() * norm.weight * g[mine]).sum().backward()
        exact[mine] = part.grad
    torch.testing.assert_close(dx, exact)
    torch.testing.assert_close(own.grad, exact)


def test_in_evaluation_a_batch_of_one_equals_any() -> None:
    norm, meta = norm_of("power"), rich_meta()
    for seed in range(3):
        gradient(norm, values_of(meta, seed=seed), meta, values_of(meta, seed=9))
    norm.eval()
    x = values_of(meta, seed=5)
    whole = normed(norm, x, meta)
    torch.testing.assert_close(torch.cat([normed(norm, x[[t]], meta.select(torch.tensor([t]))) for t in range(len(meta))]), whole)
    torch.testing.assert_close(whole, group_scaled(x, 1, norm.eps) / (norm.psi2[meta.modality] + norm.eps).sqrt() * norm.weight + norm.bias)


def test_groups_have_to_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="the width 6 is no multiple of 4 groups"):
        norm_of("power(groups=4)")
