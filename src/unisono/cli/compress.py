"""``unisono compress DIR --fold --out DIR2``."""

from __future__ import annotations

import argparse
from pathlib import Path

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model", type=Path, metavar="DIR", help="a model folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR2", help="the folder to write; it has to be new or empty")
    parser.add_argument(
        "--fold", nargs="*", metavar="WORD",
        help="multiply out what is linear, without loss beyond rounding: branches, scale, fixed, copies, affine, rms, pack; "
        "without a word those that save something on this machine; half (bfloat16) changes the answers a little and has to be named",
    )  # fmt: skip
    parser.add_argument("--columns", nargs="+", metavar="COL", help="leave out what only other columns need")
    parser.add_argument("--table", metavar="TABLE", help="measure the change in error on this table, which holds the targets")
    common.add_bad_cells(parser)
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the cheaper model, and say what was done and what changed."""
    from unisono.core.errors import UserError
    from unisono.model.deploy import said
    from unisono.model.estimator import Model

    common.show_notes(arguments.quiet)
    if arguments.fold is None and arguments.columns is None:
        raise UserError("nothing was asked for: give --fold, or --columns with the columns that tables will have")
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise UserError(f"--out {arguments.out}: there is something already; choose a folder that is new or empty")
    above = next(place for place in (arguments.out, *arguments.out.absolute().parents) if place.exists())
    if not above.is_dir():
        raise UserError(f"--out {arguments.out}: {above} is no folder")
    model = Model.load(arguments.model)
    folds = [] if arguments.fold is None else (arguments.fold or None)
    options = common.reading(arguments) | {"bad_cells": arguments.bad_cells}
    deployed, report = model.deployment(folds=folds, columns=arguments.columns, data=arguments.table, **options)
    deployed.save(arguments.out)
    if arguments.json:
        common.print_json({"out": str(arguments.out), **report.to_json()})
        return 0
    for line in said(report):
        print(line)
    print(f"written to {arguments.out}")
    return 0
