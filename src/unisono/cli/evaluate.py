"""``unisono evaluate DIR TABLE``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add = parser.add_argument
    add("model", type=Path, metavar="DIR", help="a model folder")
    add("table", metavar="TABLE", help="a table that holds the targets")
    add("--where", metavar="FILTER", help='only rows that satisfy this, for example "split = test"')
    add("--retrieval", action="store_true", help="measure the shared space instead: what finds what across sources")
    add("--group", metavar="COL", help="with --retrieval: rows of equal value are one item")
    add("--zero-shot", metavar="COL", help="with --retrieval: classify by the names in this column")
    add("--template", action="append", default=[], metavar="TEXT", help='a phrasing of a class, "a picture of a {}" (repeatable)')
    add("--text", metavar="COL", help="the text column that takes the phrasings (default: the only one)")
    add("--report", type=Path, metavar="FILE", help="with --retrieval: write a page of the figures with real searches, hits and misses")
    add("--no-examples", action="store_true", help="show no rows of the table on that page")
    common.add_bad_cells(parser)
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure the model."""
    from unisono.model.estimator import Model

    common.show_notes(arguments.quiet)
    found = Model.load(arguments.model).evaluate(
        arguments.table,
        where=arguments.where,
        retrieval=arguments.retrieval,
        group=arguments.group,
        zero_shot=arguments.zero_shot,
        templates=arguments.template,
        text=arguments.text,
        report=arguments.report,
        examples=not arguments.no_examples,
        bad_cells=arguments.bad_cells,
        **common.reading(arguments),
    )
    if arguments.json:
        common.print_json(found)
    elif arguments.retrieval:
        show_space(found)
    else:
        show_targets(found)
    return 0


def show_targets(found: dict[str, Any]) -> None:
    """Metrics of every target, and what they become when sources are missing."""
    print(f"{found['rows']:,} rows")
    rows = [["everything", t, k, common.figure(v)] for t, m in found["targets"].items() for k, v in m.items()]
    for entry in found["missing"]:
        name = "only " + " + ".join(entry["present"])
        rows += [[name, t, k, common.figure(v)] for t, m in entry["targets"].items() for k, v in list(m.items())[:1]]
    common.print_table(rows, ["given", "target", "metric", "value"])


def show_space(found: dict[str, Any]) -> None:
    """What finds what, classes by their names, and the figures of the space."""
    space = found["space"]
    print(f"{space['rows']:,} rows")
    names = ["r@1", "r@5", "r@10", "median_rank", "map"]
    rows = [
        [f"{r['from']} to {r['to']}", *(common.figure(r[k]) for k in names), _between(r["ci95"]["map"]), f"{r['n']:,}", f"{r['gallery']:,}"]
        for r in found["retrieval"]
    ]
    common.print_table(rows, ["search", *names, "95 % of map", "queries", "gallery"])
    if found.get("zero_shot"):
        print()
        classes = [
            [r["from"], r["column"], common.figure(r["accuracy"]), _between(r["ci95"]["accuracy"]), f"{r['classes']:,}", f"{r['n']:,}"]
            for r in found["zero_shot"]
        ]
        common.print_table(classes, ["from", "classes of", "accuracy", "95 %", "classes", "rows"])
    print()
    said = {
        "alignment": "mean squared distance of what belongs together: 0 is best",
        "uniformity": "log mean closeness of any two: the lower, the more evenly spread (about -4 at best)",
        "modality_gap": "distance between the means of two sources: 0 is best",
        "hubness": "skewness of how often an item is found: about 0 is best, above 2 a few are found for everything",
        "effective_rank": f"directions in use, of {space['sources'][0]['width']}",
    }
    common.print_table([[k, common.figure(space[k]), v] for k, v in said.items()], ["space", "value", "meaning"], {2: 120})


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f"{common.figure(interval[0])} – {common.figure(interval[1])}"
