"""Made-up tokens to compare two trunks on, and a clock that runs them in turn.

Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from unisono.core.schema import AXES, SCALARS, Column, Schema
from unisono.core.tokens import Meta, concatenate

#: Tokens along each axis of a grid, by the number of axes.
_SIDES = {0: (), 1: (8,), 2: (4, 4), 3: (2, 3, 3)}
#: Tokens of a cell without a grid that is more than one value.
_UNORDERED = 6
#: The share of cells that are missing.
_MISSING = 0.2


def made_up(schema: Schema, *, rows: int = 64, edge_values: int = 0, seed: int = 0) -> Meta:
    """Tokens of rows with every column of a schema, a fifth of the cells missing and the last row empty.

    Args:
        schema: the columns.
        rows: B.
        edge_values: numbers that an edge of a graph carries.
        seed: of the missing cells.
    """
    rng = np.random.default_rng(seed)
    parts = [
        _cell(schema, column, row, rows, edge_values)
        for row in range(rows - 1)
        for column in schema.columns
        if rng.random() >= _MISSING or len(schema.columns) == 1
    ]
    return concatenate(parts) if parts else _cell(schema, schema.columns[0], 0, rows, edge_values)


def _cell(schema: Schema, column: Column, row: int, rows: int, edge_values: int) -> Meta:
    sides = _SIDES[len(AXES.get(column.modality, ()))]
    tokens = 1 if column.modality in SCALARS else int(np.prod(sides)) if sides else _UNORDERED
    place = torch.full((tokens, 3), -1)
    if sides:
        place[:, : len(sides)] = torch.from_numpy(np.stack(np.unravel_index(np.arange(tokens), sides), 1))
    numbers = (row, column.index, 0, schema.sources.index(column.source), schema.modalities.index(column.modality), 0)
    sample, index, item, source, modality, level = (torch.full((tokens,), v) for v in numbers)
    seconds = 0.5 * place[:, 0].float() if "time" in AXES.get(column.modality, ()) else torch.full((tokens,), torch.nan)
    meta = Meta(
        sample, index, item, source, modality, level, place, torch.full((tokens, 3), torch.nan), seconds, rows, len(schema.modalities)
    )
    if column.modality != "graph":
        return meta
    ring = torch.stack([torch.arange(tokens), (torch.arange(tokens) + 1) % tokens])
    values = torch.sin(torch.arange(tokens * edge_values, dtype=torch.float32)).view(tokens, edge_values) if edge_values else None
    return replace(meta, edges=ring, edge_values=values, node=torch.arange(tokens))


def random_values(meta: Meta, width: int, seed: int = 0) -> Tensor:
    """(T, D) values with a mean that is not zero."""
    return 0.5 + torch.randn(len(meta), width, generator=torch.Generator().manual_seed(seed))


def fastest(runs: Sequence[Callable[[], object]], *, repeats: int = 7) -> list[float]:
    """The milliseconds of each run, taken in turn so that a busy machine is busy for all: the shortest of ``repeats``, after a first."""
    best = [float("inf")] * len(runs)
    for turn in range(repeats + 1):
        for k, run in enumerate(runs):
            begin = time.perf_counter()
            run()
            if turn:
                best[k] = min(best[k], 1000 * (time.perf_counter() - begin))
    return best
