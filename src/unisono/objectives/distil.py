"""Distillation: say what a teacher says, or be where its states are.

Letters: N rows, K classes, D width of the student, E width of the teacher.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from unisono.core.errors import ShapeError
from unisono.core.registry import Count, Positive
from unisono.objectives.base import Objective, objectives
from unisono.objectives.losses import kept


def soft_targets(student: Tensor, teacher: Tensor, keep: Tensor, temperature: float = 1.0) -> Tensor:
    """``t^2 sum_k p_k (log p_k - log q_k)`` with ``p = softmax(teacher / t)``, ``q = softmax(student / t)``.

    The factor keeps gradients of one size whatever t. Source: arXiv:1503.02531, section 2.

    Args:
        student: (N, K) raw scores.
        teacher: (N, K) raw scores; they get no gradient.
        keep: (N,) bool, rows of which there is a teacher's answer.
        temperature: t.

    Returns:
        (N,) nats, zero where not kept.

    Raises:
        ShapeError: the shapes differ.
    """
    _alike(student, teacher)
    log_q = torch.log_softmax(kept(student, keep) / temperature, 1)
    log_p = torch.log_softmax(kept(teacher.detach(), keep) / temperature, 1)
    loss = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)
    return torch.where(keep, loss, torch.zeros_like(loss))


def feature_distance(student: Tensor, teacher: Tensor, keep: Tensor, kind: Literal["cosine", "mse"] = "cosine") -> Tensor:
    """``1 - cos(s, t)``, or the mean over channels of ``(s - t)^2`` (arXiv:1412.6550).

    Args:
        student: (N, E).
        teacher: (N, E); it gets no gradient.
        keep: (N,) bool.
        kind: which distance.

    Returns:
        (N,), zero where not kept.

    Raises:
        ShapeError: the shapes differ.
    """
    _alike(student, teacher)
    s, t = kept(student, keep), kept(teacher.detach(), keep)
    loss = 1 - nn.functional.cosine_similarity(s, t, dim=1) if kind == "cosine" else (s - t).square().mean(1)
    return torch.where(keep, loss, torch.zeros_like(loss))


def _alike(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ShapeError(f"the student gives {tuple(student.shape)}, the teacher {tuple(teacher.shape)}")


def _mean(losses: Tensor, keep: Tensor) -> Tensor:
    return losses.sum() / keep.sum().clamp(min=1)


@objectives.register("soft_targets", source="arXiv:1503.02531")
class SoftTargets(Objective):
    """The mean of ``soft_targets`` over rows that have a teacher's answer.

    Args:
        temperature: t; above 1 small probabilities count more.
    """

    def __init__(self, *, temperature: Positive = 2.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
        """The loss of scores (N, K)."""
        keep = torch.ones(len(student), dtype=torch.bool, device=student.device) if keep is None else keep
        return _mean(soft_targets(student, teacher, keep, self.temperature), keep)


@objectives.register("features", source="arXiv:1412.6550")
class Features(Objective):
    """The mean of ``feature_distance`` between a linear map of the student's states and the teacher's.

    Args:
        width: D.
        teacher: E.
        kind: the distance: ``cosine`` or ``mse``.
    """

    def __init__(self, *, width: int, teacher: Count, kind: Literal["cosine", "mse"] = "cosine") -> None:
        super().__init__()
        self.map = nn.Linear(width, teacher)
        self.kind: Literal["cosine", "mse"] = kind

    def forward(self, states: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
        """The loss of states (N, D) against the teacher's (N, E)."""
        keep = torch.ones(len(states), dtype=torch.bool, device=states.device) if keep is None else keep
        return _mean(feature_distance(self.map(states), teacher, keep, self.kind), keep)
