"""Scopes with two sides, with an order, and along edges: cross-attention, causal order, neighbours in a graph.

Letters: T tokens, E edges.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unisono.core.names import Selection
from unisono.core.relation import Members, combine, ranges
from unisono.core.tokens import Meta
from unisono.nn.part import Frame
from unisono.nn.scope import BlockList, EdgeList, EdgeTable, Labels, Order, or_own_cell, own_cell, scopes


@scopes.register("cross", source="arXiv:1908.02265")
class CrossScope(BlockList):
    """``cross(a <- b)``: the tokens of ``a`` ask, those of ``b`` in the same sample answer; all others leave the layer unchanged.

    Args:
        a: names of the tokens that ask.
        b: names of the tokens that are seen.
        frame: what the names mean.
        if_any: whether a token that would see nothing leaves the layer unchanged, its feed-forward included.
    """

    def __init__(self, *, frame: Frame, a: Any, b: Any, if_any: bool = False) -> None:
        self.if_any = if_any
        self.a, self.b = Selection.of(a, frame.names, "cross"), Selection.of(b, frame.names, "cross")

    def members(self, meta: Meta) -> tuple[Members, Members]:
        """A block for each sample."""
        group = meta.groups.numpy()
        query, key = np.flatnonzero(self.a.mask(meta)), np.flatnonzero(self.b.mask(meta))
        if self.if_any:
            query = query[np.isin(group[query], group[key])]
        return Members(query, group[query]), Members(key, group[key])


@scopes.register("causal", source="arXiv:1706.03762")
class CausalScope(Order):
    """Tokens see those that are not behind them in an order.

    Args:
        by: ``place`` is the raster order within a cell, ``sequence`` columns, items and places one behind the other, ``time`` seconds,
            ``level`` coarse before fine.
    """

    def __init__(self, *, by: Literal["place", "sequence", "time", "level"] = "sequence") -> None:
        self.by = by

    def order(self, meta: Meta) -> NDArray[np.int64]:
        """(T,) ranks."""
        if self.by == "time":
            seconds = np.nan_to_num(meta.time.numpy(), nan=0.0)
            return np.unique(seconds, return_inverse=True)[1].astype(np.int64)
        if self.by == "level":
            return -meta.level.numpy()
        if self.by == "place":
            return combine(list(meta.place.numpy().T))
        column = meta.column.numpy()
        last = np.where(column < 0, column.max(initial=0) - column, column)
        return combine([last, meta.item.numpy(), *meta.place.numpy().T])

    def labels(self, meta: Meta) -> Labels:
        """Places are compared within a cell; tokens without a time stay in their own cell."""
        if self.by == "place":
            return [own_cell(meta)]
        if self.by == "time":
            absent = np.isnan(meta.time.numpy())
            return [or_own_cell(np.zeros(len(meta), np.int64), absent, meta)]
        return []


@scopes.register("neighbours", source="arXiv:2012.09699")
class NeighbourScope(EdgeList):
    """A node sees the nodes whose edges lead to it, and with ``itself`` also itself; tokens of no graph mix within their own cell.

    Args:
        itself: whether a node sees itself.
    """

    def __init__(self, *, itself: bool = False) -> None:
        self.itself = itself

    def edges(self, meta: Meta) -> EdgeTable:
        """The cells' edges, a loop for each node, and all pairs of every other cell."""
        node = np.full(len(meta), -1) if meta.node is None else meta.node.numpy()
        given = np.zeros((2, 0), np.int64) if meta.edges is None else meta.edges.numpy()
        loops = np.flatnonzero(node >= 0) if self.itself else np.zeros(0, np.int64)
        loops = loops[~np.isin(loops, given[0, given[0] == given[1]])]
        others = np.flatnonzero(node < 0)
        q, k = _all_pairs(others, own_cell(meta)[others])
        query = np.concatenate([given[1], loops, q])
        key = np.concatenate([given[0], loops, k])
        if meta.edge_values is None:
            return EdgeTable(query, key, None)
        values = meta.edge_values.numpy()
        rest = np.zeros((len(query) - len(values), values.shape[1]), np.float32)
        return EdgeTable(query, key, np.concatenate([values, rest]))


def _all_pairs(tokens: NDArray[np.int64], cell: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every ordered pair of tokens of one cell."""
    order = np.argsort(cell, kind="stable")
    tokens, cell = tokens[order], cell[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    counts = np.diff(starts, append=len(cell))
    per_token = np.repeat(counts, counts)
    return np.repeat(tokens, per_token), tokens[ranges(np.repeat(starts, counts), per_token)]
