"""Helpers of the contracts over tokenisers: fit one on its modality's example column, pack it, compare rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from tests.examples import ROWS, canonical, column_of, decoded
from unisono.contracts.same import same
from unisono.core.draw import Draw
from unisono.core.schema import Column
from unisono.modalities.base import (
    Cells,
    Context,
    Packed,
    Tokeniser,
    modalities,
    tokenisers,
)

__all__ = ["NEEDS", "WIDTH", "Case", "blank", "by_row", "case_of", "cases", "draw_of", "same", "values_of"]

WIDTH = 8


@dataclass
class Case:
    """One tokeniser on one of the modalities it reads."""

    name: str
    word: str
    tokeniser: Tokeniser
    columns: tuple[Column, ...]
    cells: dict[str, Cells]

    def module(self, seed: int = 0) -> nn.Module:
        """The weights, in evaluation mode, none of them left at a special value such as zero."""
        torch.manual_seed(seed)
        module = self.tokeniser.module(self.columns, WIDTH).eval()
        with torch.no_grad():
            for p in module.parameters():
                if p.is_floating_point() and p.numel() and bool((p == p.flatten()[0]).all()):
                    p.add_(0.1 * torch.randn_like(p))
        return module

    def pack(self, cells: Mapping[str, Cells] | None = None, draw: Draw | None = None) -> Packed:
        """The tokens of all rows, or of other cells."""
        return self.tokeniser.pack(self.columns, self.cells if cells is None else cells, draw)

    def rows(self, rows: Sequence[int]) -> dict[str, Cells]:
        """The cells of some rows, in this order."""
        return {name: _take(c, rows) for name, c in self.cells.items()}


def _take(cells: Cells, rows: Sequence[int]) -> Cells:
    return cells[np.array(rows, np.int64)] if isinstance(cells, np.ndarray) else [cells[k] for k in rows]


def case_of(name: str, word: str) -> Case:
    """A fitted tokeniser; a joint one reads two columns, the second the reverse of the first."""
    tokeniser = tokenisers.build(name)
    columns = [column_of(word)]
    cells: dict[str, Cells] = {word: decoded(word)}
    if tokeniser.joint:
        columns.append(column_of(word, 1, f"{word} too"))
        cells[f"{word} too"] = decoded(word, canonical(word)[::-1], columns[1])
    columns = [replace(c, statistics=tokeniser.fit(c, [cells[c.name]])) for c in columns]
    wanted = {c.name: Context(None, tokeniser.wants(c)) for c in columns}
    arrays = {c.name: canonical(word) if k == 0 else canonical(word)[::-1] for k, c in enumerate(columns)}
    again = {c.name: modalities.build(word).decode_many(arrays[c.name], c, wanted[c.name]).cells for c in columns}
    return Case(name, word, tokeniser, tuple(columns), again)


def cases() -> list[tuple[str, str]]:
    """Every tokeniser with each modality it reads."""
    return [(name, word) for name, entry in tokenisers.entries.items() for word in sorted(entry.target.reads) if name not in NEEDS]  # type: ignore[attr-defined]


#: Tokenisers that cannot be built from defaults, and where they are tested instead.
NEEDS = {
    "hf": "tests/modalities/test_frozen.py: needs a model folder",
    "given": "tests/modalities/test_frozen.py: needs a module given in Python",
}


def values_of(module: nn.Module, packed: Packed) -> Tensor:
    """The token values, without gradient."""
    with torch.no_grad():
        result: Tensor = module(packed)
    return result


def by_row(packed: Packed, values: Tensor, row: int) -> list[Tensor]:
    """What is known of one row's tokens: values, column, item, place, coords, time, level; in the pack's order."""
    at = packed.sample == row
    return [values[at], packed.column[at], packed.item[at], packed.place[at], packed.coords[at], packed.time[at], packed.level[at]]


def blank(cells: Cells, rows: Sequence[int]) -> Cells:
    """The cells with those of some rows missing."""
    changed = copy.copy(cells)
    for row in rows:
        changed[row] = np.nan if isinstance(changed, np.ndarray) and changed.dtype.kind == "f" else None
    return changed


def draw_of(rows: Sequence[int] = range(ROWS), epoch: int = 0, seed: int = 5) -> Draw:
    """The random numbers of some rows."""
    return Draw(seed, epoch, np.array(rows, np.int64))
