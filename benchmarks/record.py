"""Rows of evidence: what is run for which arms and seeds, where results are kept, and when one need not be run again.

A row is a function ``(arm, seed) -> measurements`` with a list of arms, seeds and goals. One (row, arm, seed) is one *run*. A run is keyed
by the hash of its inputs and of the code it uses (comments and docstrings left out), so that a finished one is not repeated, and an
interrupted bench goes on where it stopped. Results are appended to ``results/<row>.jsonl``, one record a metric; a run's records are
written at once and end with its wall time, so that a run that was cut off does not count.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from benchmarks.fingerprint import code_hash, commit, file_hash, function_hash, machine, text_hash

RESULTS = Path(__file__).resolve().parent / "results"
LAST = "wall_time"  # the metric that ends a run


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of one run."""

    metric: str
    value: float
    unit: str = "share"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that a row has to reach.

    Attributes:
        name: what the figure is, in words.
        metric: of the arms named.
        arm: a pattern (``*`` stands for anything); a seed's figure is the mean over the arms that match.
        must: the least that is accepted, or the most where lower is better.
        aim: what is hoped for; the same as ``must`` where there is none.
        against: (arm pattern, metric) that the figure is compared to.
        how: whether the comparison is a difference or a ratio.
        lower: whether lower is better.
        statistic: over seeds; the median for times.
    """

    name: str
    metric: str
    must: float
    aim: float | None = None
    arm: str = "*"
    against: tuple[str, str] | None = None
    how: Literal["difference", "ratio"] = "difference"
    lower: bool = False
    statistic: Literal["mean", "median"] = "mean"

    def values(self, records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
        """The figure of every seed that has all that it needs."""
        ours = by_seed(records, self.arm, self.metric)
        if self.against is None:
            return ours
        theirs = by_seed(records, *self.against)
        both = {seed: (value, theirs[seed]) for seed, value in ours.items() if seed in theirs}
        return {seed: a - b if self.how == "difference" else a / b for seed, (a, b) in both.items()}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a goal stands: the figure over seeds, its range, and ``aim``, ``must``, ``short`` or ``no data``."""

    goal: Goal
    value: float | None
    low: float | None
    high: float | None
    seeds: int
    word: Literal["aim", "must", "short", "no data"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured, and how often.

    Attributes:
        name: of the row and of its file of results.
        function: gives the measurements of one arm and seed.
        arms: the variants compared.
        seeds: the seeds of every arm.
        goals: what has to be reached.
        inputs: files the row reads, each found when it is needed.
        uses: the modules whose code makes the figures, besides the function itself; by default the function's own module.
        timed: whether the figures belong to the machine, so that another machine repeats them.
    """

    name: str
    function: Callable[[str, int], Iterable[Measurement]]
    arms: tuple[str, ...] = ("unisono",)
    seeds: tuple[int, ...] = (0, 1, 2)
    goals: tuple[Goal, ...] = ()
    inputs: Callable[[], Iterable[Path]] = tuple
    uses: tuple[str, ...] = ()
    timed: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n", 1)[0]

    def key(self, arm: str, seed: int) -> str:
        """The hash of everything that a run's figures depend on."""
        code = [function_hash(self.function), code_hash(*(self.uses or (self.function.__module__,)))]
        parts = [self.name, arm, str(seed), *code, *(file_hash(p) for p in sorted(self.inputs()))]
        return text_hash(*parts, *([machine()] if self.timed else []))


@dataclass(slots=True)
class Rows:
    """The rows known, by name."""

    rows: dict[str, Row] = field(default_factory=dict)

    def __call__(self, name: str, **options: Any) -> Callable[[Callable[[str, int], Iterable[Measurement]]], Any]:
        """Decorate a function ``(arm, seed)`` as the row of this name; options are the other attributes of ``Row``."""

        def add(function: Callable[[str, int], Iterable[Measurement]]) -> Callable[[str, int], Iterable[Measurement]]:
            if name in self.rows:
                raise ValueError(f"the row {name!r} is registered twice")
            self.rows[name] = Row(name, function, **options)
            return function

        return add


row = Rows()


def by_seed(records: Iterable[Mapping[str, Any]], arm: str, metric: str) -> dict[int, float]:
    """Seed -> mean of a metric over the arms that match a pattern."""
    found: dict[int, list[float]] = {}
    for record in records:
        if record["metric"] == metric and fnmatch.fnmatchcase(record["arm"], arm):
            found.setdefault(record["seed"], []).append(record["value"])
    return {seed: fmean(values) for seed, values in sorted(found.items())}


def judge(goal: Goal, records: Sequence[Mapping[str, Any]]) -> Verdict:
    """Hold the figures of a row against one goal."""
    values = list(goal.values(records).values())
    if not values:
        return Verdict(goal, None, None, None, 0, "no data")
    value = (fmean if goal.statistic == "mean" else median)(values)
    sign = -1 if goal.lower else 1
    slack = 1e-9 * max(1.0, abs(value))  # a figure equal to its goal reaches it
    reached = [
        name for name, bound in (("aim", goal.aim), ("must", goal.must)) if bound is not None and sign * value >= sign * bound - slack
    ]
    word: Any = "short" if not reached or "must" not in reached else "aim" if goal.aim is None else reached[0]
    return Verdict(goal, value, min(values), max(values), len(values), word)


def load(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The records of a row, oldest first; a last line that was cut off is left out."""
    path = (folder or RESULTS) / f"{name}.jsonl"
    if not path.exists():
        return []
    found = []
    text = path.read_text("utf-8")
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            if not text.endswith("\n") and text.endswith(line):
                break
            raise ValueError(f"{path.name}: this line is no JSON: {line[:80]!r}") from None
    return found


def finished(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys of the runs that came to their end."""
    return {r["key"] for r in records if r["metric"] == LAST}


def current(row: Row, records: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The newest finished run of every arm and seed.

    Returns:
        Their records, and how many of those runs are of other code or inputs than the present ones.
    """
    newest = {(r["arm"], r["seed"]): (r["key"], r["started"]) for r in records if r["metric"] == LAST}
    asked = {(arm, seed) for arm in row.arms for seed in row.seeds}
    kept = {at: run for at, run in newest.items() if at in asked}
    stale = sum(key != row.key(*at) for at, (key, _) in kept.items())
    return [r for r in records if kept.get((r["arm"], r["seed"])) == (r["key"], r["started"])], stale


def append(name: str, records: Sequence[Mapping[str, Any]], folder: Path | None = None) -> None:
    """Add a run's records in one write; what a cut-off write left behind is ended first."""
    path = (folder or RESULTS) / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records)
    with path.open("a+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                stream.truncate(path.read_bytes().rfind(b"\n") + 1)
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def missing_runs(row: Row, *, force: bool = False, folder: Path | None = None) -> Iterator[tuple[str, int, str]]:
    """Tell which runs of a row are still to be done, seed by seed.

    Yields:
        (arm, seed, key).
    """
    done = set() if force else finished(load(row.name, folder))
    for seed in row.seeds:
        for arm in row.arms:
            key = row.key(arm, seed)
            if key not in done:
                yield arm, seed, key


def run(row: Row, arm: str, seed: int, key: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """Measure one arm and seed, and record it.

    Raises:
        ValueError: the row gave nothing, or the same metric twice.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    begin = time.monotonic()
    found = list(row.function(arm, seed))
    names = [m.metric for m in found]
    if not found or len(set(names)) < len(names) or LAST in names:
        raise ValueError(f"{row.name}: one figure for each metric is expected, got {names}")
    found.append(Measurement(LAST, round(time.monotonic() - begin, 2), "s"))
    command = shlex.join(["python", "-m", "benchmarks", row.name])
    common = {"seed": seed, "command": command, "commit": commit(), "machine": machine(), "key": key, "started": started}
    records = [{"bench": row.name, "arm": arm, "metric": m.metric, "value": float(m.value), "unit": m.unit, **common} for m in found]
    append(row.name, records, folder)
    return records
