"""Scope: who may mix with whom, as a pure function of token metadata.

A scope is one word or several joined by ``&``. A word is a partition (tokens of equal labels mix), a list of blocks, an order (a key is
seen if its order is not above the query's), or a list of edges. ``&`` is defined for partition & partition, for blocks & order (a
partition's blocks among them), and for edges & anything; every other pair is refused by name. Whatever the words, tokens of different
samples never mix, nor do those of different tasks after a fork. Tokens without the named axis mix within their own (sample, column, item).

Letters: T tokens, E edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Registry
from unisono.core.relation import Edges, Members, Orders, Relation, blocks_of, combine, edges_of, partition_members
from unisono.core.tokens import Meta
from unisono.core.words import parse_chain
from unisono.nn.part import Frame

Labels = Sequence[NDArray[np.int64]]
Mask = NDArray[np.bool_]


class Scope(ABC):
    """One word of the scope language."""

    kind: ClassVar[str]


class Partition(Scope):
    """Tokens of equal labels mix."""

    kind = "partition"

    @abstractmethod
    def labels(self, meta: Meta) -> Labels:
        """What has to be equal for two tokens to mix: one or more label vectors (T,); the sample goes without saying."""

    def wild(self, meta: Meta) -> Mask | None:
        """Tokens that join every block of their sample, or None."""
        return None


class BlockList(Scope):
    """Blocks of queries and keys that are no partition."""

    kind = "blocks"

    @abstractmethod
    def members(self, meta: Meta) -> tuple[Members, Members]:
        """Queries and keys with the block each stands in; a key may stand in several."""


class Order(Scope):
    """A key is seen if its order is not above the query's; ties see each other."""

    kind = "order"

    @abstractmethod
    def order(self, meta: Meta) -> NDArray[np.int64]:
        """(T,) the place of each token in the order."""

    def labels(self, meta: Meta) -> Labels:
        """What has to be equal besides: tokens without the ordered axis stay in their own cell."""
        return []


@dataclass(frozen=True)
class EdgeTable:
    """Pairs with their values, before they are sorted."""

    query: NDArray[np.int64]
    key: NDArray[np.int64]
    values: NDArray[np.float32] | None


class EdgeList(Scope):
    """Single pairs."""

    kind = "edges"

    @abstractmethod
    def edges(self, meta: Meta) -> EdgeTable:
        """The pairs."""


scopes: Registry[Scope] = Registry("scope", Scope, package="unisono.nn", runtime=("frame",))


class Scoping:
    """A whole scope: its words, checked and ready to relate the tokens of a batch.

    Args:
        text: words joined by ``&``.
        where: the place to name in an error.
        frame: the model around it.

    Raises:
        ConfigError: a word is unknown, or two words cannot be joined.
    """

    def __init__(self, text: str, where: str, frame: Frame) -> None:
        self.text = text
        self.words = [(str(w), scopes.build(w, where=where, frame=frame)) for w in parse_chain(text, where)]
        for k, (name, word) in enumerate(self.words):
            for other_name, other in self.words[:k]:
                if not _joins(word.kind, other.kind):
                    raise ConfigError(f"{where}: {other_name} & {name} is not defined: {_WHY[frozenset((word.kind, other.kind))]}")

    def of(self, kind: type[Any]) -> list[Any]:
        """The words of one kind."""
        return [word for _, word in self.words if isinstance(word, kind)]

    def relate(self, meta: Meta, own: int | None = None) -> Relation:
        """Who mixes with whom in a batch.

        Args:
            meta: the tokens.
            own: the first so many ask and the others are seen; None when all do both.
        """
        group = meta.groups.numpy()
        partitions, orders, listed, edges = (self.of(kind) for kind in (Partition, Order, BlockList, EdgeList))
        labels = combine([group, *(label for word in (*partitions, *orders) for label in word.labels(meta))])
        joined = [w for w in (word.wild(meta) for word in partitions) if w is not None]
        wild = np.logical_or.reduce(joined) if joined else None
        order = None
        if orders:
            places = orders[0].order(meta)
            order = Orders(places, places)
        asks = np.arange(len(meta)) < (len(meta) if own is None else own)
        if edges:
            return _edges(edges, listed, labels, wild, order, group, meta, asks if own is not None else None)
        if listed:
            asking, seen = listed[0].members(meta)
            query, key = _within(asking, seen, labels)
            if own is not None:
                query, key = _kept(query, asks), _kept(key, ~asks)
            return blocks_of(query, key, len(meta), orders=order)
        members = partition_members(labels, wild, group)
        if own is not None:
            return blocks_of(_kept(members, asks), _kept(members, ~asks), len(meta), orders=order, queries=asks)
        return blocks_of(members, None, len(meta), orders=order)


_WHY = {
    frozenset(("partition", "blocks")): "the blocks of one are no partition; write the partition into one of them, or use two layers",
    frozenset(("blocks",)): "both list blocks; use two layers",
    frozenset(("order",)): "there is one order at a time",
}


def _joins(a: str, b: str) -> bool:
    return "edges" in (a, b) or frozenset((a, b)) not in _WHY or (a == b == "partition")


def _within(query: Members, key: Members, labels: NDArray[np.int64]) -> tuple[Members, Members]:
    """Blocks cut where labels differ: the sample, and the cells of tokens without an ordered axis."""
    token, block = (np.concatenate([a, b]) for a, b in zip(query, key, strict=True))
    cut = combine([block, labels[token]])
    return Members(query.token, cut[: len(query.token)]), Members(key.token, cut[len(query.token) :])


def _kept(side: Members, mask: Mask) -> Members:
    """The members among some tokens."""
    kept = mask[side.token]
    return Members(side.token[kept], side.block[kept])


