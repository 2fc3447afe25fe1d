"""The contract of a task: from a target column to a loss, and from scores back to a column.

The path of a target::

    Arrow column --decode--> cells --fit (training rows)--> statistics
                                   --encode--> values, present --loss, calibrate, metrics--
    scores --columns--> Arrow columns

A task holds settings only. Everything fitted is in ``statistics``, a mapping of JSON values that stands in
``unisono.core.schema.Target.statistics``; every method that needs it takes it.

Letters: N rows, B rows of a batch, D width, K scores a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.errors import SchemaError
from unisono.core.registry import Registry
from unisono.core.schema import Target
from unisono.tasks.bootstrap import percentile_intervals

Array = NDArray[Any]
Statistics = Mapping[str, Any]
#: A task's claim on a target column: confidence 0 to 1 and the reason in words, doubts included.
Claim = tuple[float, str]
#: Every key that a metrics mapping can have, in the order in which they are shown.
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "ece", "mae", "rmse", "r2", "map")


@dataclass(frozen=True)
class Column:
    """A decoded target column.

    Attributes:
        cells: (N,) object array (numbers: float64), ``None`` (NaN) where missing or unreadable.
        bad: (row, reason) of each cell that could not be read.
        type: the Arrow type the column had, for predictions to come back in.
    """

    cells: Array
    bad: tuple[tuple[int, str], ...]
    type: pa.DataType


class Task(ABC):
    """How one kind of target is recognised, learned, measured and written out. Settings only; one instance serves many targets."""

    #: The word for it in ``--target COL=WORD``.
    word: ClassVar[str]
    #: The headline metric and whether more of it is better.
    objective_metric: ClassVar[tuple[str, bool]]
    #: Metrics that ``intervals`` covers.
    interval_metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def detect(self, array: pa.Array) -> Claim | None:
        """Claim a target column by its values, or not; the highest confidence wins."""

    @abstractmethod
    def decode(self, array: pa.Array) -> tuple[Array, list[tuple[int, str]]]:
        """Read a target column.

        Args:
            array: the column or a chunk of it; nulls and NaN are missing targets.

        Returns:
            (N,) cells (``None``, or NaN for numbers, where missing or unreadable) and (row, reason) of each unreadable cell.

        Raises:
            SchemaError: the column's type can hold no target of this kind.
        """

    @abstractmethod
    def fit(self, cells: Array, type: pa.DataType | None = None) -> dict[str, Any]:
        """Learn what the task needs from training rows.

        Args:
            cells: decoded cells of training rows only.
            type: the column's Arrow type, for predictions to come back in it; text (numbers: float64) if not given.

        Returns:
            JSON values.

        Raises:
            SchemaError: fewer than two rows have a target, or all have the same.
        """

    @abstractmethod
    def encode(self, cells: Array, statistics: Statistics) -> tuple[Array, NDArray[np.bool_]]:
        """Turn cells into what ``loss`` and ``metrics`` read, and say where there is a target."""

    @abstractmethod
    def decode_values(self, values: Array, statistics: Statistics) -> pa.Array:
        """Encoded values as a column of the original type; null for what training never saw."""

    @abstractmethod
    def head(self, width: int, statistics: Statistics) -> nn.Module:
        """A module from pooled states (B, D) to raw scores (B, K); its first answers are close to zero."""

    @abstractmethod
    def loss(self, scores: Tensor, values: Tensor, present: Tensor, statistics: Statistics) -> Tensor:
        """(B,) loss of each row, at least float32; exactly zero, without gradient, where no (known) target is present."""

    @abstractmethod
    def constant_loss(self, statistics: Statistics) -> float:
        """The mean training loss of the best constant answer: the unit that ``objectives.balance`` measures losses in."""

    @abstractmethod
    def calibrate(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, Any]:
        """Fit what turns scores into trustworthy answers, on validation rows; the caller merges it into the statistics."""

    @abstractmethod
    def probabilities(self, scores: Array, statistics: Statistics) -> Array:
        """Calibrated probabilities (N, K); (N, 0) for numbers."""

    @abstractmethod
    def predict(self, scores: Array, statistics: Statistics) -> pa.Array:
        """The answers as a column of the original type."""

    @abstractmethod
    def columns(self, name: str, scores: Array, statistics: Statistics) -> dict[str, pa.Array]:
        """The columns of a prediction file: ``T``, ``T.probability``, ``T.probability.CLASS`` as far as the task has them."""

    @abstractmethod
    def metrics(self, scores: Array, values: Array, present: Array, statistics: Statistics) -> dict[str, float]:
        """Metrics over rows with a target, keys in the order of ``METRICS``; NaN (JSON null) for what the rows leave undefined."""

    @abstractmethod
    def row_losses(self, scores: Array, values: Array, statistics: Statistics) -> Array:
        """(N,) how wrong each answer is, in float64, after calibration; infinite for a class that training never saw."""

    @abstractmethod
    def resampled(self, scores: Array, values: Array, statistics: Statistics, rows: Array) -> dict[str, Array]:
        """``interval_metrics`` of R resamples, (R,) each; ``rows`` (R, N) says how often each row was drawn."""

    def worst(self, scores: Array, values: Array, present: Array, statistics: Statistics, k: int) -> Array:
        """Places of the k rows with the largest loss among those with a target, the worst first; ties by place."""
        places = np.flatnonzero(present)
        losses = self.row_losses(np.asarray(scores)[places], np.asarray(values)[places], statistics)
        chosen: Array = places[np.argsort(-losses, kind="stable")[:k]]
        return chosen

    def intervals(
        self,
        scores: Array,
        values: Array,
        present: Array,
        statistics: Statistics,
        *,
        seed: int = 0,
        replicates: int = 1000,
        level: float = 0.95,
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap over rows (Efron 1979) for the headline metrics.

        Args:
            scores: (N, K).
            values: encoded targets.
            present: (N,) bool.
            statistics: what ``fit`` and ``calibrate`` learned.
            seed: of the resamples.
            replicates: R.
            level: the share of resamples inside.

        Returns:
            Metric -> (low, high); NaN where no resample defines it.
        """
        kept = np.asarray(present, bool)
        s, v = np.asarray(scores)[kept], np.asarray(values)[kept]

        def measure(rows: Array) -> dict[str, Array]:
            return self.resampled(s, v, statistics, rows)

        return percentile_intervals(measure, len(s), self.interval_metrics, seed=seed, replicates=replicates, level=level)


