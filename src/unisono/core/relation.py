"""Who mixes with whom, as the kernels take it: blocks of packed tokens, or single edges; worked out on the host.

Letters: T tokens, G blocks, N places in the block-sorted order, L tokens of a block, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Run(NamedTuple):
    """Adjacent blocks of one shape: ``blocks`` of them, each ``queries`` x ``keys``."""

    blocks: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Call:
    """One call of the attention kernel: adjacent runs, padded to the longest of their blocks where that is cheaper than several calls.

    Attributes:
        run: the number of blocks, and the longest query and key side among them.
        queries: how many packed queries the call takes.
        keys: how many packed keys.
        query_place: (queries,) place of each packed query among blocks x run.queries padded ones; None where nothing is padded.
        key_place: (keys,) likewise.
        unseen: (blocks or 1, 1, run.queries or 1, run.keys) bool, True for what is not seen; None where all is.
        causal: each query sees the keys up to its own place, and ``unseen`` says nothing.
        lengths: (blocks,) int32 how many queries and how many keys each block has; None where an order hides some of them.
    """

    run: Run
    queries: int
    keys: int
    query_place: Tensor | None = None
    key_place: Tensor | None = None
    unseen: Tensor | None = None
    causal: bool = False
    lengths: tuple[Tensor, Tensor] | None = None


class Members(NamedTuple):
    """Tokens and the block each stands in; a token may stand in several."""

    token: Indices
    block: Indices


@dataclass(frozen=True)
class Orders:
    """An order of queries and keys: a key is seen if its order is not above the query's; ties see each other.

    Attributes:
        query: (T,) int64.
        key: (T,) int64.
    """

    query: Indices
    key: Indices


@dataclass(frozen=True)
class Blocks:
    """A list of blocks, within each of which every query sees every key that the order lets it see.

    Attributes:
        query: (Nq,) token indices, block by block; None when that is 0..T-1 itself.
        key: (Nk,) likewise; None when it is the same as ``query``.
        runs: shapes of the blocks, equal ones adjacent, shorter ones first.
        share: (Nq,) float32, 1 / (number of blocks in which a query sees a key), 0 where it sees none; None when all are 1.
        queries: (T,) bool, the tokens that are a query; None when all are. The others leave a layer unchanged.
        keyed: (T,) bool, the queries that see any key; None when all tokens do.
        num_tokens: T.
        calls: the blocks as the kernel takes them.
        orders: (Nq,) and (Nk,) int64 orders in block order, or None.
        inverse: (T,) the inverse of ``query`` where that is a permutation of all tokens and keys are the same; else None.
    """

    query: Tensor | None
    key: Tensor | None
    runs: tuple[Run, ...]
    share: Tensor | None
    queries: Tensor | None
    keyed: Tensor | None
    num_tokens: int
    calls: tuple[Call, ...]
    orders: tuple[Tensor, Tensor] | None = None
    inverse: Tensor | None = None

    def query_index(self) -> Tensor:
        """(Nq,) token of each query place."""
        return torch.arange(self.num_tokens) if self.query is None else self.query

    def key_index(self) -> Tensor:
        """(Nk,) token of each key place."""
        return self.query_index() if self.key is None else self.key

    def numbers(self) -> tuple[Indices, Indices]:
        """(Nq,) and (Nk,) the number of the block that each query place and each key place lies in."""
        sides = []
        for side in ("queries", "keys"):
            sizes = np.repeat([getattr(r, side) for r in self.runs], [r.blocks for r in self.runs])
            sides.append(np.repeat(np.arange(len(sizes)), sizes.astype(np.int64)))
        return sides[0], sides[1]

    def sees(self, query: Indices, key: Indices) -> Mask:
        """(N,) whether each query token sees the key token beside it."""
        q_block, k_block = self.numbers()
        q_token, k_token = self.query_index().numpy(), self.key_index().numpy()
        blocks = int(q_block.max(initial=-1)) + 1
        by_token = np.argsort(q_token, kind="stable")
        counts = np.bincount(q_token, minlength=self.num_tokens)
        starts = np.cumsum(counts) - counts
        pair = np.repeat(np.arange(len(query)), counts[query])
        at = by_token[ranges(starts[query], counts[query])]
        codes = k_token * blocks + k_block
        sorted_codes = np.argsort(codes, kind="stable")
        wanted = key[pair] * blocks + q_block[at]
        found = np.minimum(np.searchsorted(codes, wanted, sorter=sorted_codes), max(len(codes) - 1, 0))
        place = sorted_codes[found] if len(codes) else found
        inside = codes[place] == wanted if len(codes) else np.zeros(len(wanted), np.bool_)
        if self.orders is not None and len(codes):
            inside = inside & (self.orders[1].numpy()[place] <= self.orders[0].numpy()[at])
        seen = np.zeros(len(query), np.bool_)
        seen[pair[inside]] = True
        return seen

    def pairs(self) -> Tensor:
        """The equivalent boolean mask (T, T): True where row sees column. For tests and drawings."""
        query, key = self.query_index(), self.key_index()
        seen = torch.zeros(self.num_tokens, self.num_tokens, dtype=torch.bool)
        q = k = 0
        for run in self.runs:
            for _ in range(run.blocks):
                rows, columns = slice(q, q + run.queries), slice(k, k + run.keys)
                inside = torch.ones(run.queries, run.keys, dtype=torch.bool)
                if self.orders is not None:
                    inside = self.orders[1][columns].unsqueeze(0) <= self.orders[0][rows].unsqueeze(1)
                seen[query[rows].unsqueeze(1), key[columns].unsqueeze(0)] |= inside
                q, k = q + run.queries, k + run.keys
        return seen


@dataclass(frozen=True)
class Edges:
    """Single pairs of a query and a key it sees, with a value for each pair where the cells bring some.

    Attributes:
        query: (E,) token indices, ascending.
        key: (E,) token indices.
        values: (E, De) float32, zero for pairs that no cell gave, or None.
        queries: (T,) bool, tokens that are a query; None when all are.
        keyed: (T,) bool, queries that see any key; None when all tokens do.
        num_tokens: T.
    """

    query: Tensor
    key: Tensor
    values: Tensor | None
    queries: Tensor | None
    keyed: Tensor | None
    num_tokens: int

    def sees(self, query: Indices, key: Indices) -> Mask:
        """(N,) whether each query token sees the key token beside it."""
        t = self.num_tokens
        seen: Mask = np.isin(query * t + key, self.query.numpy() * t + self.key.numpy())
        return seen

    def pairs(self) -> Tensor:
        """The equivalent boolean mask (T, T)."""
        seen = torch.zeros(self.num_tokens, self.num_tokens, dtype=torch.bool)
        seen[self.query, self.key] = True
        return seen


Relation: TypeAlias = Blocks | Edges


def blocks_of(query: Members, key: Members | None, tokens: int, *, orders: Orders | None = None, queries: Mask | None = None) -> Blocks:
    """Sort members into blocks.

    Args:
        query: the query side.
        key: the key side; None when it is the same.
        tokens: T.
        orders: of queries and keys, or None.
        queries: (T,) the tokens that are a query at all, if not those of ``query``.
    """
    q = _sorted(query, None if orders is None else orders.query)
    k = q if key is None else _sorted(key, None if orders is None else orders.key)
    q_index, k_index, runs = _by_shape(q, k, same=key is None)
    order = None if orders is None else (orders.query[q_index], orders.key[k_index])
    calls, seen = kernel_calls(runs, order)
    times = np.bincount(q_index, minlength=tokens) if seen is None else np.bincount(q_index, weights=seen, minlength=tokens)
    asked = np.bincount(query.token, minlength=tokens) > 0 if queries is None else queries
    once = bool((times == 1).all()) and len(q_index) == tokens
    part = None if once else (np.where(seen, 1.0, 0.0) if seen is not None else 1.0) / np.maximum(times, 1)[q_index]
    plain = part is None or bool((part == 1).all())
    identity = key is None and len(q_index) == tokens and bool((q_index == np.arange(tokens)).all())
    inverse = np.argsort(q_index) if key is None and once and plain and not identity else None
    return Blocks(
        query=None if identity else torch.from_numpy(q_index),
        key=None if key is None else torch.from_numpy(k_index),
        runs=runs,
        share=None if plain or part is None else torch.from_numpy(np.asarray(part, np.float32)),
        queries=None if asked.all() else torch.from_numpy(asked),
        keyed=None if (times > 0).all() else torch.from_numpy(times > 0),
        num_tokens=tokens,
        calls=calls,
        orders=None if order is None else (torch.from_numpy(order[0]), torch.from_numpy(order[1])),
        inverse=None if inverse is None else torch.from_numpy(inverse),
    )


def edges_of(query: Indices, key: Indices, values: NDArray[np.float32] | None, queries: Mask) -> Edges:
    """Sort pairs by query.

    Args:
        query: (E,) tokens.
        key: (E,) tokens.
        values: (E, De), or None.
        queries: (T,) the tokens that are a query.
    """
    order = np.lexsort((key, query))
    keyed = np.bincount(query, minlength=len(queries)) > 0
    return Edges(
        query=torch.from_numpy(query[order]),
        key=torch.from_numpy(key[order]),
        values=None if values is None else torch.from_numpy(values[order]),
        queries=None if queries.all() else torch.from_numpy(queries),
        keyed=None if keyed.all() else torch.from_numpy(keyed),
        num_tokens=len(queries),
    )


def partition_members(labels: Indices, wild: Mask | None, group: Indices) -> Members:
    """The members of a partition's blocks: tokens of one label, and wild tokens in every block of their group.

    Args:
        labels: (T,) block labels; those of wild tokens are ignored.
        wild: (T,) tokens that join every block of their group, or None.
        group: (T,) the group of each token: its sample.
    """
    if wild is None or not wild.any():
        return Members(np.arange(len(labels)), labels)
    tame = np.flatnonzero(~wild)
    block_label, first = np.unique(labels[tame], return_index=True)
    block_group = group[tame][first]
    wild_index = np.flatnonzero(wild)
    wild_index = wild_index[np.argsort(group[wild_index], kind="stable")]
    per_group = np.bincount(group[wild_index], minlength=int(group.max(initial=0)) + 1)
    begins = np.cumsum(per_group) - per_group
    counts = per_group[block_group]
    joined = wild_index[ranges(begins[block_group], counts)]
    # where a group has nothing but wild tokens, they are a block of their own
    alone = wild_index[~np.isin(group[wild_index], block_group)]
    apart = int(labels.max(initial=0)) + 1
    return Members(
        np.concatenate([tame, joined, alone]), np.concatenate([labels[tame], np.repeat(block_label, counts), apart + group[alone]])
    )


def _sorted(members: Members, order: Indices | None) -> Members:
    keys = (members.token, members.block) if order is None else (members.token, order[members.token], members.block)
    by_block = np.lexsort(keys)
    return Members(members.token[by_block], members.block[by_block])


def _by_shape(q: Members, k: Members, *, same: bool) -> tuple[Indices, Indices, tuple[Run, ...]]:
    """Token indices with blocks of one shape adjacent, shorter ones first; blocks without a query or without a key are left out."""
    names, q_start, q_count = np.unique(q.block, return_index=True, return_counts=True)
    if same:
        k_start, k_count = q_start, q_count
    else:
        k_names, found, counts = np.unique(k.block, return_index=True, return_counts=True)
        names, left, right = np.intersect1d(names, k_names, assume_unique=True, return_indices=True)
        q_start, q_count, k_start, k_count = q_start[left], q_count[left], found[right], counts[right]
    first = q.token[q_start]
    shape = np.lexsort((first, k_count, q_count))
    q_start, q_count, k_start, k_count = q_start[shape], q_count[shape], k_start[shape], k_count[shape]
    q_index = q.token[ranges(q_start, q_count)]
    k_index = q_index if same else k.token[ranges(k_start, k_count)]
    changes = np.flatnonzero((np.diff(q_count, prepend=-1) != 0) | (np.diff(k_count, prepend=-1) != 0))
    sizes = np.diff(changes, append=len(q_count))
    runs = tuple(Run(int(n), int(q_count[c]), int(k_count[c])) for c, n in zip(changes, sizes, strict=True))
    return q_index, k_index, runs


#: Padding is worth this many multiplications of query with key (of one head's width each) to save one call of the kernel.
_CALL_PRODUCTS = 5_000


def kernel_calls(runs: Sequence[Run], order: tuple[Indices, Indices] | None = None) -> tuple[tuple[Call, ...], Mask | None]:
    """Join adjacent runs as long as the padding costs less than the calls it saves.

    Args:
        runs: shapes of blocks, shorter ones first.
        order: (Nq,) and (Nk,) orders in block order, or None.

    Returns:
        The calls, and with an order (Nq,) whether each query sees any key.
    """
    joined: list[list[Run]] = []
    for run in runs:
        if joined:
            blocks = sum(r.blocks for r in joined[-1])
            products = sum(r.blocks * r.queries * r.keys for r in joined[-1])
            if blocks * run.queries * run.keys - products <= _CALL_PRODUCTS * len(joined[-1]):
                joined[-1].append(run)
                continue
        joined.append([run])
    calls: list[Call] = []
    seen: list[Mask] = []
    q = k = 0
    for members in joined:
        queries, keys = sum(r.blocks * r.queries for r in members), sum(r.blocks * r.keys for r in members)
        part = None if order is None else (order[0][q : q + queries], order[1][k : k + keys])
        call, sees = _call(members, queries, keys, part)
        calls.append(call)
        seen.append(sees)
        q, k = q + queries, k + keys
    return tuple(calls), None if order is None else np.concatenate([*seen, np.zeros(0, np.bool_)])


def _call(runs: Sequence[Run], queries: int, keys: int, order: tuple[Indices, Indices] | None) -> tuple[Call, Mask]:
    blocks = sum(r.blocks for r in runs)
    longest = Run(blocks, max(r.queries for r in runs), max(r.keys for r in runs))
    all_seen = np.ones(queries, np.bool_)
    times = [r.blocks for r in runs]
    query_counts, key_counts = (np.repeat([getattr(r, side) for r in runs], times) for side in ("queries", "keys"))
    begins = np.arange(blocks, dtype=np.int64)
    query_place = ranges(begins * longest.queries, query_counts)
    key_place = ranges(begins * longest.keys, key_counts)
    places: tuple[Tensor | None, Tensor | None] = (None, None)
    if len(runs) > 1:
        places = (torch.from_numpy(query_place), torch.from_numpy(key_place))
    lengths = (torch.from_numpy(query_counts.astype(np.int32)), torch.from_numpy(key_counts.astype(np.int32)))
    padding = np.arange(longest.keys)[None, :] >= key_counts[:, None]
    if order is None:
        unseen = None if len(runs) == 1 else torch.from_numpy(padding[:, None, None, :])
        return Call(longest, queries, keys, places[0], places[1], unseen, lengths=lengths), all_seen
    if _is_causal(order, query_counts, key_counts):
        return Call(longest, queries, keys, places[0], places[1], causal=True, lengths=lengths), all_seen
    q_order, k_order = np.zeros(blocks * longest.queries, np.int64), np.zeros(blocks * longest.keys, np.int64)
    q_order[query_place], k_order[key_place] = order
    hidden = k_order.reshape(blocks, 1, -1) > q_order.reshape(blocks, -1, 1)
    hidden |= padding[:, None, :]
    blind = hidden.all(2)
    hidden[blind] = padding[np.nonzero(blind)[0]]
    sees = ~blind.reshape(-1)[query_place]
    return Call(longest, queries, keys, places[0], places[1], torch.from_numpy(hidden[:, None])), sees


def _is_causal(order: tuple[Indices, Indices], query_counts: Indices, key_counts: Indices) -> bool:
    """Whether each query sees just the keys up to its own place in the block."""
    if (order[0] is not order[1] and not np.array_equal(order[0], order[1])) or not np.array_equal(query_counts, key_counts):
        return False
    starts = np.cumsum(query_counts) - query_counts
    rising = np.diff(order[0], prepend=order[0][:1] - 1) > 0
    rising[starts[starts < len(rising)]] = True
    return bool(rising.all())


def ranges(starts: NDArray[Any], counts: NDArray[Any]) -> Indices:
    """The numbers start..start+count-1 of each pair, one behind the other."""
    total = int(counts.sum())
    if total == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(counts)
    places: Indices = np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    return places


def combine(labels: Sequence[NDArray[np.int64]]) -> Indices:
    """One label from several: equal exactly where all are equal."""
    result = labels[0].astype(np.int64)
    for other in labels[1:]:
        shifted = other.astype(np.int64) - other.min(initial=0)
        _, result = np.unique(result * (int(shifted.max(initial=0)) + 1) + shifted, return_inverse=True)
    return result
