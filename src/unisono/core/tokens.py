"""The unified tensor: every modality's cells as one packed sequence of tokens.

Letters: B samples, C columns, T tokens, D width, E edges.

There is no padding and no keep mask anywhere. A missing cell is simply no tokens. The physical order of tokens carries no meaning;
modules take ``(values, plan)`` and never sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        fields = {name: getattr(self, name)[index] for name in _PER_TOKEN}
        return replace(self, **fields, edges=edges, edge_values=edge_values)

    def to(self, device: torch.device) -> Meta:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _PER_TOKEN}
        edges = self.edges.to(device) if self.edges is not None else None
        edge_values = self.edge_values.to(device) if self.edge_values is not None else None
        return replace(self, **moved, edges=edges, edge_values=edge_values)


_PER_TOKEN = ("sample", "column", "item", "source", "modality", "level", "place", "coords", "time")


def concatenate(metas: Sequence[Meta]) -> Meta:
    """Put several sets of tokens of the same batch one behind the other; edges move along."""
    fields = {name: torch.cat([getattr(m, name) for m in metas]) for name in _PER_TOKEN}
    offset, edges, values = 0, [], []
    width = max((m.edge_values.shape[1] for m in metas if m.edge_values is not None), default=0)
    for m in metas:
        if m.edges is not None:
            edges.append(m.edges + offset)
            given = m.edge_values if m.edge_values is not None else torch.zeros(m.edges.shape[1], 0)
            values.append(torch.nn.functional.pad(given, (0, width - given.shape[1])))
        offset += len(m)
    return Meta(
        **fields,
        num_samples=metas[0].num_samples,
        num_modalities=metas[0].num_modalities,
        edges=torch.cat(edges, 1) if edges else None,
        edge_values=torch.cat(values) if edges and width else None,
    )


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
