"""Layer normalisation: exact properties."""

from __future__ import annotations

import torch

from tests.systems.norming import norm_of, normed, values_of
from tests.tokens import rich_meta


def test_it_agrees_with_the_equation_and_with_torch() -> None:
    norm, meta = norm_of("layer"), rich_meta()
    x = values_of(meta)
    reference = torch.nn.LayerNorm(6, eps=norm.eps).double()
    reference.load_state_dict(norm.state_dict())
    torch.testing.assert_close(normed(norm, x, meta), reference(x), rtol=0, atol=1e-6)
    rows = []
    for row in x.tolist():
        mean = sum(row) / 6
        var = sum((v - mean) ** 2 for v in row) / 6
        rows.append([(v - mean) / (var + norm.eps) ** 0.5 for v in row])
    torch.testing.assert_close(normed(norm, x, meta), torch.tensor(rows).double() * norm.weight + norm.bias, rtol=0, atol=1e-6)


def test_a_token_does_not_depend_on_the_batch_and_evaluation_equals_training() -> None:
    norm, meta = norm_of("layer"), rich_meta()
    x = values_of(meta)
    whole = normed(norm, x, meta)
    torch.testing.assert_close(torch.cat([normed(norm, x[[t]], meta.select(torch.tensor([t]))) for t in range(len(meta))]), whole)
    assert torch.equal(normed(norm.eval(), x, meta), whole)


def test_it_does_not_see_the_scale_of_weights_nor_a_common_shift() -> None:
    norm, meta = norm_of("layer"), rich_meta()
    norm.eps = 0.0
    weight, x = torch.randn(6, 6).double(), values_of(meta)
    plain = normed(norm, x @ weight.T, meta)
    torch.testing.assert_close(normed(norm, x @ (3.7 * weight.T) + 5.0, meta), plain, rtol=1e-9, atol=1e-9)


def test_mean_zero_and_variance_one_before_the_gain() -> None:
    norm, meta = norm_of("layer", shaken=False), rich_meta()
    norm.eps = 0.0
    y = normed(norm, values_of(meta), meta)
    torch.testing.assert_close(y.mean(1), torch.zeros(len(meta)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.var(1, unbiased=False), torch.ones(len(meta)).double())
