"""``unisono fit TABLE --target COL --out DIR``, or ``--align`` without targets."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add = parser.add_argument
    add("table", metavar="TABLE", help="a file, a folder of class folders, or - for standard input")
    add(
        "--target",
        action="append",
        default=[],
        metavar="COL[=TASK]",
        help="a column to predict (repeatable); TASK: category, boolean, number, labels",
    )
    add("--align", action="store_true", help="learn one space for all columns, in which any finds any other; needs no target")
    add("--objective", metavar="SENTENCE", help="what is learned, in place of the recipe's objective, such as 'align(loss=sigmoid)'")
    add("--out", type=Path, required=True, metavar="DIR", help="the model folder to write")
    add("--schema", type=Path, metavar="FILE", help="a schema file that inspect --write made")
    add("--split", metavar="COL", help="column with the values train, val and test")
    add("--key", metavar="COL", help="column that names a row")
    add("--group", metavar="COL", help="rows of equal value stay on one side of a split")
    add("--item", metavar="COL", help="rows of equal value are one item, brought together by --align")
    add("--time", metavar="COL", help="split from old to new by this column")
    add(
        "--column",
        action="append",
        default=[],
        metavar="NAME=MODALITY",
        help="take a column for this modality; also keeps a suspicious one",
    )
    add("--drop", action="append", default=[], metavar="COL", help="leave a column out (repeatable)")
    add("--recipe", metavar="NAME", help="a recipe's name or file (default early-fusion, or align with --align)")
    add("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="change a setting of the recipe (repeatable)")
    add("--encoder", action="append", default=[], metavar="NAME=DIR", help="read a column by a frozen encoder: a Hugging Face model folder")
    add("--link-encoders", action="store_true", help="refer to encoder folders by path and hash instead of copying them into DIR")
    add("--freeze", action="store_true", help="train nothing but projections of what the encoders say")
    add("--features", metavar="DIR", help="keep features of frozen encoders in this folder (default: the user's cache; off for none)")
    add("--budget", metavar="TIME", help="end within this time, such as 90s or 5m, evaluation and report included")
    add("--seed", type=int, default=0, metavar="N", help="of every random choice (default 0)")
    common.add_bad_cells(parser)
    common.add_reading(parser)
    add("--resume", action="store_true", help="go on from the checkpoint in DIR")
    add("--force", action="store_true", help="replace what is in DIR")
    add("--no-examples", action="store_true", help="show no rows of the table in the report")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fit, and say how good the model is."""
    started = time.monotonic()
    from unisono.model.fit import fit_table
    from unisono.model.options import FitOptions, named_targets, parse_duration
    from unisono.train.distribute import is_main

    common.show_notes(arguments.quiet)
    columns, drop, targets = _from_schema(arguments.schema)
    options = FitOptions(
        targets={**targets, **named_targets(arguments.target)},
        split=arguments.split,
        key=arguments.key,
        group=arguments.group,
        item=arguments.item,
        time=arguments.time,
        columns={**columns, **common.pairs(arguments.column, "column")},
        drop=tuple(dict.fromkeys([*drop, *arguments.drop])),
        recipe=arguments.recipe,
        align=arguments.align,
        objective=arguments.objective,
        settings=tuple(arguments.settings),
        budget=None if arguments.budget is None else parse_duration(arguments.budget),
        seed=arguments.seed,
        bad_cells=arguments.bad_cells,
        out=arguments.out,
        encoders=common.pairs(arguments.encoder, "encoder"),
        freeze=arguments.freeze,
        features=arguments.features,
        link_encoders=arguments.link_encoders,
        resume=arguments.resume,
        force=arguments.force,
        examples=not arguments.no_examples,
        progress=not arguments.quiet,
        **common.reading(arguments),
    )
    fitted = fit_table(arguments.table, options, started_at=started)
    if not is_main():
        return 0
    if arguments.json:
        common.print_json({"out": str(arguments.out), **fitted.metrics})
        return 0
    show(fitted.metrics, arguments.out)
    return 0


def show(metrics: dict[str, Any], out: Path) -> None:
    """The headline figures, and what to do next."""
    rows = []
    part = metrics.get(metrics["headline"] or "", {})
    for target, values in part.get("targets", {}).items():
        for name, value in values.items():
            low, high = part["ci95"].get(target, {}).get(name, (None, None))
            rows.append([target, name, common.figure(value), f"{common.figure(low)} – {common.figure(high)}" if low is not None else ""])
    if rows:
        print(f"on the {part['rows']:,} {metrics['headline']} rows")
        common.print_table(rows, ["target", "metric", "value", "95 % interval"])
    found = metrics.get("retrieval", [])
    if found:
        print(
            f"{'what finds what on the' if not rows else 'and what finds what there,'} {part.get('rows', 0):,} {metrics['headline']} rows"
        )
        shown = [[f["from"], f["to"], *(common.figure(f[k]) for k in ("r@1", "r@10", "median_rank", "map"))] for f in found]
        common.print_table(shown, ["from", "to", "r@1", "r@10", "median rank", "map"])
    print(f"\nmodel: {out}\nreport: {out / 'report.html'}")


def _from_schema(path: Path | None) -> tuple[dict[str, str], list[str], dict[str, str | None]]:
    """Columns, drops and targets of a schema file."""
    if path is None:
        return {}, [], {}
    import yaml

    from unisono.core.errors import SchemaError, nearest

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SchemaError(f"--schema {path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SchemaError(f"--schema {path}: expected a mapping with the keys columns, drop and targets")
    for key in content:
        if key not in {"columns", "drop", "targets"}:
            raise SchemaError(f"--schema {path}: the key {key!r} is unknown{nearest(str(key), ['columns', 'drop', 'targets'])}")
    columns, targets = content.get("columns") or {}, content.get("targets") or {}
    drop = content.get("drop") or []
    if not isinstance(columns, dict) or not isinstance(targets, dict) or not isinstance(drop, list):
        raise SchemaError(f"--schema {path}: columns and targets are mappings, drop is a list")
    return {str(k): str(v) for k, v in columns.items()}, [str(d) for d in drop], {str(k): v for k, v in targets.items()}
