"""Distillation against loops in float64."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from unisono.core.errors import ShapeError
from unisono.objectives.distil import Features, SoftTargets, feature_distance, soft_targets

D = torch.float64
KEEP = torch.tensor([True, False, True])


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def softmax(x: Tensor, t: float) -> list[float]:
    e = [math.exp(float(v) / t) for v in x]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0])
def test_soft_targets_are_the_equation(t: float) -> None:
    s, teacher = rand(3, 4), rand(3, 4, seed=1)
    by_hand = []
    for n in range(3):
        q, p = softmax(s[n], t), softmax(teacher[n], t)
        by_hand.append(t * t * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)) if KEEP[n] else 0.0)
    assert soft_targets(s, teacher, KEEP, t).tolist() == pytest.approx(by_hand, abs=1e-12)
    assert SoftTargets(temperature=t)(s, teacher, KEEP).item() == pytest.approx(sum(by_hand) / 2, abs=1e-12)
    assert soft_targets(teacher, teacher, KEEP, t).abs().max().item() < 1e-12


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_features_are_the_equation(kind: Literal["cosine", "mse"]) -> None:
    s, teacher = rand(3, 4), rand(3, 4, seed=1)
    by_hand = []
    for n in range(3):
        a, b = s[n].tolist(), teacher[n].tolist()
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        size = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        value = 1 - dot / size if kind == "cosine" else sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 4
        by_hand.append(value if KEEP[n] else 0.0)
    assert feature_distance(s, teacher, KEEP, kind).tolist() == pytest.approx(by_hand, abs=1e-12)
    head = Features(width=6, teacher=4, kind=kind).double()
    states = rand(3, 6, seed=2)
    assert head(states, teacher).item() == pytest.approx(
        feature_distance(head.map(states), teacher, torch.ones(3, dtype=torch.bool), kind).mean().item(), abs=1e-12
    )


def test_gradients_go_to_the_student_alone() -> None:
    s, teacher = rand(3, 4).requires_grad_(), rand(3, 4, seed=1)
    assert gradcheck(lambda x: soft_targets(x, teacher, KEEP, 2.0), (s,))
    assert gradcheck(lambda x: feature_distance(x, teacher, KEEP, "cosine"), (s,))
    assert gradcheck(lambda x: feature_distance(x, teacher, KEEP, "mse"), (s,))
    learned = teacher.clone().requires_grad_()
    (soft_targets(s, learned, KEEP).sum() + feature_distance(s, learned, KEEP).sum()).backward()
    assert learned.grad is None
    assert s.grad is not None
    assert bool((s.grad[1] == 0).all())


def test_an_absent_teacher_leaves_no_trace() -> None:
    s, teacher = rand(3, 4).requires_grad_(), rand(3, 4, seed=1)
    teacher[1] = torch.nan
    loss = SoftTargets()(s, teacher, KEEP) + feature_distance(s, teacher, KEEP).sum()
    loss.backward()
    assert math.isfinite(loss.item())
    assert s.grad is not None
    assert bool(torch.isfinite(s.grad).all())
    assert SoftTargets()(s, teacher, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="teacher"):
        soft_targets(rand(3, 4), rand(3, 5), KEEP)
    with pytest.raises(ShapeError, match="teacher"):
        Features(width=4, teacher=3)(rand(2, 4).float(), rand(2, 5).float())
