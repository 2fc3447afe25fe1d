"""``unisono recipes [NAME]``."""

from __future__ import annotations

import argparse

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this recipe (a name or a file)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="change a setting (repeatable)")
    parser.add_argument("--table", metavar="TABLE", help="count parameters and cost for this table's columns")
    parser.add_argument("--target", action="append", default=[], metavar="COL", help="the table's target columns")
    common.add_reading(parser)
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """List the recipes, or show one."""
    from unisono.core.errors import UserError
    from unisono.recipe import load_recipe, recipe_names

    if arguments.name is None:
        recipes = [load_recipe(name) for name in recipe_names()]
        listed = [{"name": r.name, "claim": r.settings.get("claim", ""), "source": r.settings.get("source", "")} for r in recipes]
        if arguments.json:
            common.print_json({"recipes": listed})
        else:
            common.print_table([[r["name"], r["claim"], r["source"]] for r in listed], ["recipe", "what it is", "source"], {1: 110})
        return 0
    recipe = load_recipe(arguments.name, arguments.settings)
    cost = None
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
