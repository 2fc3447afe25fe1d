"""No private name crosses from one package into another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "unisono"


def crossings(path: str, tree: ast.Module) -> Iterator[str]:
    """Every import of a private name or module of another package of unisono."""
    here = path.split("/", maxsplit=1)[0].removesuffix(".py")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unisono."):
            parts = (node.module or "").split(".")
            private = [n for n in [*parts, *(a.name for a in node.names)] if n.startswith("_") and not n.startswith("__")]
            if parts[1] != here and private:
                yield f"{path}:{node.lineno} {node.module}: {private}"


def test_no_private_name_crosses_a_package() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 50
    found = [c for p in paths for c in crossings(p.relative_to(PACKAGE).as_posix(), ast.parse(p.read_text("utf-8")))]
    assert not found


@pytest.mark.parametrize(("path", "count"), [("nn/norm.py", 1), ("core/words.py", 0)])
def test_the_check_sees_a_crossing(path: str, count: int) -> None:
    assert len(list(crossings(path, ast.parse("from unisono.core.words import _split")))) == count
