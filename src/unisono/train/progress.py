"""What a person sees of a run: a bar on a terminal, a line now and then elsewhere; and the history as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unisono.core.errors import ResourceError
from unisono.train.budget import TrainPlan, say_seconds

LINE_SECONDS = 10.0
HISTORY_FILE = "history.jsonl"


@dataclass(slots=True)
class History:
    """What a run did.

    Attributes:
        plan: what it was to do.
        records: one per validation: step, epoch, loss, lr, seconds, rows_per_second, parts, metrics, objective.
        steps: updates really done.
        seconds: wall time of training, all sessions of a resumed run together.
        stopped: ``completed``, ``early`` (no better validation for long) or ``shortened`` (the budget ran out).
        best_step: after which the weights now in the module were taken; None without validation.
        best_objective: their objective.
    """

    plan: TrainPlan
    records: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    stopped: str = "completed"
    best_step: int | None = None
    best_objective: float | None = None


def append_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Add one line to the history file.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    _write(folder / HISTORY_FILE, "a", json.dumps(record) + "\n")


def restart_history(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write the history anew, with the records a resumed run begins from."""
    _write(folder / HISTORY_FILE, "w", "".join(json.dumps(r) + "\n" for r in records))


def _write(path: Path, mode: str, text: str) -> None:
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror or error}); free some space and go on with --resume") from error


class Display:
    """Progress on stderr.

    Args:
        total: steps of the run.
        done: steps done already.
        shown: whether to show anything.
        clock: for the lines' interval.
    """

    def __init__(self, total: int, done: int, shown: bool, clock: Callable[[], float]) -> None:
        self.total, self.done, self.shown, self.clock = total, done, shown, clock
        self._first, self._began, self._last, self._rows, self._metric = done, clock(), clock(), 0, ""
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="step", desc="training", file=sys.stderr, dynamic_ncols=True, mininterval=0.2)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the last state of the bar on the screen."""
        if self._bar is not None:
            self._bar.close()

    def validated(self, headline: tuple[str, float] | None, objective: float) -> None:
        """Take the newest validation metric."""
        name, value = headline or ("objective", objective)
        self._metric = f"{name} {value:.4g}"

    def shorten(self, total: int) -> None:
        """The run has become shorter."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total

    def step(self, loss: float, rows: int) -> None:
        """One step is done."""
        self.done += 1
        self._rows += rows
        if not self.shown:
            return
        now = self.clock()
        rate = self._rows / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{rate:,.0f} rows/s, loss {loss:.4g}" + (f", {self._metric}" if self._metric else ""), refresh=False)
            self._bar.update(1)
        elif now - self._last >= LINE_SECONDS or self.done == self.total:
            self._last = now
            left = (now - self._began) / (self.done - self._first) * (self.total - self.done)
            words = [f"step {self.done}/{self.total}", f"{rate:,.0f} rows/s", f"loss {loss:.4g}", self._metric, f"{say_seconds(left)} left"]
            print("training: " + ", ".join(w for w in words if w), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Say something beside the bar."""
        if self.shown and self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self.shown:
            print(text, file=sys.stderr, flush=True)
