"""Optimisers, schedules and the moving average against their equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unisono.core.errors import ConfigError
from unisono.train.ema import MovingAverage
from unisono.train.optimisers import MOST_ROWS, optimisers, parameter_groups
from unisono.train.schedules import factor, progress_at


def test_norms_biases_and_embeddings_do_not_decay() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 4), "n": nn.LayerNorm(4), "e": nn.Embedding(5, 4), "c": nn.Conv1d(4, 4, 3)})
    module["a"].weight.requires_grad_(True)
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    module["n"].frozen = frozen
    decayed, plain = parameter_groups(module, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(module["a"].weight), id(module["c"].weight)}
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0 and len(plain["params"]) == 5


def _train(word: str, lr: float, betas: tuple[float, float], steps: int) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(3, 2))
    start, gradients = w.detach().clone(), [torch.randn(3, 2) for _ in range(steps)]
    optimiser = optimisers.build(word, groups=[{"params": [w], "weight_decay": 0.1}], lr=lr, betas=betas)
    for g in gradients:
        w.grad = g.clone()
        optimiser.step()
    return start, gradients, w.detach()


def test_adamw_follows_its_equation() -> None:
    w, gradients, got = _train("adamw", 0.05, (0.9, 0.98), 5)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        w = w * (1 - 0.05 * 0.1) - 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)).sqrt() + 1e-8)
    torch.testing.assert_close(got, w)


def test_a_table_of_weighted_features_has_one_scale() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"bag": nn.EmbeddingBag(5, 2, mode="sum"), "linear": nn.Linear(3, 2), "token": nn.Embedding(4, 2)})
    groups = parameter_groups(module, 0.1)
    assert [[tuple(p.shape) for p in g["params"]] for g in groups if g.get("one_scale")] == [[(5, 2)]]
    optimiser = optimisers.build("adamw", groups=groups, lr=0.05, betas=(0.9, 0.98))
    w, m, v = module["bag"].weight.detach().clone(), torch.zeros(5, 2), 0.0
    for t in range(1, 6):
        gradient = torch.randn(5, 2) * torch.tensor([[100.0], [1.0], [1.0], [0.0], [0.01]])
        module["bag"].weight.grad = gradient.clone()
        module["linear"].weight.grad = torch.ones(2, 3)
        optimiser.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * float(gradient.square().mean())
        w = w - 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)) ** 0.5 + 1e-8)
    torch.testing.assert_close(module["bag"].weight.detach(), w)
    assert module["bag"].weight.grad is not None


def test_a_step_on_a_table_does_not_grow_with_its_unused_rows() -> None:
    moved = []
    for rows in (MOST_ROWS, 16 * MOST_ROWS):
        bag = nn.EmbeddingBag(rows, 3, mode="sum")
        optimiser = optimisers.build("adamw", groups=parameter_groups(bag, 0.0), lr=0.1, betas=(0.9, 0.98))
        before = bag.weight.detach().clone()
        bag.weight.grad = torch.zeros_like(bag.weight)
        bag.weight.grad[:8] = 1.0
        optimiser.step()
        moved.append((bag.weight.detach() - before)[:8])
    torch.testing.assert_close(moved[0], moved[1])


def test_lion_follows_its_equation() -> None:
    w, gradients, got = _train("lion", 0.05, (0.9, 0.99), 5)
    m = torch.zeros_like(w)
    for g in gradients:
        w = w - 0.05 * (torch.sign(0.9 * m + 0.1 * g) + 0.1 * w)
        m = 0.99 * m + 0.01 * g
    torch.testing.assert_close(got, w)


def test_an_unknown_optimiser_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        optimisers.build("adam", groups=[], lr=0.1, betas=(0.9, 0.9))


@given(st.sampled_from(["cosine", "linear", "constant", "one-cycle"]), st.floats(0, 1), st.floats(0, 1))
def test_the_rate_rises_then_never_rises_again(schedule: str, warmup: float, p: float) -> None:
    value = factor(schedule, p, warmup)
    assert 0.0 <= value <= 1.0
    later = factor(schedule, min(1.0, p + 0.01), warmup)
    assert later <= value + 1e-9 if p >= warmup else True
    assert factor(schedule, warmup, warmup) == pytest.approx(1.0)


def test_the_cosine_has_its_known_values() -> None:
    assert [round(factor("cosine", p, 0.2), 6) for p in (0.1, 0.2, 0.6, 1.0)] == [0.5, 1.0, 0.5, 0.0]
    assert factor("one-cycle", 0.0, 0.3) == pytest.approx(0.04) and factor("one-cycle", 1.0, 0.3) == pytest.approx(1e-4)


def test_a_shortened_run_goes_on_where_the_schedule_was_and_completes_it() -> None:
    done = progress_at(40, 100, [])
    assert progress_at(40, 60, [(40, done)]) >= done
    assert math.isclose(progress_at(59, 60, [(40, done)]), 1.0 - 0.5 * (1 - done) / 20)


def test_the_average_is_the_weighted_sum_of_the_past() -> None:
    module = nn.Linear(1, 1, bias=False)
    average, expected = MovingAverage(module, 0.5), module.weight.item()
    for t in range(12):
        with torch.no_grad():
            module.weight.fill_(float(t))
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * t
        average.update()
    with average.swapped_in():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 11.0
