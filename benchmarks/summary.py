"""Recorded results against the goals of their rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ROW_SECONDS, Case, Goal, Row
from benchmarks.record import RESULTS, Record, complete, key_of, read

HEAD = ("row", "metric", "value", "spread", "n", "must", "aim", "verdict")


class Recorded:
    """The values of a row's cases, the last complete run of each.

    Args:
        runs: the records of one run a case.
    """

    def __init__(self, runs: Sequence[Sequence[Record]]) -> None:
        self.runs = list(runs)

    def values(self, metric: str, arm: str | None = None, **inputs: Any) -> dict[int, list[float]]:
        """Seed -> the values of its cases that match."""
        found: dict[int, list[float]] = {}
        for record in (r for run in self.runs for r in run):
            fits = record["metric"] == metric and (arm is None or record["arm"] == arm)
            if fits and all(record["inputs"].get(k) == v for k, v in inputs.items()):
                found.setdefault(record["seed"], []).append(float(record["value"]))
        return found

    def mean(self, metric: str, arm: str | None = None, **inputs: Any) -> float | None:
        """The mean over seeds of the mean over a seed's cases that match; None where there is none."""
        found = self.values(metric, arm, **inputs)
        return statistics.fmean(statistics.fmean(v) for v in found.values()) if found else None

    def seeds(self) -> list[int]:
        """Every seed with a result."""
        return sorted({run[0]["seed"] for run in self.runs})

    def of_seed(self, seed: int) -> Recorded:
        """The results of one seed."""
        return Recorded([run for run in self.runs if run[0]["seed"] == seed])

    def unit(self, metric: str) -> str:
        """The unit of a metric."""
        return next((r["unit"] for run in self.runs for r in run if r["metric"] == metric), "")


@dataclass(frozen=True)
class Line:
    """A goal and what was found.

    Attributes:
        goal: the goal.
        value: mean or median, None without a result.
        spread: the range over seeds, over cases where there is one seed.
        n: how many values were summarised.
        unit: of the value.
        verdict: ``aim met``, ``met``, ``short``, ``recorded`` where there is nothing to reach, or ``no result``.
    """

    goal: Goal
    value: float | None
    spread: float | None
    n: int
    unit: str
    verdict: str


def _identity(record: Record) -> tuple[Any, ...]:
    return record["arm"], record["seed"], tuple(sorted(record["inputs"].items()))


def _case(case: Case) -> tuple[Any, ...]:
    return case.arm, case.seed, tuple(sorted(case.inputs.items()))


def latest(row: Row, folder: Path = RESULTS) -> Recorded:
    """The last complete run of each of the row's present cases."""
    wanted = {_case(case) for case in row.cases}
    found: dict[tuple[Any, ...], list[Record]] = {}
    for run in complete(list(read(folder / f"{row.name}.jsonl"))):
        if _identity(run[0]) in wanted:
            found[_identity(run[0])] = run
    return Recorded(list(found.values()))


def verdict(goal: Goal, value: float | None) -> str:
    """How a value stands to a goal."""
    if value is None:
        return "no result"

    def reached(bound: float) -> bool:
        return value >= bound if goal.better == "higher" else value <= bound

    if goal.aim is not None and reached(goal.aim):
        return "aim met"
    if goal.must is None:
        return "recorded"
    return "met" if reached(goal.must) else "short"


def judge(row: Row, goal: Goal, recorded: Recorded) -> Line:
    """Hold a row's results against one of its goals."""
    derived = dict(row.derive(recorded)) if row.derive is not None and goal.arm is None else {}
    if goal.metric in derived:
        value, unit = derived[goal.metric]
        parts = [dict(row.derive(recorded.of_seed(s)))[goal.metric][0] for s in recorded.seeds()] if row.derive else []
        values = [v for v in parts if v is not None]
    else:
        by_seed = recorded.values(goal.metric, goal.arm)
        each = [v for found in by_seed.values() for v in found]
        value = (statistics.median(each) if goal.statistic == "median" else recorded.mean(goal.metric, goal.arm)) if each else None
        values = [statistics.fmean(v) for v in by_seed.values()] if len(by_seed) > 1 else each
        unit = recorded.unit(goal.metric)
        return Line(goal, value, max(values) - min(values) if len(values) > 1 else None, len(each), unit, verdict(goal, value))
    return Line(goal, value, max(values) - min(values) if len(values) > 1 else None, len(values), unit, verdict(goal, value))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:,.1f}"


