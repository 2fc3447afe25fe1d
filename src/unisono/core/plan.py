"""What a trunk has to know about a batch, worked out once on the host from token metadata alone.

Letters: B samples, T tokens, G blocks, N places in the block-sorted order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.tokens import Meta


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
        unseen: (blocks, 1, 1, run.keys) bool, True for padding; None where nothing is padded.
    """

    run: Run
    queries: int
    keys: int
    query_place: Tensor | None = None
    key_place: Tensor | None = None
    unseen: Tensor | None = None

    def to(self, device: torch.device) -> Call:
        """The same on another device."""
        moved = [None if t is None else t.to(device, non_blocking=True) for t in (self.query_place, self.key_place, self.unseen)]
        return Call(self.run, self.queries, self.keys, *moved)


@dataclass(frozen=True)
class Blocks:
    """Who mixes with whom: a list of blocks, within each of which every query sees every key.

    Attributes:
        query: (Nq,) token indices, block by block; None when that is 0..T-1 itself.
        key: (Nk,) likewise; None when it is the same as ``query``.
        runs: shapes of the blocks, equal ones adjacent, shorter ones first.
        share: (Nq,) float32, 1 / (number of blocks a query stands in), or None when every token is a query exactly once.
        active: (T,) bool, tokens that are a query with at least one key; None when all are. The others leave a layer unchanged.
        num_tokens: T.
        calls: the same blocks as the kernel takes them; worked out from ``runs`` when not given.
    """

    query: Tensor | None
    key: Tensor | None
    runs: tuple[Run, ...]
    share: Tensor | None
    active: Tensor | None
    num_tokens: int
    calls: tuple[Call, ...] = ()

    def __post_init__(self) -> None:
        if not self.calls:
            object.__setattr__(self, "calls", kernel_calls(self.runs))

    def to(self, device: torch.device) -> Blocks:
        """The same on another device."""
        calls = tuple(c.to(device) for c in self.calls)
        moved = [None if t is None else t.to(device, non_blocking=True) for t in (self.query, self.key, self.share, self.active)]
        return Blocks(moved[0], moved[1], self.runs, moved[2], moved[3], self.num_tokens, calls)

    def pairs(self) -> Tensor:
        """The equivalent boolean mask (T, T): True where row sees column. For tests and drawings."""
        query = torch.arange(self.num_tokens) if self.query is None else self.query
        key = query if self.key is None else self.key
        seen = torch.zeros(self.num_tokens, self.num_tokens, dtype=torch.bool)
        q = k = 0
        for run in self.runs:
            for _ in range(run.blocks):
                seen[query[q : q + run.queries].unsqueeze(1), key[k : k + run.keys].unsqueeze(0)] = True
                q, k = q + run.queries, k + run.keys
        return seen


