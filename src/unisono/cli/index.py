"""``unisono index DIR TABLE --out IDX``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unisono.cli import common
from unisono.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model", type=Path, metavar="DIR", help="a model folder")
    parser.add_argument("table", nargs="?", metavar="TABLE", help="a file, a folder, or - for standard input")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="IDX", help="the index's folder")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--add", action="store_true", help="add the table's rows to the index, which exists")
    change.add_argument("--update", action="store_true", help="replace the rows of the index that have the keys of the table's rows")
    change.add_argument("--delete", metavar="KEY", action="append", help="delete a row of the index (repeatable); without a table")
    parser.add_argument(
        "--approximate",
        action=argparse.BooleanOptionalAction,
        help="also build graphs for approximate search and measure their recall (default: with five million rows or more)",
    )
    parser.add_argument(
        "--field", metavar="COLUMN", action="append", help="a column to keep in the index (repeatable; default: all but lists of numbers)"
    )
    parser.add_argument("--max-media", type=int, metavar="BYTES", help="the largest picture or sound that is kept (default 1 MiB)")
    parser.add_argument("--recipe", metavar="NAME", help="a recipe of an index, such as dbnorm or invgc, or a recipe file")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a change to that recipe (repeatable)")
    common.add_bad_cells(parser)
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make or change an index."""
    common.show_notes(arguments.quiet)
    changes = arguments.add or arguments.update or arguments.delete
    given = {
        "approximate": arguments.approximate,
        "fields": arguments.field,
        "max_media": arguments.max_media,
        "correction": _correction(arguments),
    }
    settings = {name: value for name, value in given.items() if value is not None}
    if changes and settings:
        raise UserError(
            "--approximate, --field, --max-media and --recipe are chosen when an index is made; leave them out, or make it again"
        )
    if (arguments.table is None) != bool(arguments.delete):
        raise UserError("give a TABLE to index" if arguments.table is None else "--delete takes keys and no TABLE")
    done = _change(arguments) if changes else _make(arguments, settings)
    if arguments.json:
        common.print_json(done)
    elif not arguments.quiet:
        print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in done.items() if value not in ({}, [])))
    return 0


def _correction(arguments: argparse.Namespace) -> str | None:
    """The correction that a recipe names.

    Raises:
        UserError: there are changes without a recipe, or the recipe is none of an index.
    """
    from unisono.core.words import as_word
    from unisono.recipe import load_recipe

    if arguments.recipe is None:
        if arguments.set:
            raise UserError("--set changes a recipe; name one with --recipe")
        return None
    found = load_recipe(arguments.recipe, arguments.set, kind="index")["index"]
    unknown = sorted(set(found) - {"correction"})
    if unknown or "correction" not in found:
        raise UserError(
            f"recipe {arguments.recipe!r}: 'index' holds a correction and nothing else{f', got {unknown[0]!r}' if unknown else ''}"
        )
    return str(as_word(found["correction"], "index.correction"))


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"bad_cells": arguments.bad_cells, **common.reading(arguments)}


def _make(arguments: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    from unisono.model.estimator import Model

    index = Model.load(arguments.model).index(arguments.table, arguments.out, reading=_options(arguments), **settings)
    return {"rows": index.size, "out": str(arguments.out), "sides": list(index.sides), **_state(index)}


def _change(arguments: argparse.Namespace) -> dict[str, Any]:
    from unisono.model.estimator import Model
    from unisono.retrieve.index import Index

    index = Index(arguments.out, embedder=Model.load(arguments.model).embedder(**_options(arguments)))
    if arguments.delete:
        word, count = "deleted", index.delete(arguments.delete)
    elif arguments.add:
        word, count = "added", index.add(arguments.table)
    else:
        word, count = "updated", index.update(arguments.table)
    return {word: count, "rows": index.size, "out": str(arguments.out), **_state(index)}


def _state(index: Any) -> dict[str, Any]:
    return {"without_vector": index.without_vector, "aligned": index.aligned, "approximate": index.approximate}
