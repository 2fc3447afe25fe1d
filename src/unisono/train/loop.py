"""The training loop."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from unisono.core.errors import ConfigError, ModelFolderError, TrainingError
from unisono.core.memory import kept_heap
from unisono.train import checkpoint as store
from unisono.train.budget import PLAN_FILE, Budget, TrainPlan, choose_batch, default_batch, plan_budget, plan_free, read_plan
from unisono.train.calibrate import calibrate, candidate_batches, make_stepper
from unisono.train.devices import autocast, choose_precision, machine_summary
from unisono.train.distribute import Group, join
from unisono.train.ema import MovingAverage
from unisono.train.progress import Display, History, append_record, restart_history
from unisono.train.protocols import Batches, Interrupted, Learner, Validation
from unisono.train.schedules import factor, progress_at
from unisono.train.settings import SMOOTHED, TrainSettings
from unisono.train.step import Outcome, Stepper, own_randomness, seed_step

_WATCH_SECONDS = 0.5
_VALIDATION_CHECKPOINT_SHARE = 0.2
"""A validation is followed by a checkpoint once this share of ``checkpoint_seconds`` has passed since the last."""
_EPOCH_SALT = 1 << 40


class Stopper:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop after the present step; the second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals, where this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@dataclass(slots=True)
class State:
    """Where a run stands, beside its tensors; all of it goes into the checkpoint.

    Attributes:
        step: updates done.
        total: updates to do, as it now stands.
        bends: (step, share of the schedule done) of each time the run was shortened.
        recent: objectives of the latest validations, at most ``SMOOTHED`` of them.
        best_objective: the smallest mean of the latest validations so far.
        best_step: when that was.
        stale: validations since.
        seconds: wall time of training so far.
        sums: loss sum, count and rows since the last record.
        stopped: how the run ended; empty while it goes on.
        records: the history so far.
    """

    total: int
    step: int = 0
    bends: list[tuple[int, float]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    best_objective: float | None = None
    best_step: int | None = None
    stale: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    stopped: str = ""
    records: list[dict[str, Any]] = field(default_factory=list)


def make_plan(
    learner: Learner,
    batches: Batches,
    settings: TrainSettings,
    *,
    seed: int,
    budget: Budget | None,
    clock: Callable[[], float],
    group: Group,
) -> TrainPlan:
    """Plan a run, by calibration where there is a budget.

    Raises:
        BudgetError: the budget is impossible; the message says how much is needed.
        TrainingError: there are no rows.
    """
    if batches.num_rows < 1:
        raise TrainingError("there are no rows to train on")
    device = next(learner.module.parameters()).device
    precision = choose_precision(settings.precision, device)
    fixed = {"precision": precision, "seed": seed, "rows": batches.num_rows, "processes": group.world, "threads": torch.get_num_threads()}
    if budget is None:
        batch = settings.batch or default_batch(batches.num_rows)
        return plan_free(settings, max(1, batches.batches_per_epoch(batch)), batch=batch, **fixed)

    def stepper() -> Stepper:
        return make_stepper(learner, settings, group, device, precision, seed)

    sizes = candidate_batches(settings, batches.num_rows)
    timings, validation_seconds = calibrate(stepper, batches, sizes, max(budget.deadline - clock(), 0.0), clock)
    now = torch.tensor([clock(), budget.started_at], dtype=torch.float64, device=device)
    group.same([now])
    at, started = now.tolist()
    budget = Budget(budget.total_seconds, started, budget.reserve_seconds)
    timing = choose_batch(timings, batches.num_rows, max(budget.deadline - at, 0.0))
    per_epoch = max(1, batches.batches_per_epoch(timing.batch))
    return plan_budget(settings, timing, validation_seconds, budget, at, per_epoch, **fixed)


class Run:
    """One run of training; ``train`` is its use."""

    def __init__(
        self, learner: Learner, batches: Batches, settings: TrainSettings, plan: TrainPlan, group: Group, folder: Path | None,
        clock: Callable[[], float], deadline: float | None,
    ) -> None:  # fmt: skip
        self.learner, self.batches, self.settings, self.plan, self.group = learner, batches, settings, plan, group
        self.folder = folder if group.main else None
        self.clock, self.deadline = clock, deadline
        self.device = next(learner.module.parameters()).device
        self.stepper = make_stepper(learner, settings, group, self.device, plan.precision, plan.seed)
        self.highest_lr = settings.highest_lr(plan.rows)
        self.average = MovingAverage(learner.module, settings.ema) if settings.ema else None
        self.best: dict[str, Tensor] | None = None
        self.state = State(plan.steps)
        self.validation_seconds = plan.validation_seconds or 0.0
        self._parts: dict[str, tuple[float, float]] = {}
        self._saved_at = self._watched_at = self._began = clock()
        self._watched_step, self._validated_since, self._cut = 0, 0.0, 0
        self._seconds_before, self._session_step = 0.0, 0

    # --- the way through -----------------------------------------------------------------------------------------------------------

    def go(self, progress: bool) -> History:
        """Train from the present state to the end and leave the best weights in the module."""
        state = self.state
        if not state.stopped:
            self.group.same(store.named_tensors(self.learner.module).values())
            with Stopper() as stopper, Display(state.total, state.step, progress and self.group.main, self.clock) as display:
                self._loop(stopper, display)
            self._save()
        self._take_best()
        return History(self.plan, state.records, state.step, state.seconds, state.stopped, state.best_step, state.best_objective)

    def _loop(self, stopper: Stopper, display: Display) -> None:
        state, module = self.state, self.learner.module
        self._began = self._saved_at = self._watched_at = self.clock()
        self._seconds_before, self._watched_step, self._session_step = state.seconds, state.step, state.step
        module.train()
        stream = self._stream()
        while True:
            batch = next(stream)
            lr = self.highest_lr * factor(self.settings.schedule, progress_at(state.step, state.total, state.bends), self.settings.warmup)
            outcome = self.stepper(batch, state.step, lr, signals=(float(stopper.asked), float(self._cut if self.group.main else 0)))
            if self.average is not None:
                self.average.update()
            self._account(outcome)
            display.step(outcome.loss, min(self.plan.batch, self.plan.rows))
            if outcome.signals[1] > 0:
                self._shorten(int(outcome.signals[1]), display)
            if self._after(display, lr):
                return
            if outcome.signals[0] > 0 or (self.group.world == 1 and stopper.asked):
                self._save()
                raise Interrupted(self._say_interrupted())
            if self.folder is not None and self.clock() - self._saved_at >= self.settings.checkpoint_seconds:
                self._save()

    def _stream(self) -> Iterator[Any]:
        """The batches from the present step on, epoch after epoch."""
        step, size = self.state.step, self.plan.steps_per_epoch
        while True:
            epoch, place = divmod(step, size)
            before = step
            for batch in self.batches.epoch(epoch, skip=place, rank=self.group.rank, world=self.group.world, batch_rows=self.plan.batch):
                yield batch
                step += 1
            if step == before or step % size:
                raise TrainingError(
                    f"epoch {epoch} had {step - before} batches instead of {size - place}; were rows removed during training?"
                )

    def _account(self, outcome: Outcome) -> None:
        state = self.state
        state.step += 1
        state.seconds = self._seconds_before + self.clock() - self._began
        for i, value in enumerate((outcome.total, outcome.count, float(min(self.plan.batch, self.plan.rows)))):
            state.sums[i] += value
        for name, (part, count) in outcome.parts.items():
            before = self._parts.get(name, (0.0, 0.0))
            self._parts[name] = (before[0] + part, before[1] + count)

    def _after(self, display: Display, lr: float) -> bool:
        """Validate, record, stop or watch the time, as it is due; say whether the run is over."""
        state = self.state
        ended = state.step >= state.total
        if ended or state.step % self.plan.validate_every == 0:
            began = self.clock()
            found = self._validate()
            self.validation_seconds = max(self.validation_seconds, self.clock() - began)
            self._validated_since += self.clock() - began
            if found is not None:
                display.validated(found.headline, found.objective)
            if self.plan.patience and state.stale >= self.plan.patience and not ended:
                state.stopped = "early"
            self._record(found, lr)
            if self.clock() - self._saved_at >= _VALIDATION_CHECKPOINT_SHARE * self.settings.checkpoint_seconds and not ended:
                self._save()
        if ended:
            state.stopped = "shortened" if state.bends else "completed"
        elif self.deadline is not None:
            self._watch(self.deadline)
        return bool(state.stopped)

    # --- validation and records ----------------------------------------------------------------------------------------------------

    def _validate(self) -> Validation | None:
        state, module = self.state, self.learner.module
        self.group.same(b for b in module.buffers() if b.is_floating_point())
        seed_step(self.plan.seed, _EPOCH_SALT + state.step)
        self.stepper.optimiser.zero_grad(set_to_none=True)
        with self.average.swapped_in() if self.average is not None else nullcontext():
            module.eval()
            try:
                with torch.no_grad(), autocast(self.plan.precision, self.device):
                    found = self.learner.validate()
            finally:
                module.train()
            if found is None:
                return None
            shared = torch.tensor([found.objective], dtype=torch.float64, device=self.device)
            self.group.same([shared])
            objective = shared.item()
            if math.isfinite(objective):
                state.recent = [*state.recent, objective][-SMOOTHED:]
                objective = sum(state.recent) / len(state.recent)
            if math.isfinite(objective) and (state.best_objective is None or objective < state.best_objective):
                state.best_objective, state.best_step, state.stale = objective, state.step, 0
                self.best = store.copies(store.named_tensors(module))
            else:
                state.stale += 1
        return found

    def _record(self, found: Validation | None, lr: float) -> None:
        state = self.state
        total, count, rows = state.sums
        since = state.records[-1]["seconds"] if state.records else 0.0
        record: dict[str, Any] = {
            "step": state.step,
            "epoch": round(state.step / self.plan.steps_per_epoch, 4),
            "loss": total / count if count else None,
            "lr": lr,
            "seconds": round(state.seconds, 3),
            "rows_per_second": round(rows / max(state.seconds - since, 1e-9), 1),
            "parts": {k: (s / n if n else None) for k, (s, n) in self._parts.items()},
        }
        if found is not None:
            record["objective"] = found.objective if math.isfinite(found.objective) else None
            record["metrics"] = {k: (v if math.isfinite(v) else None) for k, v in found.metrics.items()}
        state.records.append(record)
        state.sums, self._parts = [0.0, 0.0, 0.0], {}
        if self.folder is not None:
            append_record(self.folder, record)

    # --- time ----------------------------------------------------------------------------------------------------------------------

    def _watch(self, deadline: float) -> None:
        """Where the machine has become so slow that the deadline would be missed, ask for fewer steps."""
        now, state = self.clock(), self.state
        passed = now - self._watched_at
        if passed < _WATCH_SECONDS or state.step == self._watched_step:
            return
        recent = max(passed - self._validated_since, 0.0) / (state.step - self._watched_step)
        self._watched_at, self._watched_step, self._validated_since = now, state.step, 0.0
        overall = (state.seconds - self._seconds_before) / max(state.step - self._session_step, 1)
        pace = 0.5 * (recent + overall) + self.validation_seconds / self.plan.validate_every
        left = deadline - now - self.validation_seconds
        if pace * (state.total - state.step) > left:
            possible = max(1, int(0.95 * left / pace))
            self._cut = max(0, state.total - state.step - possible)

    def _shorten(self, cut: int, display: Display) -> None:
        state = self.state
        total = max(state.step, state.total - cut)
        self._cut = 0
        if total < state.total:
            done = progress_at(state.step, state.total, state.bends)
            state.bends.append((state.step, done))
            state.total = total
            display.shorten(total)

    # --- checkpoints ---------------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._saved_at = self.clock()
        if self.folder is None:
            return
        moments, numbers = store.optimiser_tensors(self.stepper.optimiser)
        tensors = {"model": store.named_tensors(self.learner.module), "optimiser": moments}
        if self.average is not None:
            tensors["average"] = self.average.averages
        if self.best is not None:
            tensors["best"] = self.best
        epoch, place = divmod(self.state.step, self.plan.steps_per_epoch)
        state = {
            "run": asdict(self.state),
            "epoch": epoch,
            "place_in_epoch": place,
            "parts": self._parts,
            "optimiser_numbers": numbers,
            "average_updates": self.average.updates if self.average is not None else 0,
            "plan": asdict(self.plan),
        }
        store.save(self.folder, store.Checkpoint(state, tensors))

    def restore(self, folder: Path) -> None:
        """Take up the last checkpoint of a folder."""
        found = store.load(folder)
        where = str(folder / store.FOLDER)
        try:
            kept = found.state["run"]
            self.state = State(**{**kept, "bends": [(int(s), float(d)) for s, d in kept["bends"]]})
            self._parts = {k: (s, n) for k, (s, n) in found.state["parts"].items()}
            if found.state["plan"] != asdict(self.plan):
                raise ConfigError(f"{where} belongs to another run than {folder / PLAN_FILE}; train again with --force")
            store.put_back(self.learner.module, found.tensors["model"], where)
            store.put_back_optimiser(self.stepper.optimiser, found.tensors["optimiser"], found.state["optimiser_numbers"])
            if self.average is not None:
                self.average.updates = found.state["average_updates"]
                for name, tensor in self.average.averages.items():
                    tensor.copy_(found.tensors["average"][name])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFolderError(f"{where}: the checkpoint is damaged ({error}); train again with --force") from error
        self.best = dict(found.tensors["best"]) if "best" in found.tensors else None
        if self.folder is not None:
            restart_history(self.folder, self.state.records)

    def _take_best(self) -> None:
        module = self.learner.module
        self.stepper.optimiser.zero_grad(set_to_none=True)
        if self.best is not None:
            store.put_back(module, self.best)
        elif self.average is not None:
            store.put_back(module, {**store.named_tensors(module), **self.average.averages})
        module.eval()

    def _say_interrupted(self) -> str:
        if self.folder is None and self.group.main:
            return f"stopped after step {self.state.step} of {self.state.total}"
        return (
            f"stopped after step {self.state.step} of {self.state.total}; the checkpoint is kept: go on with the same command and --resume"
        )


def write_summary(folder: Path, settings: TrainSettings, plan: TrainPlan, history: History | None, bends: list[tuple[int, float]]) -> None:
    """Write ``train.json``: the plan, and once the run is over what became of it."""
    result = None
    if history is not None:
        result = {
            "steps": history.steps,
            "stopped": history.stopped,
            "seconds": round(history.seconds, 3),
            "best_step": history.best_step,
            "best_objective": history.best_objective,
            "shortened_at": [step for step, _ in bends],
        }
    content = {"version": 1, "plan": asdict(plan), "settings": settings.as_dict(), "machine": machine_summary(), "result": result}
    store.write_json(folder / PLAN_FILE, content)


def _check_same(folder: Path, settings: TrainSettings, plan: TrainPlan, seed: int, group: Group) -> None:
    """Refuse to resume a run under other settings than it began with."""
    written = json.loads((folder / PLAN_FILE).read_text()).get("settings", {})
    fixed = plan.as_settings()
    loose = {"epochs", "checkpoint_seconds", *fixed}
    now = {k: v for k, v in settings.as_dict().items() if k not in loose}
    then = {k: v for k, v in written.items() if k not in loose}
    changed = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    changed += [k for k, v in fixed.items() if getattr(settings, k) not in {None, "auto", v, written.get(k)}]
    if seed != plan.seed:
        changed.append("seed")
    if group.world != plan.processes:
        changed.append(f"number of processes (was {plan.processes})")
    if changed:
        raise ConfigError(
            f"--resume: {', '.join(changed)} differ from the run in {folder}; leave them as they were, or begin anew with --force"
        )


def train(
    learner: Learner,
    batches: Batches,
    settings: TrainSettings,
    *,
    folder: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    budget: Budget | None = None,
    progress: bool = True,
    clock: Callable[[], float] = time.monotonic,
    on_plan: Callable[[TrainPlan], None] | None = None,
) -> History:
    """Train a learner, and leave its best weights in its module.

    The same seed, steps, threads and machine give the same bits, interrupted and resumed or not.

    Args:
        learner: module, loss and validation; on its device already.
        batches: the training rows.
        settings: how to train.
        folder: where ``train.json``, ``history.jsonl`` and ``checkpoint/`` go; None writes nothing.
        seed: of order and dropout.
        resume: go on from the folder's checkpoint by its written plan.
        budget: plan the run to end within it.
        progress: show progress on stderr.
        clock: seconds, the clock of ``budget``.
        on_plan: told the plan before the first step.

    Raises:
        BudgetError: the budget is impossible.
        ConfigError: settings that do not fit the learner, or the run to resume.
        TrainingError: a loss or gradient that is not finite; the rows are named.
        ResourceError: the disk is full; the last checkpoint is intact.
        Interrupted: Ctrl-C; the checkpoint says where to go on.
    """
    group = join(next(learner.module.parameters()).device)
    with own_randomness(next(learner.module.parameters()).device), kept_heap():
        plan = read_plan(folder) if resume and folder is not None else None
        found = plan is not None and folder is not None and store.exists(folder)
        if plan is not None and folder is not None:
            _check_same(folder, settings, plan, seed, group)
        if plan is None:
            plan = make_plan(learner, batches, settings, seed=seed, budget=budget, clock=clock, group=group)
        run = Run(learner, batches, settings, plan, group, folder, clock, budget.deadline if budget is not None else None)
        if run.folder is not None:
            run.folder.mkdir(parents=True, exist_ok=True)
            store.clear_partial(run.folder)
            if not found:
                store.discard(run.folder)
                restart_history(run.folder, [])
                write_summary(run.folder, settings, plan, None, [])
        if on_plan is not None and group.main:
            on_plan(plan)
        if found and folder is not None:
            run.restore(folder)
        history = run.go(progress)
        if run.folder is not None:
            write_summary(run.folder, settings, plan, history, run.state.bends)
    return history
