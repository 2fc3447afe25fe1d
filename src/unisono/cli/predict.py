"""``unisono predict DIR TABLE -o OUT``."""

from __future__ import annotations

import argparse
from pathlib import Path

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model", type=Path, metavar="DIR", help="a model folder")
    parser.add_argument("table", metavar="TABLE", help="a file, a folder, or - for standard input")
    parser.add_argument(
        "-o", "--out", default="-", metavar="OUT", help="a .parquet, .csv, .jsonl or .arrow file; - (default) prints JSON Lines"
    )
    common.add_bad_cells(parser)
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Predict every row, in order."""
    return stream(arguments, "predictions")


def stream(arguments: argparse.Namespace, what: str) -> int:
    """Write what the model says of a table, chunk by chunk.

    Args:
        arguments: model, table, out and how to read.
        what: the method of ``Predictor`` that yields the chunks.
    """
    from unisono.model.estimator import Model
    from unisono.table.write import write_batches

    common.show_notes(arguments.quiet)
    predictor = Model.load(arguments.model).predictor(bad_cells=arguments.bad_cells, **common.reading(arguments))
    rows = write_batches(arguments.out, getattr(predictor, what)(arguments.table))
    if arguments.json and arguments.out != "-":
        common.print_json({"rows": rows, "out": arguments.out, "bad_cells": len(predictor.bad)})
    return 0
