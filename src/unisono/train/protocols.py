"""What the training loop asks of a learner and of its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unisono.core.errors import UnisonoError


class Interrupted(UnisonoError):  # noqa: N818 - what happened is no error
    """Training was asked to stop; the checkpoint holds everything up to the last whole step."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of one batch as a sum and a count, so that parts of a batch add up exactly.

    The loss over micro-batches and processes is ``sum of total_sum / sum of count``.

    Attributes:
        total_sum: differentiable scalar, the sum of the weighted losses of rows (or targets); float32.
        count: scalar, how many rows (or targets), by weight, contributed to the sum; 0 when none has a target.
        parts: name -> (sum, count) of each part of the loss, for the record only.
    """

    total_sum: Tensor
    count: Tensor
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Validation:
    """What one validation found.

    Attributes:
        metrics: name -> value.
        objective: what early stopping and the choice of the best weights minimise.
        headline: the metric to show beside the progress bar.
    """

    metrics: Mapping[str, float]
    objective: float
    headline: tuple[str, float] | None = None


class Learner(Protocol):
    """A module together with its loss and validation.

    ``loss`` may change nothing but the module's buffers and may draw only from torch's global generators, which the loop
    seeds anew for every step; together with its batches it is thereby a function of the weights, seed and step.
    """

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    def loss(self, batch: Any) -> Losses:
        """The loss of a batch, in training mode."""
        ...

    def validate(self) -> Validation | None:
        """Metrics on the validation rows, in evaluation mode without gradients; None when there are no such rows."""
        ...

    def move(self, batch: Any, device: torch.device) -> Any:
        """The batch on another device."""
        ...

    def describe_rows(self, batch: Any) -> list[str]:
        """A name a person recognises for each row of the batch."""
        ...


@runtime_checkable
class Splitting(Protocol):
    """A learner whose batches can be cut, which the setting ``max_tokens`` needs."""

    def split(self, batch: Any, max_tokens: int) -> list[Any]:
        """Micro-batches of at most so many tokens each (or one row), which together are the batch."""
        ...


@runtime_checkable
class Whole(Protocol):
    """A learner whose loss may be of a batch as a whole; micro-batches then share one backward pass over what they show."""

    @property
    def whole(self) -> bool:
        """Whether it is."""
        ...

    def backward(self, pieces: Sequence[Any], cast: Callable[[], AbstractContextManager[Any]]) -> Losses:
        """Add the gradient of the batch that the micro-batches make up to the parameters'; ``cast`` is the precision of a forward pass."""
        ...


class Batches(Protocol):
    """The training rows in batches, their order a function of (seed, epoch)."""

    @property
    def num_rows(self) -> int:
        """How many rows an epoch has."""
        ...

    def batches_per_epoch(self, batch_rows: int) -> int:
        """How many batches an epoch has at this batch size."""
        ...

    def epoch(self, epoch: int, *, skip: int, rank: int, world: int, batch_rows: int) -> Iterator[Any]:
        """The epoch's batches after the first ``skip``, each cut to the slice of process ``rank`` of ``world``.

        Args:
            epoch: counted from 0.
            skip: how many batches are passed over, without decoding them.
            rank: this process.
            world: how many processes share each batch; every process gets the same number of (possibly empty) slices.
            batch_rows: rows of a whole batch over all processes.
        """
        ...
