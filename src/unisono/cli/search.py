"""``unisono search IDX --text "..." -k 10``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unisono.cli import common
from unisono.core.errors import UserError

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("index", type=Path, metavar="IDX", help="an index's folder")
    for word, what in (("text", "what the only text column would say"), ("image", "a picture"), ("audio", "a sound")):
        parser.add_argument(f"--{word}", metavar=word.upper(), action="append", help=f"{what} (repeatable: several examples)")
    parser.add_argument("--row", metavar="KEY", action="append", help="a row of the index, to find more like it (repeatable)")
    parser.add_argument("--query", metavar="COLUMN=VALUE", action="append", default=[], help="a value or a file of any column (repeatable)")
    parser.add_argument("--minus", metavar="COLUMN=VALUE", action="append", default=[], help="a value to look away from; row=KEY for a row")
    parser.add_argument("--weight", metavar="NAME=W", action="append", default=[], help="the weight of a part: a column, text, image, ...")
    parser.add_argument("--to", metavar="SOURCE", help="the side that is searched (default: row)")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many hits (default 10)")
    parser.add_argument("--where", metavar="FILTER", help='only rows that satisfy this, such as "price < 20"')
    parser.add_argument("--exact", action="store_true", help="search exactly, also where the index could search approximately")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the model that made the index (default: the folder that it records)")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search, and show what was found."""
    common.show_notes(arguments.quiet)
    short = {word: getattr(arguments, word) for word in ("text", "image", "audio")}
    query, minus = (_parts(getattr(arguments, name), name) for name in ("query", "minus"))
    hits = _open(arguments, by_row=not any(short.values()) and not query and all("row" in part for part in minus)).search(
        **short,
        row=arguments.row,
        query=query,
        minus=minus,
        weights=_weights(arguments.weight),
        to=arguments.to,
        k=arguments.k,
        where=arguments.where,
        exact=arguments.exact,
    )
    if arguments.json:
        common.print_json(hits.to_json())
    else:
        show(hits.to_json())
    return 0


def _open(arguments: argparse.Namespace, *, by_row: bool) -> Any:
    """The index, with its model where the query needs one."""
    from unisono.api import open_index
    from unisono.retrieve.index import Index

    return Index(arguments.index) if by_row and arguments.model is None else open_index(arguments.index, arguments.model)


def _parts(given: Sequence[str], option: str) -> list[dict[str, str]]:
    found = []
    for entry in given:
        name, sign, value = entry.partition("=")
        if not sign or not name:
            raise UserError(f"--{option} {entry}: expected COLUMN=VALUE")
        found.append({name: value})
    return found


def _weights(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for name, value in common.pairs(given, "weight").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"--weight {name}={value}: {value!r} is no number") from None
    return found


def show(found: dict[str, Any]) -> None:
    """Hits as a table, with the first fields."""
    hits = found["hits"]
    names = [n for n in (hits[0]["fields"] if hits else {}) if any(h["fields"][n] != h["key"] for h in hits)][:_SHOWN]
    rows = [[str(h["rank"]), str(h["key"]), f"{h['score']:.4f}", *(_cell(h["fields"][n]) for n in names)] for h in hits]
    common.print_table(rows, ["rank", "key", "score", *names], {1: 24})
    query = found["query"]
    if query["without_vector"]:
        print(f"({query['without_vector']} rows have nothing on the side {query['to']!r} and were not searched)")
    if not rows:
        print("no row was left to search")


def _cell(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return f"{value['bytes']:,} bytes"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
