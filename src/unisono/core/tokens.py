"""The unified tensor: every modality's cells as one packed sequence of tokens.

Letters: B samples, C columns, T tokens, D width, E edges.

There is no padding and no keep mask anywhere. A missing cell is simply no tokens. The physical order of tokens carries no meaning;
modules take ``(values, plan)`` and never sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unisono.core.errors import ShapeError


@dataclass(frozen=True)
class Meta:
    """What is known of each token besides its value; built on the host, before any value exists.

    Attributes:
        sample: (T,) int64, the row of the batch a token belongs to, 0..B-1.
        column: (T,) int64, index of the column in the schema; inserted tokens have -1, -2, ... by the order of insertion.
        item: (T,) int64, place in a list cell, 0 for a single value.
        source: (T,) int64, index of the source; -1 for inserted tokens.
        modality: (T,) int64, 0..num_modalities-1; inserted tokens have ``num_modalities``.
        level: (T,) int64, scale; 0 is the finest.
        place: (T, 3) int64, grid place within the cell at that level; -1 where an axis is absent.
        coords: (T, 3) float32, metric x, y, z; NaN where none.
        time: (T,) float32, seconds; NaN where none.
        num_samples: B, counting samples without any token.
        num_modalities: number of the model's modalities, inserted tokens not counted.
        edges: (2, E) int64 token indices (from, to) of graph cells, or None.
        edge_values: (E, De) float32, or None.
        node: (T,) int64, number of the node in its graph, -1 for tokens of no graph; None when there is no graph.
        task: (T,) int64, the task a token works for after a fork by task, -1 for all; None before one.
    """

    sample: Tensor
    column: Tensor
    item: Tensor
    source: Tensor
    modality: Tensor
    level: Tensor
    place: Tensor
    coords: Tensor
    time: Tensor
    num_samples: int
    num_modalities: int
    edges: Tensor | None = None
    edge_values: Tensor | None = None
    node: Tensor | None = None
    task: Tensor | None = None

    def __len__(self) -> int:
        return int(self.sample.shape[0])

    def select(self, index: Tensor) -> Meta:
        """The tokens at ``index`` (T',), in that order; edges whose ends are not both kept are dropped.

        Raises:
            ShapeError: the index is no vector of whole numbers.
        """
        if index.dim() != 1 or index.dtype != torch.int64:
            raise ShapeError(f"an index of tokens is an int64 vector, got {index.dtype} of shape {tuple(index.shape)}")
        edges, edge_values = self.edges, self.edge_values
        if edges is not None:
            back = torch.full((len(self),), -1, dtype=torch.int64)
            back[index] = torch.arange(len(index))
            moved = back[edges]
            keep = (moved >= 0).all(0)
            edges = moved[:, keep]
            edge_values = edge_values[keep] if edge_values is not None else None
        fields: dict[str, Any] = {name: getattr(self, name)[index] for name in _PER_TOKEN if getattr(self, name) is not None}
        return replace(self, **fields, edges=edges, edge_values=edge_values)

    @property
    def groups(self) -> Tensor:
        """(T,) what may ever mix: the sample, and after a fork by task the sample and the task."""
        if self.task is None:
            return self.sample
        return self.sample * (int(self.task.max()) + 2 if len(self) else 1) + self.task + 1


_PER_TOKEN = ("sample", "column", "item", "source", "modality", "level", "place", "coords", "time", "node", "task")


def concatenate(metas: Sequence[Meta]) -> Meta:
    """Put several sets of tokens of the same batch one behind the other; edges move along."""
    fields: dict[str, Any] = {name: _joined(metas, name) for name in _PER_TOKEN}
    offset, edges, values = 0, [], []
    width = max((m.edge_values.shape[1] for m in metas if m.edge_values is not None), default=0)
    for m in metas:
        if m.edges is not None:
            edges.append(m.edges + offset)
            given = m.edge_values if m.edge_values is not None else torch.zeros(m.edges.shape[1], 0)
            values.append(torch.nn.functional.pad(given, (0, width - given.shape[1])))
        offset += len(m)
    return replace(
        metas[0],
        **fields,
        num_samples=metas[0].num_samples,
        num_modalities=metas[0].num_modalities,
        edges=torch.cat(edges, 1) if edges else None,
        edge_values=torch.cat(values) if edges and width else None,
    )


def _joined(metas: Sequence[Meta], name: str) -> Tensor | None:
    """One field of all; where only some have it, -1 stands for the others."""
    found = [getattr(m, name) for m in metas]
    if all(f is None for f in found):
        return None
    return torch.cat([f if f is not None else torch.full((len(m),), -1) for f, m in zip(found, metas, strict=True)])


@dataclass(frozen=True)
class Tokens:
    """The unified tensor: values (T, D) and what is known of each token."""

    values: Tensor
    meta: Meta

    def __post_init__(self) -> None:
        if self.values.shape[0] != len(self.meta):
            raise ShapeError(f"{self.values.shape[0]} token values, but {len(self.meta)} tokens are described")

    def with_values(self, values: Tensor) -> Tokens:
        """The same tokens with other values."""
        return Tokens(values, self.meta)
