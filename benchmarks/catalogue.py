"""The page of published systems: what each claims, what is tested of it, what was measured, what waits.

Made from the docstrings of ``benchmarks/systems``, the recipes, and the recorded results. A module's docstring begins with a line
``Title (source; recipe ``name``)`` and has sentences ``Claim: ...``, ``Exact (``tests/...``): ...`` and ``Waiting: ...``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROWS, Row
from benchmarks.record import RESULTS
from benchmarks.summary import HEAD, cells, judge, latest, remarks

ROOT = Path(__file__).resolve().parent.parent
_ABOUT = """Every system is a recipe over the same language. Its **exact** property is an equality or an invariance that the paper implies,
held by a test. Its **effect** is measured against a baseline of its own that is tuned alike, over several seeds; `spread` is the range
over seeds. A goal that was not reached is shown as such. What needs a part that does not exist yet **waits**.

Written by `python -m benchmarks systems` from recorded results."""


@dataclass(frozen=True)
class System:
    """One module of ``benchmarks/systems``, told.

    Attributes:
        title: what it is.
        source: where it was published.
        recipes: its recipes.
        claim: what it claims.
        exact: what is tested.
        tests: the files that test it.
        waiting: what needs parts that do not exist yet; empty when nothing waits.
        setting: what is measured, in words.
        rows: its benchmarks.
    """

    title: str
    source: str = ""
    recipes: tuple[str, ...] = ()
    claim: str = ""
    exact: str = ""
    tests: tuple[str, ...] = ()
    waiting: str = ""
    setting: str = ""
    rows: tuple[Row, ...] = ()


def told(docstring: str, rows: Sequence[Row]) -> System:
    """Take a module's docstring apart."""
    first, _, rest = docstring.strip().partition("\n")
    if "\n" in docstring.strip() and rest[:1] != "\n":  # a first line that goes on
        more, _, rest = rest.partition("\n\n")
        first = f"{first} {more}"
    first, paragraphs = " ".join(first.split()), [" ".join(p.split()) for p in rest.strip().split("\n\n")]
    inside = [g for g in re.findall(r"\(((?:[^()]|\([^()]*\))*)\)", first) if "``" in g or "arXiv" in g]
    title = first
    for group in inside:
        title = title.replace(f" ({group})", "")
    marked = " ".join(p for p in paragraphs if re.search(r"\b(Claim|Exact|Waiting)\b", p))
    parts = re.split(r"(?:^|(?<=[.:;]\s))(Claim|Exact|Waiting)(?::|\s*\(([^)]*)\):)\s*", marked)
    found = {parts[k]: (parts[k + 1] or "", parts[k + 2].strip()) for k in range(1, len(parts) - 2, 3)}
    exact, tests = found.get("Exact", ("", ""))[1], found.get("Exact", ("", ""))[0]
    exact = re.sub(r"\s*Nothing waits\.?$", "", exact)
    return System(
        title=title.rstrip("."),
        source=", ".join(dict.fromkeys(part for g in inside for part in [g.partition(";")[0].strip()] if part and "``" not in part)),
        recipes=tuple(name for g in inside for name in re.findall(r"``([\w-]+)``", g)),
        claim=found.get("Claim", ("", ""))[1],
        exact=exact,
        tests=tuple(re.findall(r"``(tests/[\w/.-]+)``", tests)),
        waiting=found.get("Waiting", ("", ""))[1],
        setting=" ".join(p for p in paragraphs if p and p not in marked),
        rows=tuple(rows),
    )


def systems(rows: Iterable[Row]) -> list[System]:
    """Every module of systems that has a row, in the order of their titles."""
    by_module: dict[str, list[Row]] = {}
    for row in rows:
        if row.module.startswith("benchmarks.systems."):
            by_module.setdefault(row.module, []).append(row)
    found = [told(sys.modules[module].__doc__ or module, mine) for module, mine in by_module.items()]
    return sorted(found, key=lambda s: s.title.lower())


def unmeasured(found: Sequence[System], root: Path = ROOT) -> list[System]:
    """The recipes that no module of systems speaks of, and the test of each if there is one."""
    from unisono.recipe import load_recipe, recipe_names

    known = {name for system in found for name in system.recipes} | {"base"}
    result = []
    for name in recipe_names():
        if name in known:
            continue
        recipe, test = load_recipe(name), f"tests/systems/test_{name.replace('-', '_')}.py"
        tests = (test,) if (root / test).is_file() else ()
        settings = recipe.settings
        result.append(System(name, str(settings.get("source", "")), (name,), str(settings.get("claim", "")), tests=tests))
    return result


def _standing(system: System, folder: Path) -> str:
    """The verdicts of a system's goals in a few words."""
    if not system.rows:
        return "not measured"
    verdicts = [judge(row, goal, latest(row, folder)).verdict for row in system.rows for goal in row.goals]
    words = {"aim met": "aim met", "met": "met", "short": "**short**", "recorded": "recorded", "no result": "no result"}
    return ", ".join(f"{verdicts.count(v)} {words[v]}" for v in words if v in verdicts) or "no goal"


def _tested(system: System, root: Path) -> str:
    return ", ".join(f"`{t}`" + ("" if (root / t).is_file() else " (absent)") for t in system.tests) or "no test named"


def _section(system: System, folder: Path, root: Path) -> list[str]:
    lines = [f"## {system.title}", ""]
    facts = [system.source, ", ".join(f"recipe [`{name}`](recipes.md#{name})" for name in system.recipes)]
    lines += ["; ".join(fact for fact in facts if fact), ""]
    for label, text in (
        ("Claim", system.claim),
        ("Exact", system.exact),
        ("How it is measured", system.setting),
        ("Waiting", system.waiting),
    ):
        where = f" ({_tested(system, root)})" if label == "Exact" else ""
        lines += [f"**{label}**{where}: {text.replace('``', '`')}", ""] if text else []
    for row in system.rows:
        recorded = latest(row, folder)
        table = [cells(row, judge(row, goal, recorded))[1:] for goal in row.goals]
        lines += [f"`{row.name}`: {row.title}", ""]
        if table:
            lines += ["| " + " | ".join(HEAD[1:]) + " |", "|" + " --- |" * len(HEAD[1:])]
            lines += ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in table] + [""]
        lines += [f"- {note}" for note in remarks(row, recorded, folder)]
        lines += [""] if lines[-1] else []
    return lines


def page(folder: Path = RESULTS, root: Path = ROOT) -> str:
    """The page as Markdown."""
    from benchmarks.__main__ import load

    load()
    return written(systems(ROWS.values()), folder, root)


def written(found: Sequence[System], folder: Path, root: Path) -> str:
    """The page of some systems, and of the recipes that none of them speaks of."""
    rest = unmeasured(found, root)
    lines = ["# Systems", "", _ABOUT, "", "| system | source | exact | effect | waits |", "| --- | --- | --- | --- | --- |"]
    for system in [*found, *rest]:
        shown = (
            system.title,
            system.source,
            _tested(system, root),
            _standing(system, folder),
            "something" if system.waiting else "nothing",
        )
        lines.append("| " + " | ".join(c.replace("|", "\\|") or "–" for c in shown) + " |")
    measured = sum(any(latest(row, folder).runs for row in system.rows) for system in found)
    lines += ["", f"{measured} of {len(found)} systems have results; {len(rest)} recipes have no measurement of their own.", ""]
    for system in found:
        lines += _section(system, folder, root)
    return "\n".join(lines).rstrip() + "\n"
