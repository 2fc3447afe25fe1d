"""Measuring a model: metrics of every target, and what they become when sources are missing.

Letters: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unisono.core.schema import Schema
from unisono.model.scoring import Scored, batches_of, score
from unisono.network import Network
from unisono.table.batching import Assembler
from unisono.table.store import Store
from unisono.tasks.base import to_json
from unisono.tasks.missing import subsets

Encoded = Mapping[str, tuple[NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Evaluator:
    """A network with the rows it is measured on.

    Attributes:
        network: the model.
        schema: with calibrated targets.
        assembler: packs batches.
        store: decoded cells.
        targets: target -> (encoded values, present) of every row of the table.
        device: where the network is.
        bf16: multiply matrices in bfloat16.
    """

    network: Network
    schema: Schema
    assembler: Assembler
    store: Store
    targets: Encoded
    device: torch.device
    bf16: bool = False

    def scored(self, rows: NDArray[np.int64], only: Sequence[str] | None = None) -> Scored:
        """Scores of some rows, all sources or only some of them given."""
        return score(self.network, batches_of(self.assembler, self.store, rows, only), device=self.device, bf16=self.bf16)

    def metrics(self, scored: Scored, rows: NDArray[np.int64]) -> dict[str, dict[str, float | None]]:
        """Target -> metric -> value."""
        found: dict[str, dict[str, float | None]] = {}
        for target in self.schema.targets:
            values, present = self.targets[target.name]
            task = self.network.tasks[target.name]
            found[target.name] = to_json(task.metrics(scored.scores[target.name], values[rows], present[rows], target.statistics))
        return found

    def intervals(self, scored: Scored, rows: NDArray[np.int64], seed: int = 0) -> dict[str, dict[str, tuple[float, float]]]:
        """Target -> metric -> 95 % bootstrap interval over rows."""
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for target in self.schema.targets:
            values, present = self.targets[target.name]
            task = self.network.tasks[target.name]
            found[target.name] = task.intervals(scored.scores[target.name], values[rows], present[rows], target.statistics, seed=seed)
        return found

    def missing(self, rows: NDArray[np.int64], done: Callable[[int, int], None] | None = None) -> list[dict[str, Any]]:
        """Metrics for every subset of sources that ``subsets`` lists: ``[{"present": [...], "targets": {...}}, ...]``."""
        wanted = subsets(self.schema.sources)
        rows_found: list[dict[str, Any]] = []
        for number, present in enumerate(wanted):
            scored = self.scored(rows, present)
            rows_found.append({"present": list(present), "targets": self.metrics(scored, rows)})
            if done is not None:
                done(number + 1, len(wanted))
        return rows_found

    def figures(self, scored: Scored, rows: NDArray[np.int64]) -> dict[str, Any]:
        """How many rows, and every target's metrics on them."""
        return {"rows": len(rows), "targets": self.metrics(scored, rows)}

    def report(self, rows: NDArray[np.int64], *, missing: bool = True) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints.

        Args:
            rows: to measure on.
            missing: also measure every subset of sources; without it the list is empty.
        """
        return {**self.figures(self.scored(rows), rows), "missing": self.missing(rows) if missing else []}
