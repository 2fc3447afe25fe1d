"""Build the documentation site: ``python docs/build.py``.

Hand-written pages (``docs/*.md``, the README, CONTRIBUTING, CHANGELOG) are copied; command line, components, recipes and results are
written from what the package says about itself. The pages lie in ``build/docs`` and the site in ``site``; nothing is fetched from anywhere.
"""

from __future__ import annotations

import argparse
import html
import importlib
import inspect
import logging
import os
import pkgutil
import re
import shutil
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "docs"
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def cell(text: object) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|")


def code(text: object) -> str:
    """A word of code in a table."""
    return f"`{cell(text)}`" if str(text) else ""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def annotation(hint: Any) -> str:
    """A type as a person would write it, bounds included."""
    if typing.get_origin(hint) is typing.Annotated:
        base, *bounds = typing.get_args(hint)
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        said = [f"{signs[n]} {getattr(b, n)}" for b in bounds for n in signs if hasattr(b, n)]
        return annotation(base) + (f" ({', '.join(said)})" if said else "")
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(str(a) for a in typing.get_args(hint))
    return inspect.formatannotation(hint).replace("typing.", "")


def settings(target: Any, hidden: frozenset[str]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, meaning) of every setting of a component."""
    function = target.__init__ if isinstance(target, type) else target
    hints = typing.get_type_hints(function, include_extras=True)
    meanings = dict(re.findall(r"^ {4,}(\w+): (.+(?:\n {8,}.+)*)", argument_section(target), re.MULTILINE))
    found = []
    for p in inspect.signature(target).parameters.values():
        if p.name not in hidden:
            default = "required" if p.default is p.empty else code(repr(p.default))
            found.append((code(p.name), code(annotation(hints.get(p.name, p.annotation))), default, cell(meanings.get(p.name, ""))))
    return found


def argument_section(target: Any) -> str:
    """The Args section of a docstring."""
    found = re.search(r"^Args:\n((?:(?: {4,}.*)?\n?)+)", inspect.getdoc(target) or "", re.MULTILINE)
    return found[1] if found else ""


def prose(target: Any) -> str:
    """A docstring without its Args section."""
    return (inspect.getdoc(target) or "").replace(argument_section(target), "").replace("Args:\n", "").strip()


def components() -> str:
    """Every registry's components with their settings."""
    from unisono.core.registry import all_registries

    for module in pkgutil.walk_packages(importlib.import_module("unisono").__path__, "unisono."):
        if ".cli" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    parts = [
        "# Components\n\nWhat a recipe can name, by role. The signature of a component is its schema: an unknown setting is an error that "
        "names the nearest valid one. `word(a, k=v)` and `{type: word, k: v}` are the same sentence. Other packages add components "
        "through the entry-point group `unisono.ROLE`.\n"
    ]
    for role, registry in all_registries().items():
        base = (inspect.getdoc(registry.base) or "").split("\n")[0]
        parts.append(f"## {role}\n\n{base}\n\nEntry-point group: `unisono.{role}`\n")
        for name, entry in registry.entries.items():
            parts.append(f"### {name} {{#{role}-{name}}}\n\n{prose(entry.target)}\n")
            if entry.source:
                parts.append(f"Source: {entry.source}\n")
            if rows := settings(entry.target, registry.runtime):
                parts.append(table(("setting", "type", "default", "meaning"), [tuple(r) for r in rows]))
            parts += [f"The contract *{contract}* does not hold: {why}\n" for contract, why in entry.traits.exempt.items()]
    return "\n".join(parts)