tasks: Registry[Task] = Registry("task", Task, package="unisono.tasks")


def detect_task(array: pa.Array, name: str) -> tuple[str, str]:
    """Find the task of a target column.

    Args:
        array: the column's values, or the first few thousand.
        name: the column's name, for the error.

    Returns:
        The task's word and the reason in words.

    Raises:
        SchemaError: the column is empty, or no task can read it.
    """
    if len(array) == array.null_count:
        raise SchemaError(f"target {name!r}: every cell is missing, so there is nothing to learn; choose another target")
    claims = {word: claim for word, entry in tasks.entries.items() if (claim := entry.target().detect(array)) is not None}
    if not claims:
        known = ", ".join(tasks.entries)
        raise SchemaError(f"target {name!r}: no task fits values of type {array.type}; say which with --target {name}=TASK ({known})")
    word = max(claims, key=lambda w: claims[w][0])
    return word, claims[word][1]


def decode_target(task: Task, array: pa.Array | pa.ChunkedArray) -> Column:
    """Decode a target column and remember its type."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    cells, bad = task.decode(whole)
    return Column(cells, tuple(bad), whole.type)


def build_task(target: Target) -> Task:
    """The task of a target, built from its word and the settings that its statistics remember."""
    return tasks.build({"type": target.task, **target.statistics.get("settings", {})}, where=f"target {target.name!r}")


def to_json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON values: what is undefined becomes null."""
    return {key: float(value) if np.isfinite(value) else None for key, value in metrics.items()}


def linear_head(width: int, outputs: int) -> nn.Linear:
    """A linear map whose first answers are close to zero: weights of standard deviation ``0.1 / sqrt(width)``, bias zero."""
    head = nn.Linear(width, outputs)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.1 / max(width, 1) ** 0.5)
        head.bias.zero_()
    return head


def need_rows(count: int, distinct: int, what: str) -> None:
    """Refuse targets that nothing can be learned from.

    Raises:
        SchemaError: fewer than two training rows have a target, or all of them have the same.
    """
    if count < 2:
        rows = "no training row has" if count == 0 else "only one training row has"
        raise SchemaError(f"{rows} a target; give more rows, or another target or split")
    if distinct < 2:
        raise SchemaError(f"every training row has the same target, {what}: there is nothing to tell apart; choose another target or split")


def as_scores(scores: Array | Sequence[Any]) -> Array:
    """Scores in float64, (N, K)."""
    wide = np.asarray(scores, np.float64)
    return wide[:, None] if wide.ndim == 1 else wide
