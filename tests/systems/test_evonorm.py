"""EvoNorm S0 and B0: exact properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.systems.norming import gradient, norm_of, normed, values_of
from tests.tokens import rich_meta
from unisono.core.errors import ConfigError
from unisono.core.tokens import Meta


def cells(meta: Meta) -> list[Tensor]:
    """The tokens of every item of every cell."""
    names = torch.stack([meta.sample, meta.column, meta.item], 1)
    return [torch.nonzero((names == name).all(1)).squeeze(1) for name in names.unique(dim=0)]


def test_s0_is_the_equation_cell_by_cell_and_group_by_group() -> None:
    norm, meta = norm_of("evonorm_s0(groups=2)"), rich_meta(shuffle=3)
    x = values_of(meta)
    expected = torch.zeros_like(x)
    for mine in cells(meta):
        for group in (slice(0, 3), slice(3, 6)):
            part = x[mine][:, group]
            expected[mine, group] = part * torch.sigmoid(norm.v[group] * part) / (part.var(unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(normed(norm, x, meta), expected * norm.weight + norm.bias)


@pytest.mark.parametrize("sentence", ["evonorm_s0(groups=2)", "evonorm_s0(groups=2, over=token)"])
def test_s0_is_independent_of_the_rest_of_the_batch_in_training_too(sentence: str) -> None:
    norm, meta = norm_of(sentence), rich_meta()
    x = values_of(meta)
    whole = normed(norm, x, meta)
    for sample in (0, 1, 3):
        mine = torch.nonzero(meta.sample == sample).squeeze(1)
        torch.testing.assert_close(normed(norm, x[mine], meta.select(mine)), whole[mine])
    assert torch.equal(normed(norm.eval(), x, meta), whole)


@pytest.mark.parametrize("over", ["cell", "token"])
def test_s0_without_v_is_half_of_x_over_its_deviation(over: str) -> None:
    norm, meta = norm_of(f"evonorm_s0(groups=2, over={over})", shaken=False), rich_meta()
    torch.nn.init.zeros_(norm.v)
    norm.eps = 1e-12
    x = values_of(meta)
    y = normed(norm, x, meta)
    for mine in cells(meta) if over == "cell" else [torch.tensor([t]) for t in range(len(meta))]:
        part = x[mine][:, :3]
        torch.testing.assert_close(y[mine][:, :3], part / (2 * part.std(unbiased=False)))


def test_b0_is_the_equation_and_without_v_divides_by_the_larger_deviation() -> None:
    for v in (None, 0.0):
        norm, meta = norm_of("evonorm_b0"), rich_meta(shuffle=3)
        if v is not None:
            torch.nn.init.constant_(norm.v, v)
        x, g = values_of(meta), values_of(meta, seed=2)
        own = x.clone().requires_grad_()
        rows = [torch.zeros(6).double()] * len(meta)
        for mine in cells(meta):
            inside = (own[mine].var(0, unbiased=False) + norm.eps).sqrt()
            batch = (own[meta.modality == meta.modality[mine[0]]].var(0, unbiased=False) + norm.eps).sqrt()
            for t in mine.tolist():
                rows[t] = own[t] / torch.maximum(batch, norm.v * own[t] + inside) * norm.weight + norm.bias
        expected = torch.stack(rows)
        (expected * g).sum().backward()
        torch.testing.assert_close(gradient(norm, x, meta, g), own.grad)
        torch.testing.assert_close(normed(norm, x, meta), expected)
        if v == 0.0:
            mine = cells(meta)[2]
            deviation = torch.maximum(batch_deviation(x, meta, mine), x[mine].std(0, unbiased=False))
            torch.testing.assert_close(normed(norm, x, meta)[mine], x[mine] / deviation * norm.weight + norm.bias, rtol=1e-4, atol=1e-4)


def batch_deviation(x: Tensor, meta: Meta, mine: Tensor) -> Tensor:
    return x[meta.modality == meta.modality[mine[0]]].std(0, unbiased=False)


def test_what_has_no_variance_is_refused() -> None:
    with pytest.raises(ConfigError, match="no multiple of 4 groups"):
        norm_of("evonorm_s0(groups=4)")
    with pytest.raises(ConfigError, match="no variance within a token"):
        norm_of("evonorm_s0(groups=6, over=token)")