@dataclass(frozen=True)
class Sets:
    """Which set of weights each token uses.

    Attributes:
        order: (T,) token indices sorted by set.
        inverse: (T,) its inverse permutation.
        sizes: number of tokens of each set.
    """

    order: Tensor
    inverse: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, labels: Tensor, num_sets: int) -> Sets:
        """Sort tokens by their set's number (T,)."""
        order = torch.argsort(labels, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        return cls(order, inverse, tuple(torch.bincount(labels, minlength=num_sets).tolist()))

    def to(self, device: torch.device) -> Sets:
        """The same on another device."""
        return Sets(self.order.to(device), self.inverse.to(device), self.sizes)


@dataclass(frozen=True)
class Segments:
    """Groups of tokens to be pooled.

    Attributes:
        index: (T',) segment of each pooled token.
        tokens: (T',) which tokens are pooled; None when all, in order.
        num: number of segments.
    """

    index: Tensor
    tokens: Tensor | None
    num: int

    def to(self, device: torch.device) -> Segments:
        """The same on another device."""
        return Segments(self.index.to(device), None if self.tokens is None else self.tokens.to(device), self.num)


@dataclass(frozen=True)
class Plan:
    """A batch's plan: for every step of the trunk what that step needs, and the tokens as they enter.

    Attributes:
        meta: the tokens that enter the trunk.
        steps: one entry a step; its type is the step's own business.
        num_samples: B.
    """

    meta: Meta
    steps: tuple[Any, ...]
    num_samples: int

    def to(self, device: torch.device) -> Plan:
        """The same on another device."""
        memo: dict[int, Any] = {}

        def move(part: Any) -> Any:
            if id(part) not in memo:
                memo[id(part)] = part.to(device) if hasattr(part, "to") else part
            return memo[id(part)]

        return Plan(self.meta.to(device), tuple(move(s) for s in self.steps), self.num_samples)


def blocks_of(labels: NDArray[np.int64], wild: NDArray[np.bool_] | None, sample: NDArray[np.int64]) -> Blocks:
    """Blocks from a partition: tokens of one label mix; wild tokens stand in every block of their sample.

    Args:
        labels: (T,) block labels; those of wild tokens are ignored.
        wild: (T,) tokens that join every block of their sample, or None.
        sample: (T,) the sample of each token.
    """
    t = len(labels)
    if wild is None or not wild.any():
        member, label = np.arange(t), labels
    else:
        member, label = _with_wild(labels, wild, sample)
    order = np.argsort(label, kind="stable")
    member, label = member[order], label[order]
    starts = np.flatnonzero(np.diff(label, prepend=label[:1] - 1)) if len(label) else np.zeros(0, np.int64)
    counts = np.diff(starts, append=len(label))
    first = member[starts] if len(starts) else starts
    by_length = np.lexsort((first, counts))
    counts, starts = counts[by_length], starts[by_length]
    index = member[_ranges(starts, counts)]
    lengths, repeats = np.unique(counts, return_counts=True)
    runs = tuple(Run(int(n), int(length), int(length)) for length, n in zip(lengths, repeats, strict=True))
    identity = len(index) == t and bool((index == np.arange(t)).all())
    times = np.bincount(index, minlength=t)
    once = len(index) == t and bool((times == 1).all())
    share = None if once else torch.from_numpy((1.0 / times[index]).astype(np.float32))
    active = None if times.all() else torch.from_numpy(times > 0)
    return Blocks(None if identity else torch.from_numpy(index), None, runs, share, active, t)


#: Padding is worth this many multiplications of query with key (of one head's width each) to save one call of the kernel.
_CALL_PRODUCTS = 5_000


def kernel_calls(runs: Sequence[Run]) -> tuple[Call, ...]:
    """Join adjacent runs as long as the padding costs less than the calls it saves.

    Args:
        runs: shapes of blocks, shorter ones first.
    """
    joined: list[list[Run]] = []
    for run in runs:
        if joined and run.keys and joined[-1][0].keys:
            blocks = sum(r.blocks for r in joined[-1])
            products = sum(r.blocks * r.queries * r.keys for r in joined[-1])
            if blocks * run.queries * run.keys - products <= _CALL_PRODUCTS * len(joined[-1]):
                joined[-1].append(run)
                continue
        joined.append([run])
    return tuple(_call(members) for members in joined)


def _call(runs: Sequence[Run]) -> Call:
    blocks = sum(r.blocks for r in runs)
    longest = Run(blocks, max(r.queries for r in runs), max(r.keys for r in runs))
    queries, keys = sum(r.blocks * r.queries for r in runs), sum(r.blocks * r.keys for r in runs)
    if len(runs) == 1:
        return Call(longest, queries, keys)
    times = [r.blocks for r in runs]
    query_counts, key_counts = (np.repeat([getattr(r, side) for r in runs], times) for side in ("queries", "keys"))
    begins = np.arange(blocks, dtype=np.int64)
    query_place = _ranges(begins * longest.queries, query_counts)
    key_place = _ranges(begins * longest.keys, key_counts)
    unseen = np.arange(longest.keys)[None, :] >= key_counts[:, None]
    return Call(
        longest, queries, keys, torch.from_numpy(query_place), torch.from_numpy(key_place), torch.from_numpy(unseen[:, None, None, :])
    )


def _with_wild(labels: NDArray[np.int64], wild: NDArray[np.bool_], sample: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    tame = np.flatnonzero(~wild)
    block_label, first = np.unique(labels[tame], return_index=True)
    block_sample = sample[tame][first]
    wild_index = np.flatnonzero(wild)
    wild_index = wild_index[np.argsort(sample[wild_index], kind="stable")]
    per_sample = np.bincount(sample[wild_index], minlength=int(sample.max()) + 1)
    begins = np.cumsum(per_sample) - per_sample
    counts = per_sample[block_sample]
    joined = wild_index[_ranges(begins[block_sample], counts)]
    return np.concatenate([tame, joined]), np.concatenate([labels[tame], np.repeat(block_label, counts)])


def _ranges(starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers start..start+count-1 of each pair, one behind the other."""
    total = int(counts.sum())
    if total == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(counts)
    places: NDArray[np.int64] = np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    return places


def combine(labels: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One label from several: equal exactly where all are equal."""
    result = labels[0].astype(np.int64)
    for other in labels[1:]:
        shifted = other.astype(np.int64) - other.min(initial=0)
        _, result = np.unique(result * (int(shifted.max(initial=0)) + 1) + shifted, return_inverse=True)
    return result
