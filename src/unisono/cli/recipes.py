"""``unisono recipes [NAME]``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this recipe (a name or a file)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="change a setting (repeatable)")
    parser.add_argument("--table", metavar="TABLE", help="count parameters and cost for this table's columns")
    parser.add_argument("--draw", action="store_true", help="draw the trunk for a sample row (with --table its first) as one HTML page")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where --draw writes (default NAME.html)")
    parser.add_argument("--target", action="append", default=[], metavar="COL", help="the table's target columns")
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """List the recipes, or show one."""
    from unisono.core.errors import UserError
    from unisono.recipe import MODEL, VERBS, load_recipe, recipe_names

    if arguments.out is not None and not arguments.draw:
        raise UserError("--out says where --draw writes: add --draw")
    if arguments.name is None:
        if arguments.draw:
            raise UserError("--draw needs a recipe: which one? unisono recipes lists them")
        verbs = {MODEL: "fit", **VERBS}
        recipes = [(verb, load_recipe(name, kind=kind).settings, name) for kind, verb in verbs.items() for name in recipe_names(kind)]
        listed = [{"name": n, "verb": verb, "claim": s.get("claim", ""), "source": s.get("source", "")} for verb, s, n in recipes]
        if arguments.json:
            common.print_json({"recipes": listed})
        else:
            lines = [[r["name"], r["verb"], r["claim"], r["source"]] for r in listed]
            common.print_table(lines, ["recipe", "for", "what it is", "source"], {2: 110})
        return 0
    kind = next((k for k in VERBS if arguments.name in recipe_names(k)), MODEL)
    recipe = load_recipe(arguments.name, arguments.settings, kind=kind)
    if kind != MODEL:
        if arguments.draw or arguments.table is not None:
            raise UserError(f"recipe {recipe.name} is no model: --draw and --table are for models")
        return _show_other(recipe, VERBS[kind], arguments)
    cost = None
    if arguments.draw:
        return _draw(recipe, arguments)
    if arguments.table is not None:
        from unisono.model.cost import cost_of
        from unisono.model.options import named_targets

        if not arguments.target:
            raise UserError("--table needs --target: which column would be predicted?")
        cost = cost_of(recipe, arguments.table, named_targets(arguments.target), common.reading(arguments))
    if arguments.json:
        shown = {"name": recipe.name, "lineage": list(recipe.lineage), "settings": dict(recipe.settings)}
        common.print_json(shown if cost is None else {**shown, "cost": vars(cost) | {"parameters": dict(cost.parameters)}})
        return 0
    print(f"{recipe.name}" + (f", from {' <- '.join(recipe.lineage)}" if recipe.lineage else ""))
    print(recipe.to_yaml())
    if cost is not None:
        parts = ", ".join(f"{name} {count:,}" for name, count in cost.parameters.items() if name != "total")
        print(f"parameters: {cost.parameters['total']:,} ({parts})")
        print(
            f"a row: {cost.tokens:.1f} tokens, {cost.multiplications / 1e6:.2f} million multiplications, {cost.milliseconds:.3f} ms forward"
        )
    else:
        print("add --table TABLE --target COL for parameters and cost with that table's columns")
    return 0


def _show_other(recipe: Any, verb: str, arguments: argparse.Namespace) -> int:
    """A recipe that is no model."""
    if arguments.json:
        common.print_json({"name": recipe.name, "lineage": list(recipe.lineage), "settings": dict(recipe.settings)})
        return 0
    print(f"{recipe.name}, for unisono {verb}\n{recipe.to_yaml()}")
    return 0


def _draw(recipe: Any, arguments: argparse.Namespace) -> int:
    """Write the drawing, and say where."""
    from unisono.core.errors import UserError
    from unisono.core.files import write_text
    from unisono.model.drawing import draw_recipe
    from unisono.model.options import FitOptions, named_targets

    common.show_notes(quiet=True)
    options = None
    if arguments.table is not None:
        if not arguments.target:
            raise UserError("--table needs --target: which column would be predicted?")
        options = FitOptions(targets=named_targets(arguments.target), **common.reading(arguments))
    path = arguments.out if arguments.out is not None else Path(f"{Path(recipe.name).stem}.html")
    page = draw_recipe(recipe, arguments.table, options)
    write_text(path, page)
    if arguments.json:
        common.print_json({"name": recipe.name, "drawing": str(path)})
    else:
        print(path)
    return 0
