"""Run rows of evidence: ``python -m benchmarks [NAME ...]``. What is finished already is not repeated."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from benchmarks.discover import all_rows
from benchmarks.record import LAST, RESULTS, Row, load, missing_runs, run
from benchmarks.summary import as_text, table


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to run; all by default")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--force", action="store_true", help="run again what is finished")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where results are kept")
    return parser.parse_args(arguments)


def choose(names: Sequence[str], rows: Mapping[str, Row]) -> list[Row]:
    """The rows asked for.

    Raises:
        SystemExit: there is no row of a name.
    """
    for name in names:
        if name not in rows:
            close = get_close_matches(name, rows, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SystemExit(f"no row is called {name!r}{hint} (known: {', '.join(rows)})")
    return [rows[name] for name in (names or rows)]


def work(rows: Sequence[Row], asked: argparse.Namespace) -> int:
    """Run what is missing of every row; one that fails is said and does not stop the others.

    Returns:
        How many runs failed.
    """
    failed = 0
    for row in rows:
        try:
            waiting = list(missing_runs(row, force=asked.force, folder=asked.results))
        except Exception as error:
            print(f"{row.name}: cannot be run here: {error}", file=sys.stderr)
            failed += 1
            continue
        for k, (arm, seed, key) in enumerate(waiting, 1):
            print(f"{row.name}: {arm}, seed {seed} ({k} of {len(waiting)})", file=sys.stderr, flush=True)
            if asked.dry_run:
                continue
            try:
                records = run(row, arm, seed, key, asked.results)
            except Exception:
                traceback.print_exc()
                failed += 1
            else:
                figures = ", ".join(f"{r['metric']} {r['value']:.5g}" for r in records if r["metric"] != LAST)
                print(f"  {figures} in {records[-1]['value']:.0f} s", file=sys.stderr, flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, then print the table of the rows asked for.

    Returns:
        The exit code: 1 where a run failed.
    """
    asked = parse(arguments)
    rows = choose(asked.names, all_rows())
    if asked.list:
        for row in rows:
            runs = len({r["key"] for r in load(row.name, asked.results) if r["metric"] == LAST})
            print(f"{row.name}: {row.summary} ({len(row.arms)} arms, {len(row.seeds)} seeds, {runs} runs recorded)")
        return 0
    failed = work(rows, asked)
    if not asked.dry_run:
        print(as_text(table(rows, asked.results)))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
