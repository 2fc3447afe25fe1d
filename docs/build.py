"""Build the documentation site: hand-written pages, and pages made from the registries, recipes, parsers and docstrings.

Run it as ``python docs/build.py [--out site]``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "src"))

#: Packages whose registries are shown, in the order of a row's path.
REGISTRIES = (
    "unisono.modalities.base", "unisono.nn.grammar", "unisono.nn.bias", "unisono.tasks.base",
    "unisono.objectives.align", "unisono.train.optimisers",
)  # fmt: skip
RECIPES = """A recipe is a short file that says which tokens mix with which. Choose one with `--recipe NAME`, change one setting with
`--set KEY=VALUE`, or give a file of your own."""
COMPONENTS = """Whatever stands in a recipe is one of these words. A component's signature is its schema: an unknown or ill-fitting
setting is refused."""
COMMANDS = """Results go to standard output; bars, notes and errors to standard error. Exit codes: 0 done, 1 the work failed, 2 a mistake of
the caller's, 130 interrupted."""


def front_page() -> str:
    """The README, its links led to the pages of the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("(CONTRIBUTING.md)", "(contributing.md)").replace("(docs/pages/", "(")


def sources(text: str) -> str:
    """Sources as links where they have an address."""
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"\bdoi:(10\.\S+?)(?=[,;)\s]|$)", r"[doi:\1](https://doi.org/\1)", text)


def code(text: str) -> str:
    """Docstring markup as Markdown."""
    return text.replace("``", "`")


def recipes() -> str:
    """Every recipe: what it claims, where it comes from, its file, its resolved trunk."""
    import yaml

    from unisono.recipe import load_recipe, recipe_names

    lines = ["# Recipes", "", RECIPES, ""]
    for name in recipe_names():
        recipe = load_recipe(name)
        text = (ROOT / "src" / "unisono" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        trunk = yaml.safe_dump({"trunk": recipe["trunk"], "defaults": recipe["defaults"]}, sort_keys=False, width=110)
        claim, source = (str(recipe.settings.get(key, "–")) for key in ("claim", "source"))
        lines += [f"## {name}", "", claim, "", f"Source: {sources(source)}. [Drawing](drawings/{name}.html)", ""]
        lines += ["```yaml", text.strip(), "```", ""]
        if recipe.lineage:
            lines += ['??? note "Resolved"', "", *(f"    {row}" for row in ["```yaml", *trunk.strip().splitlines(), "```"]), ""]
    return "\n".join(lines)


def _signature(target: Callable[..., object], runtime: frozenset[str]) -> str:
    shown = []
    for p in inspect.signature(target).parameters.values():
        if p.name in runtime:
            continue
        default = "" if p.default is inspect.Parameter.empty else f" = {p.default!r}"
        annotation = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", str(p.annotation))
        shown.append(f"{p.name}: {annotation}{default}")
    return ", ".join(shown)


def components() -> str:
    """Every registered component, role by role."""
    from unisono.core.registry import all_registries

    for module in REGISTRIES:
        importlib.import_module(module)
    lines = ["# Components", "", COMPONENTS, ""]
    for role, registry in all_registries().items():
        if not registry.entries:
            continue
        lines += [f"## {role.capitalize()}", ""]
        for name, entry in registry.entries.items():
            signature = _signature(entry.target, registry.runtime)
            source = entry.source or "; ".join(entry.traits.exempt.values())
            shown = ["```python", f"{name}({signature})", "```", ""] if signature else []
            lines += [f"### `{name}`", "", *shown, code(entry.summary), ""]
            lines += ([f"*Source: {sources(source)}*", ""]) if source else []
    return "\n".join(lines)


def command_line() -> str:
    """The help of every verb, from the parsers themselves."""
    from unisono.cli import main

    lines = ["# Command line", "", COMMANDS, "", "```text", main.usage(), "```", ""]
    for verb, what in main.VERBS.items():
        parser = main.Parser(prog=f"unisono {verb}", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=110))
        importlib.import_module(f"unisono.cli.{verb}").add_arguments(parser)
        lines += [f"## unisono {verb}", "", what[0].upper() + what[1:] + ".", "", "```text", parser.format_help().strip(), "```", ""]
    return "\n".join(lines)


def _sections(target: object) -> Iterator[str]:
    """A Google-style docstring as Markdown: its text, then lists of what its sections name."""
    entry = re.compile(r"    (\*{0,2}[\w, ]+): (.*)")
    within = False
    for line in (inspect.getdoc(target) or "").splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line):
            within = True
            yield from ("", f"**{line[:-1]}**", "")
        elif within and (match := entry.fullmatch(line)):
            yield f"- `{match.group(1)}`: {code(match.group(2))}"
        elif within and line.startswith("    "):
            yield f"  {code(line.strip())}"
        else:
            yield code(line)


def python_api() -> str:
    """The public names with their signatures and docstrings."""
    import unisono

    lines = ["# Python API", "", "`import unisono` is instant; each name is loaded when it is first used.", ""]
    for name in unisono.__all__:
        target = getattr(unisono, name)
        if name.startswith("__"):
            continue
        if inspect.ismodule(target):
            lines += [f"## unisono.{name}", "", code(inspect.getdoc(target) or ""), ""]
            continue
        lines += [f"## unisono.{name}", "", "```python", f"{name}{_parameters(target)}", "```", "", *_sections(target), ""]
        for method, function in inspect.getmembers(target, inspect.isfunction) if isinstance(target, type) else ():
            if not method.startswith("_") and function.__module__.startswith("unisono"):
                lines += [f"### {name}.{method}", "", "```python", f"{method}{_parameters(function)}", "```", "", *_sections(function), ""]
    return "\n".join(lines)


def _parameters(target: object) -> str:
    try:
        signature = inspect.signature(target)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    parts = []
    for p in signature.parameters.values():
        starred = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        if p.kind is p.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        annotation = "" if p.annotation is p.empty else f": {inspect.formatannotation(p.annotation).strip(chr(39))}"
        default = "" if p.default is p.empty else f" = {p.default!r}"
        parts += [] if p.name == "self" else [f"{starred}{p.name}{annotation}{default}"]
    end = "" if signature.return_annotation is signature.empty else f" -> {str(signature.return_annotation).strip(chr(39))}"
    line = f"({', '.join(parts)}){end}"
    return line if len(line) <= 90 else "(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


def systems() -> str:
    """What is claimed, tested and measured of each published system."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.catalogue import page

    return sources(page())


