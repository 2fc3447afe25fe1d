"""Find the rows: every module of this folder and its subfolders is imported, and registers what it has."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks
from benchmarks.record import Row, row


def all_rows() -> dict[str, Row]:
    """Every row by name."""
    for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return dict(sorted(row.rows.items()))