def cells(row: Row, line: Line) -> tuple[str, ...]:
    """A line as text."""
    unit = "" if line.unit in {"share", "ratio", ""} or line.value is None else f" {line.unit}"
    sign = "≥ " if line.goal.better == "higher" else "≤ "
    must, aim = (sign + _number(b) if b is not None else "-" for b in (line.goal.must, line.goal.aim))
    name = f"{line.goal.arm}: {line.goal.metric}" if line.goal.arm else line.goal.metric
    return row.name, name, _number(line.value) + unit, _number(line.spread), str(line.n), must, aim, line.verdict


def remarks(row: Row, recorded: Recorded, folder: Path = RESULTS) -> list[str]:
    """What a reader should know beside the figures: cases missing, older code, a row over its time."""
    found = []
    if len(recorded.runs) < len(row.cases):
        found.append(f"{len(recorded.runs)} of {len(row.cases)} cases recorded")
    known = {run[0]["key"] for run in recorded.runs}
    older = len(known - {key_of(row, case) for case in row.cases})
    if older:
        found.append(f"{older} of {len(recorded.runs)} cases measured before the code last changed")
    seconds = sum(run[0].get("seconds", 0.0) for run in recorded.runs)
    if seconds > ROW_SECONDS:
        found.append(f"takes {seconds / 60:.0f} minutes, more than the {ROW_SECONDS / 60:.0f} of its budget")
    found += sorted({str(n) for n in _notes(recorded)})
    return found


def _notes(recorded: Recorded) -> list[str]:
    dirty = sum(1 for run in recorded.runs for r in run if r["unit"] == "slots" and r["metric"] == "clean" and r["value"] == 0)
    return [f"{dirty} cases timed without a slot free of other programs"] if dirty else []


def table(rows: Sequence[Row], folder: Path = RESULTS) -> tuple[list[tuple[str, ...]], dict[str, list[str]]]:
    """Every goal of every row, and the remarks on each row."""
    lines, notes = [], {}
    for row in rows:
        recorded = latest(row, folder)
        lines += [cells(row, judge(row, goal, recorded)) for goal in row.goals]
        notes[row.name] = remarks(row, recorded, folder)
    return lines, notes


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """A table for a terminal."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(rows: Sequence[Row], lines: Sequence[tuple[str, ...]], notes: Mapping[str, Sequence[str]], machines: Sequence[str]) -> str:
    """The page that is kept beside the results."""
    text = [
        "# Results",
        "",
        "Written by `python -m benchmarks summary` from the files beside it; what the rows are is in `../README.md`.",
        "",
    ]
    text += ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    text += ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
    text += ["", "`spread` is the range over seeds (over cases where there is one seed), `n` the number of values.", "", "## Rows", ""]
    text += [f"- `{row.name}`: {row.title}" + "".join(f" **{n}.**" for n in notes[row.name]) for row in rows]
    text += ["", "## Machines", "", *(f"- {m}" for m in machines), ""]
    return "\n".join(text)


def describe(machine: Mapping[str, Any]) -> str:
    """A machine in one line."""
    parts = [machine.get("processor"), f"{machine.get('cores')} cores", f"{machine.get('threads')} threads"]
    parts += [" ".join(machine.get("flags", [])), machine.get("gpu"), f"torch {machine.get('torch')}", f"Python {machine.get('python')}"]
    return ", ".join(str(p) for p in parts if p)


def write(rows: Sequence[Row], folder: Path = RESULTS) -> str:
    """Write ``README.md`` beside the results; returns the table for a terminal."""
    lines, notes = table(rows, folder)
    machines: dict[str, set[str]] = {}
    for row in rows:
        for run in latest(row, folder).runs:
            machines.setdefault(describe(run[0].get("machine", {})), set()).add(row.name)
    described = [f"{m}: {', '.join(sorted(names))}" for m, names in machines.items()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(markdown(rows, lines, notes, described), encoding="utf-8")
    said = [f"{name}: {note}" for name, found in notes.items() for note in found]
    return "\n".join([aligned([HEAD, *lines]), *([""] if said else []), *said])


def listing(rows: Sequence[Row], folder: Path = RESULTS) -> str:
    """Name the rows, their goals and how many of their cases are recorded with the present code."""
    from benchmarks.record import done

    text = []
    for row in rows:
        known = done(folder / f"{row.name}.jsonl")
        count = sum(key_of(row, case) in known for case in row.cases)
        text.append(f"{row.name}: {row.title} ({count} of {len(row.cases)} cases recorded)")
        for goal in row.goals:
            line = cells(row, Line(goal, None, None, 0, "", ""))
            text.append(f"    {line[1]} {line[5]}" + (f", aim {line[6]}" if goal.aim is not None else ""))
    return "\n".join(text)
