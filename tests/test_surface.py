"""The public surface and the budgets of style: they grow on purpose or not at all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import unisono

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "unisono"
HERE = Path(__file__).parent / "surface"
BUDGETS = {"file": 500, "function": 60, "parameters": 10, "booleans": 2}
# spelt in parts, so that this file does not hold what it forbids
FORBIDDEN = {
    r"^\s*(import|from)\s+(" + "pic" + r"kle|cloudpic" + r"kle|dill|shelve|marshal)\b": "code in data",
    "allow_pic" + r"kle=True": "code in data",
    r"(?<![\w.])ev" + r"al\(|(?<![\w.])ex" + r"ec\(": "running text",
    "weights_only=" + "False": "code in weights",
    r"except( Base)?(Exception)?:\s*(#.*)?\n\s+pass\b": "an error that nobody hears of",
    r"yaml\.(load|unsafe_load|full_load)\(": "code in YAML",
    r"shell=" + "True": "a shell",
}
HEAVY = ("torch", "numpy", "pyarrow", "pandas", "sklearn", "scipy", "PIL", "pydantic")


def sources() -> list[Path]:
    """Every Python file of the project."""
    return [p for folder in ("src", "tests", "benchmarks", "docs") for p in sorted((ROOT / folder).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def debts() -> dict[tuple[str, str], int]:
    """(kind, place) -> the figure allowed."""
    found = {}
    for line in (HERE / "debts.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, place, figure, reason = line.split(maxsplit=3)
            assert reason, f"{line}: a debt has a reason"
            found[kind, place] = int(figure)
    return found


def _excesses_of(path: Path) -> Iterator[tuple[str, str, int]]:
    name = str(path.relative_to(ROOT))
    yield "file", name, path.read_text(encoding="utf-8").count("\n")
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield "function", f"{name}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
        if node.name == "__init__":
            given = [a for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg != "self"]
            yield "parameters", f"{name}:{node.lineno}", len(given)
            yield "booleans", f"{name}:{node.lineno}", sum(a.annotation is not None and ast.unparse(a.annotation) == "bool" for a in given)


def test_the_public_names_are_those_that_are_listed() -> None:
    assert sorted(unisono.__all__) == (HERE / "api.txt").read_text(encoding="utf-8").split()
    for name in unisono.__all__:
        assert getattr(unisono, name) is not None
    assert dir(unisono) == sorted(unisono.__all__)


def test_nothing_exceeds_its_budget() -> None:
    allowed = debts()
    over = {(k, place): n for path in sources() for k, place, n in _excesses_of(path) if n > BUDGETS[k]}
    assert not {key: n for key, n in over.items() if n > allowed.get(key, 0)}
    assert not [key for key in allowed if key not in over], "these debts are paid: strike them out"


def _bodies() -> Iterator[tuple[str, set[str]]]:
    """Functions of some length as the set of their statements, names and layout aside."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef):
                lines = {line.strip() for line in ast.unparse(node.body[1:] if ast.get_docstring(node) else node.body).splitlines()}  # type: ignore[arg-type]
                if len(lines) >= 10:
                    yield f"{path.relative_to(ROOT)}:{node.name}", lines


def test_no_two_functions_are_the_same_code() -> None:
    bodies = list(_bodies())
    assert len(bodies) > 100
    clones = [
        (a, b)
        for k, (a, first) in enumerate(bodies)
        for b, second in bodies[k + 1 :]
        if len(first & second) > 0.8 * min(len(first), len(second)) and max(len(first), len(second)) < 2 * min(len(first), len(second))
    ]
    assert clones == []


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_forbidden_words_are_absent(pattern: str) -> None:
    found = [str(p.relative_to(ROOT)) for p in sorted(PACKAGE.rglob("*.py")) if re.search(pattern, p.read_text(encoding="utf-8"), re.M)]
    assert not found, FORBIDDEN[pattern]


def test_no_path_of_a_developers_machine_is_written_down() -> None:
    words = re.compile(r"(?<![\w.])/(wo" + r"rk|home|root|Users)/|\b\w+\.(inter" + r"nal|lo" + r"cal)\b(?!host)")
    names = [p for folder in ("src", "tests", "benchmarks", "docs") for p in sorted((ROOT / folder).rglob("*"))]
    names += [p for p in ROOT.iterdir() if p.is_file() and p.name != "LICENSE"]
    texts = [p for p in names if p.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".j2", ".css"} or p.name == "Makefile"]
    found = [(str(p.relative_to(ROOT)), m.group()) for p in texts if (m := words.search(p.read_text(encoding="utf-8")))]
    assert found == []


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["--version"], ["fit", "--help"], ["predict", "--help"], ["evaluate", "--help"], ["fit", "--nope"]]
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = "import sys, unisono\nfrom unisono.cli.main import main\ncode = main(sys.argv[1:]) if sys.argv[1:] else 0\n"
    code += f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules]); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, cwd=ROOT / "src", check=False)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
    assert done.returncode == (2 if "--nope" in words else 0)
