"""From decoded cells to a batch: drop sources, pack every group, order the tokens, plan the trunk.

Letters: B rows, S sources, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.draw import Draw
from unisono.core.plan import Plan
from unisono.core.schema import MODALITIES, Schema
from unisono.core.tokens import Meta, concatenate
from unisono.modalities.base import Cells, Packed
from unisono.modalities.groups import Group


@dataclass
class Batch:
    """B rows, ready for the network.

    Attributes:
        rows: (B,) row indices in the table.
        packed: group name -> its packed tokens.
        order: (T,) from the groups one behind the other to the physical order of the tokens.
        plan: the trunk's plan; its ``meta`` is in physical order.
        targets: target name -> ((B,) or (B, L) encoded values, (B,) bool present).
        epoch: the epoch whose random numbers shaped it; -1 in evaluation.
    """

    rows: NDArray[np.int64]
    packed: dict[str, Packed]
    order: Tensor
    plan: Plan
    targets: dict[str, tuple[Tensor, Tensor]]
    epoch: int = -1

    @property
    def num_tokens(self) -> int:
        """T."""
        return int(self.order.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        if device.type == "cpu":
            return self
        packed = {
            name: replace(p, inputs={k: v.to(device, non_blocking=True) for k, v in p.inputs.items()}) for name, p in self.packed.items()
        }
        targets = {name: (v.to(device), p.to(device)) for name, (v, p) in self.targets.items()}
        return Batch(self.rows, packed, self.order.to(device), self.plan.to(device), targets, self.epoch)


@dataclass(frozen=True)
class SourceDropout:
    """Which sources training hides from a row, so that any subset of columns works at prediction time.

    With probability ``rate`` a row keeps a random non-empty subset of its present sources, each source kept with a probability that is
    itself drawn uniformly for the row, so that single sources and nearly complete rows both occur; otherwise the row is left whole.
    """

    rate: float

    def keep(self, present_BS: NDArray[np.bool_], draw: Draw) -> NDArray[np.bool_]:
        """What is left of the present sources (B, S); never nothing where there was something."""
        sources = present_BS.shape[1]
        u = draw.uniform("source dropout", sources + 2)
        kept = present_BS & (u[:, 2:] < u[:, 1:2])
        survivor = np.where(present_BS, u[:, 2:], 2.0).argmin(1)
        nothing = ~kept.any(1) & present_BS.any(1)
        kept[nothing, survivor[nothing]] = True
        return np.where(u[:, :1] < self.rate, kept, present_BS)


def present_cells(cells: Cells) -> NDArray[np.bool_]:
    """(B,) whether each decoded cell is there."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "f":
        return ~np.isnan(cells)
    return np.fromiter((c is not None for c in cells), np.bool_, len(cells))


def hide_cells(cells: Cells, keep: NDArray[np.bool_]) -> Cells:
    """The cells with those not kept missing."""
    if isinstance(cells, np.ndarray):
        hidden = cells.copy()
        hidden[~keep] = np.nan if cells.dtype.kind == "f" else None
        return hidden
    return [cell if k else None for cell, k in zip(cells, keep.tolist(), strict=True)]


class Planner(Protocol):
    """What plans a batch for the trunk, from metadata alone."""

    def arrange(self, meta: Meta) -> Tensor:
        """The physical order in which the trunk likes its tokens, (T,)."""

    def plan(self, meta: Meta) -> Plan:
        """What every step needs."""


class Assembler:
    """Builds batches from decoded cells; holds no weights, so worker processes can use it.

    Args:
        schema: columns with fitted statistics.
        groups: the columns by tokeniser.
        planner: the trunk.
        dropout: source dropout for training, or None.
    """

    def __init__(self, schema: Schema, groups: Sequence[Group], planner: Planner, dropout: SourceDropout | None = None) -> None:
        self.schema, self.groups, self.planner, self.dropout = schema, tuple(groups), planner, dropout
        self.sources = schema.sources
        self.modalities = tuple(m for m in MODALITIES if m in schema.modalities)
        self._source_of = torch.tensor([self.sources.index(c.source) for c in schema.columns], dtype=torch.int64)
        self._modality_of = torch.tensor([self.modalities.index(c.modality) for c in schema.columns], dtype=torch.int64)

    def present(self, cells: Mapping[str, Cells], rows: int) -> NDArray[np.bool_]:
        """(B, S) whether each row has any cell of each source."""
        found = np.zeros((rows, len(self.sources)), np.bool_)
        for column in self.schema.columns:
            found[:, self.sources.index(column.source)] |= present_cells(cells[column.name])
        return found

    def assemble(
        self,
        rows: NDArray[np.int64],
        cells: Mapping[str, Cells],
        targets: Mapping[str, tuple[Tensor, Tensor]],
        draw: Draw | None = None,
        only: Sequence[str] | None = None,
    ) -> Batch:
        """One batch.

        Args:
            rows: (B,) row indices.
            cells: column name -> B decoded cells.
            targets: encoded targets of these rows.
            draw: the rows' random numbers in training; None in evaluation.
            only: names of the sources to look at; the others count as missing. None for all.
        """
        cells = self._hide(rows, cells, draw, only)
        packed = {g.name: g.tokeniser.pack(g.columns, {c.name: cells[c.name] for c in g.columns}, draw) for g in self.groups}
        meta = concatenate([self._meta(p, len(rows)) for p in packed.values()])
        order = self.planner.arrange(meta)
        return Batch(rows, packed, order, self.planner.plan(meta.select(order)), dict(targets), -1 if draw is None else draw.epoch)

    def _hide(
        self, rows: NDArray[np.int64], cells: Mapping[str, Cells], draw: Draw | None, only: Sequence[str] | None
    ) -> Mapping[str, Cells]:
        training = draw is not None and self.dropout is not None and self.dropout.rate > 0 and len(self.sources) > 1
        if not training and only is None:
            return cells
        keep = np.ones((len(rows), len(self.sources)), np.bool_)
        if training:
            assert draw is not None and self.dropout is not None
            keep = self.dropout.keep(self.present(cells, len(rows)), draw)
        if only is not None:
            keep &= np.isin(np.array(self.sources), np.array(list(only)))[None, :]
        return {c.name: hide_cells(cells[c.name], keep[:, self.sources.index(c.source)]) for c in self.schema.columns}

    def _meta(self, p: Packed, num_samples: int) -> Meta:
        return Meta(
            p.sample,
            p.column,
            p.item,
            self._source_of[p.column],
            self._modality_of[p.column],
            p.level,
            p.place,
            p.coords,
            p.time,
            num_samples,
            len(self.modalities),
            p.edges,
            p.edge_values,
            p.node,
        )
