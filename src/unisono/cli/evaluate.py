"""``unisono evaluate DIR TABLE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model", type=Path, metavar="DIR", help="a model folder")
    parser.add_argument("table", metavar="TABLE", help="a table that holds the targets")
    parser.add_argument("--where", metavar="FILTER", help='only rows that satisfy this, for example "split = test"')
    common.add_bad_cells(parser)
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure the model."""
    from unisono.model.estimator import Model

    common.show_notes(arguments.quiet)
    found = Model.load(arguments.model).evaluate(
        arguments.table, where=arguments.where, bad_cells=arguments.bad_cells, **common.reading(arguments)
    )
    if arguments.json:
        common.print_json(found)
        return 0
    print(f"{found['rows']:,} rows")
    rows = [["everything", t, k, common.figure(v)] for t, m in found["targets"].items() for k, v in m.items()]
    for entry in found["missing"]:
        name = "only " + " + ".join(entry["present"])
        rows += [[name, t, k, common.figure(v)] for t, m in entry["targets"].items() for k, v in list(m.items())[:1]]
    common.print_table(rows, ["given", "target", "metric", "value"])
    return 0
