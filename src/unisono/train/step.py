"""One update, and what makes it a function of (weights, optimiser, batch, seed, step) alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unisono.core.errors import ConfigError, TrainingError
from unisono.train.devices import autocast
from unisono.train.distribute import Group
from unisono.train.protocols import Learner, Losses, Splitting, Whole

_NAMED_ROWS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step found: loss sum, count, norm of the gradient, the signals summed over processes, and the parts."""

    total: float
    count: float
    norm: float
    signals: tuple[float, float]
    parts: dict[str, tuple[float, float]]

    @property
    def loss(self) -> float:
        """Sum over count; 0 where nothing counted."""
        return self.total / self.count if self.count else 0.0


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step, so that dropout is a function of (seed, step, process)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB + 0x2545F4914F6CDD1D) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    torch.manual_seed((mixed ^ (mixed >> 31)) >> 1)


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Leave the caller's random state, and its training mode of autograd, as they were."""
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []), torch.enable_grad():
        yield


@dataclass(frozen=True, slots=True)
class Stepper:
    """What every step of a run shares."""

    learner: Learner
    optimiser: Optimizer
    parameters: Sequence[nn.Parameter]
    group: Group
    device: torch.device
    precision: str
    clip: float
    max_tokens: int | None
    seed: int

    def __call__(self, batch: Any, step: int, lr: float, signals: tuple[float, float] = (0.0, 0.0)) -> Outcome:
        """Make one update.

        ``signals`` are two numbers that every process adds to, and learns the sums of.

        The gradient is ``sum of the gradients of all micro-batches and processes / sum of their counts``, then scaled down to
        the norm ``clip``. A batch without any count changes nothing.

        Raises:
            TrainingError: a loss or gradient is not finite; the weights are those from before the step.
        """
        seed_step(self.seed, step, self.group.rank)
        self.optimiser.zero_grad(set_to_none=True)
        total = count = 0.0
        parts: dict[str, tuple[float, float]] = {}
        odd = False
        for piece, losses in self._passes(batch):
            value, n = losses.total_sum.detach().item(), float(losses.count)
            if not math.isfinite(value):
                odd = True
                if self.group.world == 1:
                    self._refuse(piece, f"the loss is {value}", step)
            total, count = total + value, count + n
            for name, (part, weight) in losses.parts.items():
                before = parts.get(name, (0.0, 0.0))
                parts[name] = (before[0] + part, before[1] + weight)
        local = torch.tensor([total, count, *signals], dtype=torch.float64, device=self.device)
        total, count, first, second = self.group.add_up(self.parameters, local).tolist()
        if not math.isfinite(total):
            self._refuse(batch if odd else None, f"the loss is {total}", step)
        norm = self._update(batch, count, lr, step) if count > 0 else 0.0
        return Outcome(total, count, norm, (first, second), parts)

    def _passes(self, batch: Any) -> Iterator[tuple[Any, Losses]]:
        """Every micro-batch with its losses, whose gradient has been added; one whose loss cannot be cut is passed as a whole."""
        pieces = self._pieces(batch)
        if isinstance(self.learner, Whole) and self.learner.whole and len(pieces) > 1:
            if any(getattr(m, "batch_statistics", False) for m in self.learner.module.modules()):
                raise ConfigError(
                    "train.max_tokens: this loss runs every micro-batch twice, which norms with batch statistics would notice; leave the "
                    "setting out, or take a norm without them"
                )
            yield batch, self.learner.backward(pieces, lambda: autocast(self.precision, self.device))
            return
        for piece in pieces:
            yield piece, self._backward(piece)

    def _pieces(self, batch: Any) -> list[Any]:
        if self.max_tokens is None:
            return [self.learner.move(batch, self.device)]
        if not isinstance(self.learner, Splitting):
            raise ConfigError("train.max_tokens: this model's batches cannot be cut; leave the setting out")
        return [self.learner.move(b, self.device) for b in self.learner.split(batch, self.max_tokens)]

    def _backward(self, piece: Any) -> Losses:
        with autocast(self.precision, self.device):
            losses = self.learner.loss(piece)
        if losses.total_sum.requires_grad:
            losses.total_sum.float().backward()  # type: ignore[no-untyped-call]
        return losses

    def _update(self, batch: Any, count: float, lr: float, step: int) -> float:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            return 0.0
        norms = torch._foreach_norm(gradients)
        norm = float(torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))) / count
        if not math.isfinite(norm):
            self._refuse(batch, f"the gradient's norm is {norm} though the loss is finite", step)
        torch._foreach_mul_(gradients, (min(1.0, self.clip / (norm + 1e-6)) if self.clip else 1.0) / count)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        return norm

    def _refuse(self, batch: Any, what: str, step: int) -> None:
        if batch is None:
            where = "the rows are named by another process"
        else:
            rows = self.learner.describe_rows(batch)
            more = f", and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
            where = f"rows {', '.join(rows[:_NAMED_ROWS])}{more}"
        raise TrainingError(
            f"training stopped at step {step + 1}: {what} ({where}); look at these rows for extreme values, or try "
            f"a lower train.lr{' or train.precision=float32' if self.precision == 'bf16' else ''}; the last checkpoint is intact"
        )
