"""From settings, or from a time budget and a calibration, to a plan: how many steps of how many rows."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unisono.core.errors import BudgetError, ModelFolderError
from unisono.train.settings import DEFAULT_PATIENCE, DEFAULT_UPDATES, FEWEST_EPOCHS, FEWEST_UPDATES, MOST_EPOCHS, VALIDATIONS, TrainSettings

MARGIN = 0.88
"""The share of the time left that is planned for; the rest absorbs a slower machine and the checkpoints."""
FEWEST_STEPS = 20
"""A plan of fewer steps is no training: the budget is refused."""
BUDGET_EPOCHS, BUDGET_UPDATES = 150, 5 * DEFAULT_UPDATES
"""What is enough: a longer budget is not used up beyond the larger of the two."""
PLAN_FILE = "train.json"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on the wall time of the whole command.

    Attributes:
        total_seconds: the limit.
        started_at: when the command began, on the clock that the loop is given.
        reserve_seconds: what comes after training: evaluation, report, saving.
    """

    total_seconds: float
    started_at: float
    reserve_seconds: float = 0.0

    @property
    def deadline(self) -> float:
        """When training has to end."""
        return self.started_at + self.total_seconds - self.reserve_seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """What the calibration measured at one batch size: seconds of a step."""

    batch: int
    step_seconds: float


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What a run will do, fixed before its first step.

    Attributes:
        steps: updates.
        batch: rows of a batch over all processes.
        validate_every: steps between validations.
        patience: validations without a better one before stopping early; 0 never.
        precision: ``float32`` or ``bf16``.
        seed: of order and dropout.
        rows: training rows.
        steps_per_epoch: batches of an epoch.
        processes: how many share a batch.
        threads: of each process.
        step_seconds: measured by the calibration; None without one.
        validation_seconds: likewise.
        budget_seconds: the budget; None without one.
    """

    steps: int
    batch: int
    validate_every: int
    patience: int
    precision: str
    seed: int
    rows: int
    steps_per_epoch: int
    processes: int = 1
    threads: int = 1
    step_seconds: float | None = None
    validation_seconds: float | None = None
    budget_seconds: float | None = None

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.steps / self.steps_per_epoch

    def as_settings(self) -> dict[str, Any]:
        """The keys of a recipe's ``train`` section that repeat this run to the same bits."""
        return {k: getattr(self, k) for k in ("steps", "batch", "validate_every", "patience", "precision")}


def default_batch(rows: int) -> int:
    """A power of two near ``1.5 sqrt(rows)``, between 16 and 128: enough updates in an epoch of a small table, few in one of a large."""
    return int(2 ** min(max(round(math.log2(1.5 * max(rows, 1) ** 0.5)), 4), 7))


def default_epochs(per_epoch: int) -> int:
    """About 1,200 updates, within 15 to 60 epochs, and in any case 500 updates.

    Args:
        per_epoch: batches of an epoch.
    """
    epochs = min(max(round(DEFAULT_UPDATES / per_epoch), FEWEST_EPOCHS), MOST_EPOCHS)
    return max(epochs, math.ceil(FEWEST_UPDATES / per_epoch))


def _validate_every(settings: TrainSettings, steps: int, per_epoch: int, most: int = VALIDATIONS) -> int:
    return min(settings.validate_every or max(per_epoch, math.ceil(steps / most)), steps)


def plan_free(settings: TrainSettings, per_epoch: int, **fixed: Any) -> TrainPlan:
    """The plan of a run without a budget.

    Args:
        settings: with ``steps`` or ``epochs``, or neither: then ``default_epochs``.
        per_epoch: batches of an epoch.
        **fixed: the plan's remaining fields.
    """
    epochs = settings.epochs or default_epochs(per_epoch)
    steps = settings.steps or epochs * per_epoch
    patience = DEFAULT_PATIENCE if settings.patience is None else settings.patience
    every = _validate_every(settings, steps, per_epoch)
    return TrainPlan(steps=steps, validate_every=every, patience=patience, steps_per_epoch=per_epoch, **fixed)


def choose_batch(timings: Sequence[Timing], rows: int, seconds: float, epochs: int = FEWEST_EPOCHS) -> Timing:
    """The smallest measured batch with which the time suffices for the epochs wanted, else the one with most rows a second."""
    for timing in sorted(timings, key=lambda t: t.batch):
        if seconds / timing.step_seconds * timing.batch >= epochs * rows:
            return timing
    return max(timings, key=lambda t: t.batch / t.step_seconds)


def plan_budget(
    settings: TrainSettings,
    timing: Timing,
    validation_seconds: float,
    budget: Budget,
    now: float,
    per_epoch: int,
    **fixed: Any,
) -> TrainPlan:
    """The plan of a run within a budget: ``n steps + validations <= MARGIN (deadline - now)``.

    Validations take at most a fifth of the time. ``steps`` and ``epochs`` of the settings are an upper bound.

    Raises:
        BudgetError: fewer than 20 steps fit; the message says how much is needed.
    """
    seconds = MARGIN * (budget.deadline - now)
    least = min(settings.steps or FEWEST_STEPS, FEWEST_STEPS)
    if seconds < least * timing.step_seconds + validation_seconds:
        needed = (now - budget.started_at) + budget.reserve_seconds + (least * timing.step_seconds + validation_seconds) / MARGIN
        raise BudgetError(
            f"a budget of {say_seconds(budget.total_seconds)} is too small: reading, {least} steps of training, one validation and the "
            f"report need about {say_seconds(math.ceil(1.15 * needed + 1))}; give at least --budget {math.ceil(1.15 * needed + 1)}s"
        )
    cap = settings.steps or (settings.epochs * per_epoch if settings.epochs else max(BUDGET_EPOCHS * per_epoch, BUDGET_UPDATES))
    spare = min(0.2 * seconds, seconds - least * timing.step_seconds)
    count = max(1, int(min(spare / max(validation_seconds, 1e-9), VALIDATIONS)))
    steps = max(1, min(cap, int((seconds - count * validation_seconds) / timing.step_seconds)))
    every = _validate_every(settings, steps, per_epoch, count)
    if settings.validate_every and steps / every > count:
        cost = timing.step_seconds + validation_seconds / every
        steps = max(1, min(cap, int((seconds - validation_seconds) / cost)))
        every = min(every, steps)
    return TrainPlan(
        steps=steps,
        batch=timing.batch,
        validate_every=every,
        patience=settings.patience or 0,
        steps_per_epoch=per_epoch,
        step_seconds=timing.step_seconds,
        validation_seconds=validation_seconds,
        budget_seconds=budget.total_seconds,
        **fixed,
    )


def say_seconds(seconds: float) -> str:
    """A time as a person says it: ``45 s``, ``2 min 5 s``, ``1 h 3 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 and seconds != whole else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def read_plan(folder: Path) -> TrainPlan | None:
    """The plan that a run wrote into its folder; None when it did not come so far.

    Raises:
        ModelFolderError: the file is damaged.
    """
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        return plan_from(json.loads(path.read_text())["plan"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path}: damaged ({error}); train again with --force") from error


def plan_from(mapping: Mapping[str, Any]) -> TrainPlan:
    """The plan in its JSON form, checked by name and type.

    Raises:
        TypeError: a field is missing, unknown or of the wrong type.
    """
    plan = TrainPlan(**mapping)
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        allowed: tuple[type, ...] = (str,) if field.name == "precision" else (int, float)
        if value is None and field.name.endswith("_seconds"):
            continue
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise TypeError(f"plan.{field.name} is {value!r}")
    return plan
