"""Self-normalising networks: exact properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unisono.nn.dropout import SATURATION, SELU_ALPHA, SELU_SCALE, AlphaDropout, alpha_dropout
from unisono.nn.ffn_selu import SelfNormalisingMLP
from unisono.nn.grammar import build_trunk
from unisono.nn.trunk import Trunk


def moments(mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance of selu of a normal variable, by Gauss-Legendre quadrature on each side of its kink."""
    at, weight = np.polynomial.legendre.leggauss(80)
    deviation = math.sqrt(variance)
    first = second = 0.0
    for low, high in ((min(mean - 12 * deviation, -1e-9), 0.0), (0.0, max(mean + 12 * deviation, 1e-9))):
        x = (high - low) / 2 * at + (high + low) / 2
        mass = weight * (high - low) / 2 * np.exp(-((x - mean) ** 2) / (2 * variance)) / (deviation * math.sqrt(2 * math.pi))
        y = torch.nn.functional.selu(torch.from_numpy(x)).numpy()
        first, second = first + float((mass * y).sum()), second + float((mass * y * y).sum())
    return first, second - first**2


def test_a_standard_normal_input_stays_one() -> None:
    mean, variance = moments(0.0, 1.0)
    assert abs(mean) < 1e-6
    assert abs(variance - 1) < 1e-6


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.1])
@pytest.mark.parametrize("variance", [0.8, 1.0, 1.5])
def test_mean_and_variance_converge_to_it(mean: float, variance: float) -> None:
    """Layers of weights with mean zero and variance 1 / fan-in: the next input has the second moment of the last as variance."""
    for _ in range(60):
        m, v = moments(mean, variance)
        # the next inputs: weights of mean zero have no mean to give, and their squares sum to one
        mean, variance = 0.0, v + m * m
    first, second = moments(mean, variance)
    assert abs(first) < 1e-6
    assert abs(second - 1) < 1e-6


@pytest.mark.parametrize("share", [-0.1, 0.1])
def test_weights_that_sum_to_a_little_more_than_zero_are_drawn_back_to_a_bounded_place(share: float) -> None:
    """With weights that sum to ``share``, mean and variance stay in the paper's region."""
    mean, variance = 0.1, 1.5
    for _ in range(60):
        m, v = moments(mean, variance)
        mean, variance = share * m, v
        assert abs(mean) <= 0.1
        assert 0.8 <= variance <= 1.5


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    assert pytest.approx(-1.7580993408473766) == SATURATION
    assert pytest.approx(SATURATION) == -SELU_SCALE * SELU_ALPHA
    torch.manual_seed(0)
    x = torch.nn.functional.selu(torch.randn(200_000, dtype=torch.float64))
    for p in (0.05, 0.1, 0.5):
        y = AlphaDropout(p).train()(x)
        assert abs(float(y.mean())) < 0.01
        assert abs(float(y.var()) - 1) < 0.01
        assert torch.equal(AlphaDropout(p).eval()(x), x)
    keep = torch.rand(len(x)) < 0.9
    dropped = alpha_dropout(x, keep, 0.9)[~keep]
    a = (0.9 + SATURATION**2 * 0.09) ** -0.5
    torch.testing.assert_close(dropped, torch.full_like(dropped, a * SATURATION - a * 0.1 * SATURATION))


def _spread(act: str, layers: int = 32) -> Tensor:
    """The variance after the last of the layers, the weights the same for every nonlinearity."""
    torch.manual_seed(1)
    x = torch.randn(256, 128)
    bend = {"selu": torch.nn.functional.selu, "relu": torch.relu, "tanh": torch.tanh}[act]
    for _ in range(layers // 2):
        part = SelfNormalisingMLP(width=128)
        x = part(x) if act == "selu" else bend(part.down(bend(part.up(x))))
    return x.var()


def test_depth_keeps_the_variance_that_other_nonlinearities_lose() -> None:
    selu, relu, tanh = (float(_spread(act).detach()) for act in ("selu", "relu", "tanh"))
    assert 0.5 <= selu <= 2.0
    assert relu < selu / 10
    assert tanh < selu / 10


def test_the_recipe_is_a_plain_network() -> None:
    """The layers of the recipe are the equation itself: no norm, no residual, no mixer."""
    from tests.tokens import FRAME, rich_meta
    from unisono.recipe import load_recipe

    recipe = load_recipe("selu-snn")
    torch.manual_seed(2)
    trunk: Trunk = build_trunk(recipe["trunk"], recipe["defaults"], width=8, num_modalities=5, frame=FRAME).double().eval()
    meta = rich_meta()
    x = torch.randn(len(meta), 8, dtype=torch.float64)
    expected = x
    for name, parameter in trunk.named_parameters():
        if name.endswith("weight"):
            bias = dict(trunk.named_parameters())[name.removesuffix("weight") + "bias"]
            expected = torch.nn.functional.selu(expected @ parameter.T + bias)
    torch.testing.assert_close(trunk.run(x, trunk.plan(meta)).tokens, expected)
    assert sum(name.endswith("weight") for name, _ in trunk.named_parameters()) == 16
