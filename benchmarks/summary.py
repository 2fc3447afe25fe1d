"""Every result against its goals, as a table: ``python -m benchmarks.summary [--write FILE.md]``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.record import LAST, Row, Verdict, current, judge, load

HEAD = ("row", "figure", "value", "spread", "seeds", "must", "aim", "verdict")


def say(value: float | None) -> str:
    """A figure in up to four digits."""
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def line(name: str, verdict: Verdict, stale: int) -> tuple[str, ...]:
    """One goal's line of the table; ``*`` marks figures of earlier code."""
    goal = verdict.goal
    spread = "-" if verdict.low is None else f"{say(verdict.low)} to {say(verdict.high)}"
    sign = "at most " if goal.lower else ""
    word = verdict.word + ("*" if stale and verdict.word != "no data" else "")
    return name, goal.name, say(verdict.value), spread, str(verdict.seeds), f"{sign}{say(goal.must)}", say(goal.aim), word


def table(rows: Iterable[Row], folder: Path | None = None) -> list[tuple[str, ...]]:
    """The lines of every goal, and of rows without goals how many runs they have."""
    found: list[tuple[str, ...]] = []
    for row in rows:
        records, stale = current(row, load(row.name, folder))
        found += [line(row.name, judge(goal, records), stale) for goal in row.goals]
        if not row.goals:
            runs = sum(r["metric"] == LAST for r in records)
            found.append((row.name, row.summary, "-", "-", f"{runs} runs", "-", "-", "recorded" if runs else "no data"))
    return found


def as_text(lines: Sequence[tuple[str, ...]]) -> str:
    """The table in columns for a terminal."""
    widths = [max(len(x[k]) for x in [HEAD, *lines]) for k in range(len(HEAD))]
    rule = "  ".join("-" * w for w in widths)
    body = ["  ".join(cell.ljust(w) for cell, w in zip(x, widths, strict=True)).rstrip() for x in [HEAD, *lines]]
    return "\n".join([body[0], rule, *body[1:]])


def as_markdown(lines: Sequence[tuple[str, ...]]) -> str:
    """The table for the documentation."""
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in x) + " |" for x in lines]
    note = "\n\nThe spread is the range over seeds. `*` marks figures of earlier code or inputs.\n"
    return "\n".join(["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD), *body]) + note


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it as a page."""
    from benchmarks.discover import all_rows

    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a Markdown page instead")
    asked = parser.parse_args(arguments)
    lines = table(all_rows().values())
    if asked.write:
        asked.write.write_text("# Results\n\n" + as_markdown(lines), "utf-8")
    else:
        print(as_text(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
