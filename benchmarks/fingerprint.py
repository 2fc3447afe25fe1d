"""What a figure depends on: the code that ran, the files it read, and the machine, each as a hash or a description."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import os
import platform
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = (ROOT / "src", ROOT)  # where modules of the project lie
PACKAGES = ("unisono", "benchmarks")
MODULE = re.compile(r"(unisono|benchmarks)(\.[a-z_][a-z0-9_]*)+")
HARNESS = ("benchmarks.record", "benchmarks.fingerprint")  # how a figure is kept does not change the figure
FLAGS = ("avx2", "avx512f", "amx_bf16", "amx_int8", "asimd", "sve")


def text_hash(*parts: str) -> str:
    """Hash words, each set apart from the next."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:20]


@functools.cache
def file_hash(path: Path) -> str:
    """Hash a file's bytes; where it lies does not count."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:20]


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _file(module: str) -> Path | None:
    if module.split(".", maxsplit=1)[0] not in PACKAGES:
        return None
    for place in PLACES:
        stem = place.joinpath(*module.split("."))
        for path in (stem / "__init__.py", stem.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def _names(module: str, path: Path, tree: ast.Module) -> Iterator[str]:
    """Every module that a module's code may import; a package named in a string, as registries do, brings all of its modules."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = _file(node.value) if MODULE.fullmatch(node.value) else None
            if named is not None:
                yield node.value
                if named.name == "__init__.py":
                    yield from (".".join([node.value, *_dotted(p, named.parent)]) for p in sorted(named.parent.rglob("*.py")))


def _dotted(path: Path, folder: Path) -> list[str]:
    parts = list(path.relative_to(folder).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def _parsed(path: Path) -> tuple[ast.Module, str]:
    text = path.read_text("utf-8")
    return ast.parse(text), text_hash(_without_docstrings(ast.parse(text)))


def modules_of(module: str) -> dict[str, Path]:
    """Every module of the project that one imports, directly or not, itself included."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found or name in HARNESS:
            continue
        found[name] = path
        parents = [name.rsplit(".", k)[0] for k in range(1, name.count(".") + 1)]
        waiting += [*parents, *_names(name, path, _parsed(path)[0])]
    return dict(sorted(found.items()))


def function_hash(function: Callable[..., object]) -> str:
    """Hash one function's code, its decorators left out: a goal that is stated anew changes no figure."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    if isinstance(tree, ast.FunctionDef):
        tree.decorator_list = []
    return text_hash(_without_docstrings(ast.Module([tree], [])))


@functools.cache
def code_hash(*modules: str) -> str:
    """Hash the code that modules import, without comments and docstrings, and the recipes beside it."""
    found = {name: path for module in modules for name, path in modules_of(module).items()}
    found = dict(sorted(found.items()))
    parts = [part for name, path in found.items() for part in (name, _parsed(path)[1])]
    for folder in sorted({p.parent for n, p in found.items() if n.startswith("unisono")}):
        parts += [part for p in sorted(folder.rglob("*.yaml")) for part in (p.name, file_hash(p))]
    return text_hash(*parts)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def commit() -> str:
    """The commit that is checked out, with ``+`` where files other than results differ from it; ``unknown`` outside a repository."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")


@functools.cache
def machine() -> str:
    """Describe processor, cores, memory and versions; never the name of the machine or a path."""
    from importlib.metadata import version

    model, flags = platform.machine(), set[str]()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() in {"flags", "Features"}:
                flags |= set(value.split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30) if hasattr(os, "sysconf") else 0
    parts = [model, *(f for f in FLAGS if f in flags), f"{cores} cores", f"{memory} GiB"]
    parts += [platform.system(), f"Python {platform.python_version()}", f"torch {version('torch')}"]
    return ", ".join(parts)
