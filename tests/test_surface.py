"""Ratchets on the shape of the code: what is public, how long, how alike, how safe, and what an import costs.

What exceeds a budget is listed in ``tests/surface/debts.txt`` with a reason; an entry that is no longer needed, or larger than needed,
fails too, so that a debt once paid stays paid.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

import unisono

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "unisono"
BUDGETS = {"file": 500, "function": 60, "parameters": 10, "booleans": 2}
CLONE_LINES = 6  # a pair of functions shorter than this says too little to be called a clone
CLONE_SHARE = 0.8


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed, by its path inside the package."""
    return {str(p.relative_to(PACKAGE)): ast.parse(p.read_text("utf-8")) for p in sorted(PACKAGE.rglob("*.py"))}


def functions() -> Iterator[tuple[str, str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(path, qualified name, node) of every function and method, nested ones included."""

    def walk(path: str, node: ast.AST, prefix: str) -> Iterator[tuple[str, str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}.{child.name}" if prefix else child.name
                if not isinstance(child, ast.ClassDef):
                    yield path, inner, child
            yield from walk(path, child, inner)

    for path, tree in modules().items():
        yield from walk(path, tree, "")


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The statements of a function, one normalised line each source line, without its signature, docstring and comments."""
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
        body = body[1:]
    return [line.strip() for statement in body for line in ast.unparse(statement).splitlines()]


def is_boolean(argument: ast.arg, default: ast.expr | None) -> bool:
    """Whether a parameter is a flag, by annotation or default."""
    annotated = argument.annotation is not None and ast.unparse(argument.annotation) in {"bool", "bool | None"}
    return annotated or (isinstance(default, ast.Constant) and isinstance(default.value, bool))


def debts() -> dict[tuple[str, str], int]:
    """(budget, place) -> the amount allowed."""
    found: dict[tuple[str, str], int] = {}
    for line in (ROOT / "tests/surface/debts.txt").read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            left, _, reason = line.partition("#")
            budget, place, amount = left.split()
            assert reason.strip(), f"{line!r} gives no reason"
            found[budget, place] = int(amount)
    return found


def measured() -> dict[tuple[str, str], int]:
    """(budget, place) -> what the code has there, for everything over its budget."""
    found: dict[tuple[str, str], int] = {}
    for path in modules():
        found["file", path] = len((PACKAGE / path).read_text("utf-8").splitlines())
    for path, name, node in functions():
        place = f"{path}:{name}"
        found["function", place] = (node.end_lineno or node.lineno) - node.lineno + 1
        if name.endswith("__init__"):
            a = node.args
            plain = [*a.posonlyargs, *a.args]
            pairs = [*zip(plain, [None] * (len(plain) - len(a.defaults)) + list(a.defaults), strict=True)]
            pairs += [*zip(a.kwonlyargs, a.kw_defaults, strict=True)]
            pairs = [(p, d) for p, d in pairs if p.arg != "self"]
            found["parameters", place] = len(pairs)
            found["booleans", place] = sum(is_boolean(p, d) for p, d in pairs)
    return {key: amount for key, amount in found.items() if amount > BUDGETS[key[0]]}


def test_public_names_are_the_listed_ones() -> None:
    listed = (ROOT / "tests/surface/api.txt").read_text("utf-8").split()
    assert sorted(unisono.__all__) == listed, "a public name came or went: say so in CHANGELOG.md and tests/surface/api.txt"


@pytest.mark.parametrize("name", [n for n in unisono.__all__ if n != "__version__"])
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(unisono, name).__doc__


@pytest.mark.parametrize("budget", BUDGETS)
def test_budget(budget: str) -> None:
    allowed = {place: n for (kind, place), n in debts().items() if kind == budget}
    actual = {place: n for (kind, place), n in measured().items() if kind == budget}
    over = {place: n for place, n in actual.items() if n > allowed.get(place, BUDGETS[budget])}
    stale = {place: n for place, n in allowed.items() if n > actual.get(place, 0)}
    assert not over, f"over the budget of {BUDGETS[budget]} ({budget}): {over}"
    assert not stale, f"the debt is smaller by now; lower or remove it in tests/surface/debts.txt: {stale}"


def test_no_two_functions_are_copies() -> None:
    bodies = [(f"{path}:{name}", set(code_lines(node)), len(code_lines(node))) for path, name, node in functions()]
    bodies = [b for b in bodies if b[2] >= CLONE_LINES]
    users: dict[str, list[int]] = defaultdict(list)
    for i, (_, lines, _) in enumerate(bodies):
        for line in lines:
            users[line].append(i)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for indices in users.values():
        for pair in combinations(indices, 2):
            shared[pair] += 1
    clones = [(bodies[i][0], bodies[j][0]) for (i, j), n in shared.items() if n > CLONE_SHARE * max(len(bodies[i][1]), len(bodies[j][1]))]
    assert not clones, f"share over {CLONE_SHARE:.0%} of their lines: {clones}"


UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


def unsafe(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, reason) of everything in a module that could run foreign code or hide a failure."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"imports {n}") for n in names if n.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield node.lineno, f"calls {called}"
            if called in {"torch.save", "torch.load"}:
                yield node.lineno, f"calls {called}, whose format is a pickle"
            if called == "yaml.load":
                yield node.lineno, "calls yaml.load; safe_load is the safe one"
            for keyword in node.keywords:
                if (keyword.arg, ast.unparse(keyword.value)) in {("weights_only", "False"), ("allow_pickle", "True"), ("shell", "True")}:
                    yield node.lineno, f"passes {keyword.arg}={ast.unparse(keyword.value)}"
        elif isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            if broad and all(isinstance(s, ast.Pass | ast.Continue) or ast.unparse(s) == "..." for s in node.body):
                yield node.lineno, "swallows every exception"


def test_nothing_runs_foreign_code_or_hides_failures() -> None:
    found = [f"{path}:{line} {reason}" for path, tree in modules().items() for line, reason in unsafe(tree)]
    assert not found, found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load(f)",
        "f(weights_only=False)",
        "try:\n f()\nexcept Exception:\n pass",
    ],
)
def test_the_check_sees_what_is_unsafe(code: str) -> None:
    assert len(list(unsafe(ast.parse(code)))) == 1


def test_no_private_name_crosses_a_package() -> None:
    found = []
    for path, tree in modules().items():
        here = path.split("/", maxsplit=1)[0].removesuffix(".py")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unisono."):
                parts = (node.module or "").split(".")
                names = [a.name for a in node.names if a.name.startswith("_") and not a.name.startswith("__")]
                if parts[1] != here and (names or any(p.startswith("_") for p in parts)):
                    found.append(f"{path}:{node.lineno} {node.module} {names}")
    assert not found, found


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["fit", "--help"]], ids=["import", "help", "version", "fit-help"])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"arguments = {arguments!r}\n"
        "import unisono\n"
        "if arguments:\n"
        "    from unisono.cli.main import main\n"
        "    sys.argv = ['unisono', *arguments]\n"
        "    try:\n"
        "        code = main()\n"
        "    except SystemExit as stop:\n"
        "        code = stop.code\n"
        "    assert not code, code\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pandas', 'scipy', 'sklearn', 'PIL', 'pydantic', 'yaml', 'jinja2', 'transformers'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
