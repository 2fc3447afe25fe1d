"""What a recipe costs for given columns: parameters, tokens and multiplications a row, time a row.

Letters: B rows of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from unisono.model.options import FitOptions
from unisono.model.prepare import check_names, prepare
from unisono.network import Network
from unisono.recipe import Recipe
from unisono.table.batching import Assembler, Batch
from unisono.table.cache import TableCache
from unisono.table.read import open_table

_ROWS = 64


@dataclass(frozen=True)
class Cost:
    """What a recipe costs.

    Attributes:
        parameters: part -> number of parameters (``tokenisers``, ``columns``, ``trunk``, ``heads``, ``wide``, ``alone``, ``total``).
        tokens: mean number of tokens a row.
        multiplications: multiply-adds a row of one forward pass.
        milliseconds: forward time a row, in batches of 64 in evaluation, on this machine.
    """

    parameters: Mapping[str, int]
    tokens: float
    multiplications: float
    milliseconds: float


def cost_of(recipe: Recipe, data: Any, targets: Mapping[str, str | None], reading: Mapping[str, Any]) -> Cost:
    """Build a recipe's network for a table's columns and measure it on its first rows; nothing is trained.

    Raises:
        UserError: the table cannot be read, or does not fit the recipe.
    """
    options = FitOptions(targets=targets, bad_cells="missing", **reading)
    with TemporaryDirectory(prefix="unisono-") as folder:
        source = open_table(data, null_words=options.null_words, encoding=options.encoding, media_root=options.media_root)
        check_names(options, source.schema.names, source.name)
        prepared = prepare(TableCache.write(source, Path(folder)), recipe, options, source.hints)
        network = Network(recipe=recipe, schema=prepared.schema).eval()
        rows = prepared.split.train[:_ROWS]
        batch = Assembler(prepared.schema, network.groups, network.trunk).assemble(rows, prepared.store.cells(rows), {})
    return measure(network, batch)


def measure(network: Network, batch: Batch) -> Cost:
    """Count and time one forward pass."""
    parts = {
        "tokenisers": network.tokenisers,
        "columns": network.column,
        "trunk": network.trunk,
        "heads": network.heads,
        "wide": network.wide,
        "alone": network.alone,
    }
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    parameters["total"] = sum(p.numel() for p in network.parameters())
    rows = len(batch.rows)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(batch)
        begin = time.perf_counter()
        for _ in range(3):
            network(batch)
        seconds = (time.perf_counter() - begin) / 3
    return Cost(parameters, batch.num_tokens / rows, counter.get_total_flops() / 2 / rows, 1000 * seconds / rows)
