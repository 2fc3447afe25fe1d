"""``python -m benchmarks [NAME ...]``: run rows and record them; ``python -m benchmarks summary``: hold them against their goals.

``python -m benchmarks systems`` prints the page of published systems.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROWS, Row
from benchmarks.record import RESULTS, append, done, key_of, records_of
from unisono.train.devices import prepare_environment

_OWN = {"catalogue", "record", "summary", "timing", "__main__"}


def load() -> None:
    """Import every module of rows; the environment is prepared first, as the command line does it, since they import torch."""
    prepare_environment()
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], "benchmarks."):
        if module.name.removeprefix("benchmarks.") not in _OWN:
            importlib.import_module(module.name)


def say(text: str) -> None:
    """A line for the person, not part of a result."""
    print(text, file=sys.stderr, flush=True)


def run_row(row: Row, asked: argparse.Namespace, folder: Path = RESULTS) -> int:
    """Run the cases of a row that are not recorded yet; returns how many failed."""
    path = folder / f"{row.name}.jsonl"
    known = set() if asked.force else done(path)
    cases = [c for c in row.cases if (not asked.arm or c.arm in asked.arm) and (not asked.seed or c.seed in asked.seed)]
    failed = 0
    for number, case in enumerate(cases, 1):
        key, label = key_of(row, case), f"{row.name} {number}/{len(cases)} ({case})"
        if key in known:
            say(f"{label}: recorded before")
            continue
        if asked.dry_run:
            say(f"{label}: would run")
            continue
        say(f"{label} ...")
        begin = time.monotonic()
        try:
            measured = row.run(arm=case.arm, seed=case.seed, **case.inputs)
            records = records_of(row, case, measured, key=key, seconds=time.monotonic() - begin)
            append(path, records)
        except Exception:
            traceback.print_exc()
            say(f"{label}: failed")
            failed += 1
            continue
        for record in records:
            print(f"{row.name}\t{record['arm']}\t{record['metric']}\t{record['value']:.6g}\t{record['unit']}", flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit code: 0, 1 when a case failed, 2 for a mistake of the caller's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows (default: all), or the word summary or systems")
    parser.add_argument("--list", action="store_true", help="name the rows, their goals and how many cases are recorded")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    parser.add_argument("--force", action="store_true", help="run again what is recorded")
    parser.add_argument("--arm", action="append", default=[], help="this arm only (repeatable)")
    parser.add_argument("--seed", action="append", default=[], type=int, help="this seed only (repeatable)")
    asked = parser.parse_args(argv)
    load()
    from benchmarks import summary

    if asked.names == ["systems"]:
        from benchmarks import catalogue

        print(catalogue.page(), end="")
        return 0
    if asked.names == ["summary"]:
        print(summary.write(list(ROWS.values())))
        return 0
    unknown = [name for name in asked.names if name not in ROWS]
    if unknown:
        say(f"there is no row {unknown[0]!r}; there are: {', '.join(ROWS)}")
        return 2
    rows = [ROWS[name] for name in asked.names or ROWS]
    if asked.list:
        print(summary.listing(rows))
        return 0
    failed = sum(run_row(row, asked) for row in rows)
    if not asked.dry_run:
        print(summary.write(list(ROWS.values())))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted; what was recorded stays, the same command goes on")
        sys.exit(130)
