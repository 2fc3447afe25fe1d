"""``residual-depth``: a residual network as the sum over all its sub-networks, kept bounded by scaling with depth (arXiv:2510.03470)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from tests.systems.trunks import close, recipe_trunk, trunk_of, values_of
from tests.tokens import rich_meta
from unisono.nn.ffn import MLP
from unisono.nn.layer import Layer
from unisono.nn.norm import NoNorm
from unisono.nn.trunk import Trunk

READ = {"read": "mean(norm=none)"}
WIDTH = 4


def network(layers: int, rule: str, act: str, *, width: int = WIDTH, gain: float = 1.0) -> Trunk:
    """Feed-forwards alone, without norms, each of about unit size."""
    trunk = trunk_of([{"repeat": layers, "mixer": "none", "ffn": f"mlp(1, act={act})"}, READ], width=width, norm="none", residual=rule)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for step in trunk.steps:
            if isinstance(step, Layer):
                assert isinstance(step.ffn, MLP)
                for linear in (step.ffn.up, step.ffn.down):
                    drawn = torch.randn(linear.weight.shape, generator=generator, dtype=torch.float64)
                    linear.weight.copy_(gain * drawn / math.sqrt(width))
                    linear.bias.zero_()
    return trunk


def run(trunk: Trunk, x: Tensor) -> Tensor:
    meta = rich_meta().select(torch.arange(len(x)))
    with torch.no_grad():
        return trunk.run(x, trunk.plan(meta)).tokens


def branches(trunk: Trunk) -> list[MLP]:
    return [step.ffn for step in trunk.steps if isinstance(step, Layer) and isinstance(step.ffn, MLP)]


def test_linear_blocks_are_the_sum_over_all_subsets_of_layers() -> None:
    layers, factor = 10, 10**-0.5
    trunk = network(layers, "pre(per_depth=0.5)", "identity")
    x = values_of(rich_meta(), width=WIDTH)[:2]
    maps = [factor * (f.down.weight @ f.up.weight).detach() for f in branches(trunk)]
    total = torch.zeros_like(x)
    for subset in itertools.product((False, True), repeat=layers):
        part = x
        for chosen, matrix in zip(subset, maps, strict=True):
            part = part @ matrix.T if chosen else part
        total += part
    close(run(trunk, x), total, 1e-12)


def test_the_first_order_error_of_nonlinear_blocks_goes_with_the_square_of_the_scale() -> None:
    x = values_of(rich_meta(), width=WIDTH)[:8]
    scales, errors = [0.04, 0.02, 0.01, 0.005], []
    for scale in scales:
        trunk = network(6, f"pre(gain={scale})", "tanh")
        with torch.no_grad():
            first = x + scale * torch.stack([f(x) for f in branches(trunk)]).sum(0)
        errors.append(float((run(trunk, x) - first).norm()))
    slope = np.polyfit(np.log(scales), np.log(errors), 1)[0]
    assert abs(slope - 2) < 0.05


def sizes(rule: str, depths: list[int]) -> list[float]:
    """How much larger the output is than the input, by depth."""
    x = values_of(rich_meta(), width=16)[:8]
    return [float((run(network(layers, rule, "relu", width=16, gain=1.4), x).norm() / x.norm()).log()) for layers in depths]


def test_at_the_start_the_output_explodes_with_depth_unless_it_is_scaled() -> None:
    depths = [4, 16, 64, 256]
    plain, scaled = sizes("pre", depths), sizes("pre(per_depth=1)", depths)
    per_layer = np.diff(plain) / np.diff(depths)
    assert bool((per_layer > 0.2).all()) and per_layer.max() / per_layer.min() < 2, "the logarithm grows in proportion to depth"
    assert plain[-1] > 50
    assert max(scaled) < 3


def test_the_square_root_bounds_the_sum_of_independent_branches() -> None:
    assert max(sizes("pre(per_depth=0.5)", [4, 16, 64, 256])) < 4


def test_the_recipe_has_no_norm_and_scales_every_branch() -> None:
    trunk = recipe_trunk("residual-depth")
    layers = [step for step in trunk.steps if isinstance(step, Layer)]
    assert not any(p.ndim == 1 and "norm" in n for n, p in trunk.named_parameters())
    assert all(isinstance(n, NoNorm) for layer in layers for n in (*layer.norms, *layer.ffn_norms))
    assert {r.factor for layer in layers for r in layer.residuals} == {len(layers) ** -0.5}  # type: ignore[union-attr]
