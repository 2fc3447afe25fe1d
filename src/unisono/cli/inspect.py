"""``unisono inspect TABLE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("table", metavar="TABLE", help="a file, a folder of class folders, or - for standard input")
    parser.add_argument("--target", action="append", default=[], metavar="COL", help="a target column, so that leaked targets are found")
    parser.add_argument("--column", action="append", default=[], metavar="NAME=MODALITY", help="take a column for this modality")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a schema file that fit --schema takes")
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say what each column is."""
    from unisono.core.files import write_text
    from unisono.model.inspect import inspect_table

    common.show_notes(arguments.quiet)
    found = inspect_table(
        arguments.table, target=arguments.target, columns=common.pairs(arguments.column, "column"), **common.reading(arguments)
    )
    if arguments.write is not None:
        write_text(arguments.write, found.to_yaml())
        print(f"wrote {arguments.write}: change it, then: unisono fit {arguments.table} --schema {arguments.write}", file=sys.stderr)
    if arguments.json:
        common.print_json(found.to_json())
        return 0
    print(f"{found.name}: {found.rows:,} rows, {len(found.columns)} columns")
    rows = []
    for c in found.columns:
        why = "; ".join(part for part in (c.reason, c.doubt and f"doubt: {c.doubt}", c.suspicion and f"suspicious: {c.suspicion}") if part)
        kind = found.targets[c.name][0] if c.name in found.targets else c.modality + ("[]" if c.many else "")
        why = found.targets[c.name][1] if c.name in found.targets else why
        unreadable = found.unreadable.get(c.name, 0)
        rows.append([c.name, kind, c.role, f"{c.missing:,}", f"{unreadable:,}", " | ".join(c.samples), why])
    common.print_table(rows, ["column", "modality", "role", "missing", "unreadable", "samples", "why"], {5: 44, 6: 110})
    for cell in found.bad[:5]:
        print(f"unreadable: row {cell.row}, column {cell.column!r}: {cell.reason}")
    for note in found.notes:
        print(f"note: {note}")
    return 0