def _edges(
    words: Sequence[EdgeList], listed: Sequence[BlockList], labels: NDArray[np.int64], wild: Mask | None, order: Orders | None,
    group: NDArray[np.int64], meta: Meta, asks: Mask | None,
) -> Edges:  # fmt: skip
    """The edges that every word lets pass."""
    tables = [word.edges(meta) for word in words]
    found = tables[0]
    q, k = found.query, found.key
    keep = group[q] == group[k]
    same = labels[q] == labels[k]
    keep &= same if wild is None else same | wild[q] | wild[k]
    if order is not None:
        keep &= order.key[k] <= order.query[q]
    t = len(meta)
    for table in tables[1:]:
        keep &= np.isin(q * t + k, table.query * t + table.key)
    queries = np.ones(t, np.bool_) if asks is None else asks
    if asks is not None:
        keep &= asks[q] & ~asks[k]
    for word in listed:
        asking, seen = word.members(meta)
        query, key = _within(asking, seen, group)
        keep &= blocks_of(query, key, t).pairs().numpy()[q, k]
        queries = queries & (np.bincount(query.token, minlength=t) > 0)
    return edges_of(q[keep], k[keep], None if found.values is None else found.values[keep], queries)


def own_cell(meta: Meta) -> NDArray[np.int64]:
    """(T,) one label for each (sample, column, item)."""
    return combine([meta.groups.numpy(), meta.column.numpy(), meta.item.numpy()])


def or_own_cell(label: NDArray[np.int64], absent: Mask, meta: Meta) -> NDArray[np.int64]:
    """The label where a token has the axis; one of its own (sample, column, item) where it has not."""
    if not absent.any():
        return label
    return np.where(absent, label.max(initial=0) + 1 + own_cell(meta), label)


@scopes.register("sample", source="arXiv:2206.06488")
class SampleScope(Partition):
    """All tokens of a sample mix: early fusion."""

    def labels(self, meta: Meta) -> Labels:
        """The sample alone."""
        return []


@scopes.register("source", source="arXiv:2206.06488")
class SourceScope(Partition):
    """Tokens of one source of a sample mix: sources stay apart, as in late fusion."""

    def labels(self, meta: Meta) -> Labels:
        """The source; inserted tokens, which have no source, by their insertion."""
        source = meta.source.numpy()
        return [or_own_cell(source, source < 0, meta)]


@scopes.register("item", source="arXiv:2103.00020")
class ItemScope(Partition):
    """Tokens of one source and one place in its list cells mix: every caption of a picture by itself, all of a row's scalars together."""

    def labels(self, meta: Meta) -> Labels:
        """The source, and the item of list cells."""
        source = meta.source.numpy()
        return [or_own_cell(source, source < 0, meta), meta.item.numpy()]


@scopes.register("modality", source="arXiv:2206.06488")
class ModalityScope(Partition):
    """Tokens of one modality of a sample mix, whichever column they come from."""

    def labels(self, meta: Meta) -> Labels:
        """The modality."""
        return [meta.modality.numpy()]


@scopes.register("level", source="arXiv:2106.14881")
class LevelScope(Partition):
    """Tokens of one scale of a sample mix."""

    def labels(self, meta: Meta) -> Labels:
        """The level."""
        return [meta.level.numpy()]


@scopes.register("cell", source="arXiv:2010.11929")
class CellScope(Partition):
    """Tokens of one item of one cell mix: every picture by itself."""

    def labels(self, meta: Meta) -> Labels:
        """Column and item."""
        return [own_cell(meta)]


@scopes.register("sliced", source="arXiv:2111.05297")
class SlicedScope(Partition):
    """A sample's tokens dealt out to ``groups``: token number r (by column, item, place and node) goes to group ``r mod groups``.

    With ``runs`` a group is a run of neighbours instead, ``floor(r groups / n)``; layers that take turns between the two mix everything.
    Tokens that nothing of this tells apart are in one group.

    Args:
        groups: groups of a sample; 1 is ``sample``.
        runs: whether groups are runs of neighbours.
    """

    def __init__(self, *, groups: Count, runs: bool = False) -> None:
        self.groups, self.runs = groups, runs

    def labels(self, meta: Meta) -> Labels:
        """The group, from ranks within the sample."""
        column = meta.column.numpy()
        last = np.where(column < 0, column.max(initial=0) - column, column)
        node = column * 0 if meta.node is None else meta.node.numpy()
        sample = combine([meta.groups.numpy()])
        order = combine([sample, last, meta.item.numpy(), *meta.place.numpy().T, node])
        _, order = np.unique(order, return_inverse=True)
        begin = np.full(int(sample.max(initial=-1)) + 1, len(order), np.int64)
        end = np.zeros_like(begin)
        np.minimum.at(begin, sample, order)
        np.maximum.at(end, sample, order + 1)
        rank, count = order - begin[sample], (end - begin)[sample]
        return [rank * self.groups // np.maximum(count, 1) if self.runs else rank % self.groups]


@scopes.register("bottleneck", source="arXiv:2107.00135")
class BottleneckScope(Partition):
    """Inserted tokens join every block of their sample, each block's outputs for them averaged: ``source & bottleneck``."""

    def labels(self, meta: Meta) -> Labels:
        """The sample alone."""
        return []

    def wild(self, meta: Meta) -> Mask | None:
        """Inserted tokens."""
        inserted: Mask = meta.column.numpy() < 0
        return inserted


def relate(text: str, meta: Meta, frame: Frame | None = None, where: str = "scope") -> Relation:
    """Work out a scope's relation for a batch.

    Raises:
        ConfigError: a word is unknown or does not fit.
    """
    return Scoping(text, where, frame or Frame()).relate(meta)
