"""Arguments that several verbs share, and how results are shown."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unisono.core.errors import UserError


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Arguments on how a table is read."""
    parser.add_argument("--null", metavar="WORD", action="append", default=[], help="a word that means null (repeatable)")
    parser.add_argument("--encoding", default="utf-8", metavar="E", help="encoding of text files (default utf-8)")
    parser.add_argument("--media-root", type=Path, metavar="DIR", help="folder that media paths are relative to (default: the table's own)")


def add_bad_cells(parser: argparse.ArgumentParser) -> None:
    """What to do with cells that cannot be read."""
    parser.add_argument(
        "--bad-cells",
        choices=("fail", "missing"),
        default="fail",
        help="stop at the first unreadable cell (default), or count it as missing",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """How results and notes are shown."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no notes and no bar")


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``add_reading``."""
    return {"null_words": tuple(arguments.null), "encoding": arguments.encoding, "media_root": arguments.media_root}


def show_notes(quiet: bool) -> None:
    """Send the package's notes to stderr."""
    logger = logging.getLogger("unisono")
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    logger.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` arguments as a mapping.

    Raises:
        UserError: one has no ``=``.
    """
    found: dict[str, str] = {}
    for entry in given:
        name, sign, value = entry.rpartition("=")
        if not sign or not name:
            raise UserError(f"--{option} {entry}: expected NAME=VALUE")
        found[name] = value
    return found


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str], widths: Mapping[int, int] | None = None) -> None:
    """Aligned columns on stdout; cells longer than their column's largest width are cut."""
    cut = [[_cut(str(c), (widths or {}).get(k, 60)) for k, c in enumerate(row)] for row in [header, *rows]]
    wide = [max(len(row[k]) for row in cut) for k in range(len(header))]
    for number, row in enumerate(cut):
        print("  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * w for w in wide))


def _cut(text: str, width: int) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= width else text[: width - 1] + "…"


def figure(value: float | None) -> str:
    """A metric for a person."""
    return "–" if value is None else f"{value:.4f}"
