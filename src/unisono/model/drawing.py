"""Draw a recipe's trunk for a sample row: a table's first, or one of a made-up world with what the recipe needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from unisono.core.errors import UserError
from unisono.core.schema import MODALITIES
from unisono.data import shapes
from unisono.model.options import FitOptions
from unisono.model.prepare import check_names, prepare
from unisono.network import Network
from unisono.recipe import Recipe
from unisono.report.trunk import trunk_page
from unisono.table.batching import Assembler
from unisono.table.cache import TableCache
from unisono.table.read import open_table

#: A drawing of more tokens cannot be read.
MOST_TOKENS = 3000
_ROWS, _SIDE = 40, 64
#: Modality -> the column of the shapes world that shows it.
_SHOWN = {
    "text": "caption", "image": "image", "audio": "sound", "video": "video", "series": "series", "points": "points", "graph": "graph",
}  # fmt: skip
_SCALARS = {"number": "weight", "category": "material", "boolean": "fragile", "datetime": "made"}
_TARGETS = {"shape": "category", "count": "number"}
_USUAL = ("text", "image", "audio")


def draw_recipe(recipe: Recipe, table: Any = None, options: FitOptions | None = None) -> str:
    """The page.

    Args:
        recipe: what to draw.
        table: whatever ``open_table`` reads; None for a made-up row.
        options: targets and how the table is read; needed with a table.

    Raises:
        UserError: the recipe does not fit the table, or the row has too many tokens to be drawn.
    """
    made = table is None
    if made:
        needed = modalities_of(recipe)
        table, columns = sample_table(needed)
        options = FitOptions(targets=dict(_TARGETS) if "by task" in _named(recipe["trunk"]) else {"shape": "category"}, columns=columns)
    assert options is not None
    with TemporaryDirectory(prefix="unisono-draw-") as folder:
        source = open_table(table, null_words=options.null_words, encoding=options.encoding, media_root=options.media_root)
        check_names(options, source.schema.names, source.name)
        prepared = prepare(TableCache.write(source, Path(folder)), recipe, options, source.hints)
        network = Network(recipe=recipe, schema=prepared.schema).eval()
        rows = np.array([0], np.int64)
        meta = Assembler(prepared.schema, network.groups, network.trunk).assemble(rows, prepared.store.cells(rows), {}).plan.meta
    if len(meta) > MOST_TOKENS:
        raise UserError(f"the first row has {len(meta):,} tokens, and a drawing of more than {MOST_TOKENS:,} cannot be read")
    heads = ", ".join(f"{t.name} ({t.task})" for t in prepared.schema.targets)
    return trunk_page(
        network.trunk,
        recipe.settings,
        meta,
        network.trunk.frame.names,
        name=Path(recipe.name).stem,
        recipe=recipe.to_yaml(),
        end=f"{network.width} numbers {'for each target' if network.trunk.forks else 'a row'}, from which the heads predict {heads}",
        about="Drawn for a row of a made-up world of scenes." if made else f"Drawn for the first row of {source.name}.",
    )


def modalities_of(recipe: Recipe) -> list[str]:
    """The modalities that a recipe needs or names."""
    given = recipe.settings.get("needs") or []
    found = set([given] if isinstance(given, str) else map(str, given))
    found |= set(_named(recipe.settings.get("trunk", [])))
    return [word for word in MODALITIES if word in found]


def _named(steps: Any) -> Iterator[str]:
    """What steps, branches and scopes select tokens by, and what forks are by."""
    for step in steps if isinstance(steps, list) else ():
        if not isinstance(step, Mapping):
            continue
        on = step.get("on", ())
        yield from map(str, [on] if isinstance(on, str) else on)
        for sides in re.findall(r"cross\((.*?)\)", str(step.get("scope", ""))):
            yield from re.findall(r"\w+", sides)
        fork = step.get("fork")
        branches = fork.get("branches") or {} if isinstance(fork, Mapping) else {}
        yield f"by {fork.get('by') if isinstance(fork, Mapping) else fork}"
        for name, inner in branches.items():
            yield str(name)
            yield from _named(inner)
        yield from _named(step.get("each"))


def sample_table(needed: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """A small table with columns of the modalities needed, and the modality of each.

    The row that is drawn comes first: the one whose caption is shortest among those with most to see in its graph.
    """
    media = [word for word in needed if word not in _SCALARS] or list(_USUAL)
    for word in ("text", "image"):
        if len(media) < 2 and word not in media:
            media.append(word)
    columns = {_SHOWN[word]: word for word in MODALITIES if word in media and word in _SHOWN}
    scalars = {_SCALARS[word]: word for word in dict.fromkeys(["number", "category", *(w for w in needed if w in _SCALARS)])}
    table = shapes(_ROWS, columns=[*scalars, *columns, *_TARGETS], size=_SIDE, noise=0.0)
    for word in media:
        if word not in _SHOWN:
            table = table.append_column(word, _numbers(word))
            columns[word] = word
    table = table.append_column("chosen", pa.array(_interest(table)))
    return table.sort_by([("chosen", "descending")]).drop_columns(["chosen"]), {**scalars, **columns}


def _interest(table: pa.Table) -> list[float]:
    """How well each row suits a drawing: four or five things, told in few words."""
    things = np.array(table["count"].to_pylist(), np.float64)
    words = [len(c.split()) for c in table["caption"].to_pylist()] if "caption" in table.column_names else [0] * table.num_rows
    graph = "graph" in table.column_names
    return [float((10 * min(n, 5) if graph else 0) - w) for n, w in zip(things, words, strict=True)]


def _numbers(word: str) -> pa.Array:
    """Cells of what the shapes world does not show."""
    rng = np.random.default_rng(0)
    if word == "sequence":
        return pa.array(["".join(rng.choice(list("ACGT"), 48)) for _ in range(_ROWS)])
    shape = (8, 8, 6) if word == "cube" else (12,)
    return pa.array([rng.normal(size=shape).round(3).tolist() for _ in range(_ROWS)])