def recipes() -> str:
    """Every recipe: its file, and what it resolves to."""
    from unisono.recipe import load_recipe, recipe_names

    parts = [
        "# Recipes\n\nPublished designs that can be chosen by name: `unisono fit TABLE --recipe NAME`. "
        "`unisono recipes NAME` shows parameters and cost too.\n"
    ]
    for name in recipe_names():
        recipe = load_recipe(name)
        written = (ROOT / "src/unisono/recipes" / f"{name}.yaml").read_text("utf-8").strip()
        said = [str(recipe[k]) for k in ("claim",) if k in recipe.settings]
        source = recipe.settings.get("source")
        parts += [f"## {name}\n", *[f"{s}\n" for s in said], *([f"Source: {source}\n"] if source else [])]
        parts += [f"```yaml\n{written}\n```\n", f'??? note "Resolved"\n\n    ```yaml\n{indent(recipe.to_yaml())}\n    ```\n']
    return "\n".join(parts)


def indent(text: str) -> str:
    """Four spaces before every line."""
    return "\n".join("    " + line for line in text.strip().splitlines())


def command_line() -> str:
    """The help of every verb."""
    from unisono.cli.main import VERBS, Parser, usage

    os.environ["COLUMNS"] = "110"
    parts = [f"# Command line\n\n```text\n{usage()}\n```\n"]
    for verb, what in VERBS.items():
        parser: argparse.ArgumentParser = Parser(prog=f"unisono {verb}", description=what[0].upper() + what[1:] + ".", allow_abbrev=False)
        importlib.import_module(f"unisono.cli.{verb}").add_arguments(parser)
        parts.append(f"## {verb}\n\n```text\n{parser.format_help()}```\n")
    return "\n".join(parts)


def api() -> str:
    """The public names."""
    import unisono

    places = []
    for name in unisono.__all__:
        found = getattr(unisono, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            places.append(f"{found.__module__}.{found.__qualname__}")
        elif inspect.ismodule(found):
            places.append(found.__name__)
    body = "\n\n".join(f"::: {place}\n    options: {{heading_level: 2, skip_local_inventory: true}}" for place in places)
    return f"# Public names\n\n`import unisono` is instant; each name is looked up when it is first used.\n\n{body}\n"


def modules() -> str:
    """Every module, in the order in which they may import one another."""
    import tomllib

    import unisono

    layers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]["layers"]
    order = [n.strip("() ") for layer in reversed(layers) for n in re.split("[|:]", layer)]
    parts = ["# Modules\n\nA module imports only what stands above it on this page.\n"]
    names = sorted(m.name for m in pkgutil.walk_packages(unisono.__path__, "unisono."))
    for part in order:
        if part in {"cli", "serve"}:
            continue
        parts += [
            f"::: {n}\n    options: {{show_source: false, heading_level: {2 if n.count('.') == 1 else 3}}}"
            for n in names
            if n.split(".")[1] == part
        ]
    return "\n\n".join(parts) + "\n"


def results() -> str:
    """What the benchmarks recorded, against their goals."""
    written = ROOT / "benchmarks" / "results" / "README.md"
    return written.read_text("utf-8") if written.is_file() else "# Results\n\nNothing is recorded yet: `make bench`.\n"


def pages() -> Iterator[tuple[str, str]]:
    """(file, Markdown) of every page."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        yield path.name, path.read_text("utf-8")
    names = {**COPIED, "benchmarks/README.md": "results.md", "docs/tutorial.md": "tutorial.md"}
    for source, target in COPIED.items():
        text = (ROOT / source).read_text("utf-8")
        for name, page in names.items():
            text = text.replace(f"]({name})", f"]({page})")
        yield target, text
    yield from {
        "cli.md": command_line(), "api.md": api(), "modules.md": modules(), "components.md": components(), "recipes.md": recipes(),
        "results.md": results(),
    }.items()  # fmt: skip


def main() -> int:
    """Write the pages, and build the site unless only the pages are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages-only", action="store_true", help="write the Markdown pages and stop")
    asked = parser.parse_args()
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    for name, text in pages():
        (PAGES / name).write_text(text, "utf-8")
    if asked.pages_only:
        return 0
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    build(load_config(str(ROOT / "docs" / "mkdocs.yml"), strict=True))
    print(f"open {html.escape(str(ROOT / 'site' / 'index.html'))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