def evidence() -> str:
    """What was measured, where results are recorded."""
    path = ROOT / "benchmarks" / "results" / "README.md"
    text = "# Evidence\n\n`make bench` runs every measurement; each result is recorded with its command, seeds, spread and machine.\n"
    found = re.sub(r"^# .*\n", "", path.read_text(encoding="utf-8")) if path.is_file() else "No results are recorded yet.\n"
    return f"{text}\n{found}"


PAGES: dict[str, Callable[[], str]] = {
    "index.md": front_page,
    "recipes.md": recipes,
    "components.md": components,
    "commands.md": command_line,
    "api.md": python_api,
    "evidence.md": evidence,
    "systems.md": systems,
    "contributing.md": lambda: (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    "changelog.md": lambda: (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
}


def write_pages(folder: Path) -> None:
    """Write all pages as Markdown."""
    shutil.copytree(HERE / "pages", folder, dirs_exist_ok=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")
    write_drawings(folder / "drawings")


def write_drawings(folder: Path) -> None:
    """Draw every recipe."""
    from unisono.model.drawing import draw_recipe
    from unisono.recipe import load_recipe, recipe_names

    folder.mkdir()
    for name in recipe_names():
        (folder / f"{name}.html").write_text(draw_recipe(load_recipe(name)), encoding="utf-8")


def main() -> int:
    """Build the site."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pages(folder / "docs")
        shutil.copy(HERE / "mkdocs.yml", folder)
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--config-file", str(folder / "mkdocs.yml")]
        code = subprocess.run([*command, "--site-dir", str(out)], check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode
    if code == 0:
        print(f"site: {out / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
