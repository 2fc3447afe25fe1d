r"""Exact search by inner product: a first look in low precision that loses nothing, then float64 for what is left.

**Bound.** Let ``q`` be a query, ``v`` a row, ``c`` the centre, ``u = v - c`` and ``w = bf16(u)``, ``p = bf16(q)`` (scales are powers of two
and exact). Since ``q . c`` is the same for all rows, rows are ordered by ``q . u``, and ::

    q . u - p . w = q . (u - w) + (q - p) . w
    |q . u - p . w| <= |q| |u - w| + |q - p| |w|                                  (Cauchy and Schwarz)

A matrix product adds its own error. Products of two bfloat16 numbers are exact in float32; E of them summed in float32 in any order, each
sum rounded or flushed, are off by at most ``a |p| |w| + E 2^-120`` with ``a = (E + 2) 2^-23`` (twice what sums need: the rest covers the
float32 in which ends are compared); and the result ``s``, rounded to bfloat16,
lies within ``d |s|`` of the sum for ``d = 1.01 * 2^-8``. Together, with ``r = |u - w|`` and ``n = |w|`` as stored for each row, ::

    |q . u - s| <= e + d |s|,    e = |q| r + (|q - p| + a |p|) n + E 2^-120

A few queries are looked for in int8 first, which takes half the time to read: ``w = step * z`` with a step for each row, and ``p`` of two
digits of 8 bits. There the sums are exact, and only what joins them is rounded: ``e = |q| r + (|q - p| + b |q|) |w|`` and ``d = 0``, with
``b = (1 + sqrt(E) / 100) 2^-20`` and ``|w| <= |u| + r``.

Rows lie in groups; a group's ``e`` takes the largest ``r`` and ``n`` in it. The best row of a group with the best low score ``s`` has
``q . u >= s - e - d |s|``. So the k-th largest of these lower ends over groups, ``t``, is at most the k-th best true score, and a row whose
upper end ``s + e + d |s|`` is below ``t`` is none of the k best. All others are candidates: they are scored again in float32, where the
same holds with ``e = a |q| |v|`` and ``d = 0``, and then in float64. Where more candidates remain than it pays to look up (duplicates, a
crowd around the k-th), the whole gallery is looked at in float32, and at last in float64.

Scores of float64 are sums in one fixed order, so that equal rows have equal scores; ties go to the smaller row number. Two rows whose
scores differ by less than float64 resolves count as tied.

Letters: N rows, E dimensions, P queries, K hits, G rows in a group, M groups, H surviving groups, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.errors import ShapeError
from unisono.retrieve.scan import Gallery, digits_of, power_of_two

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Up to so many rows float64 alone is as fast.
SMALL = 2048
_QUERIES = 1024
_SCORES = 1 << 22
_BLOCK = (4096, 1 << 18)
#: Up to so many queries, reading the gallery takes longer than multiplying, and int8 is half of bfloat16.
_DIGITS = 4
#: Vectors of fewer numbers are not looked at in int8.
_NARROW = 16
_GROUP = 128
_PAIRS = 4096
#: Up to so many queries, maxima are found faster among float32 than among bfloat16.
_FEW = 64
#: Stands for a row that may not be found: below every score, and finite so that bounds of it are numbers.
_NEVER, _LOWEST = -1e30, -1e29


@dataclass(frozen=True)
class Queries:
    """Queries of one batch, each scaled by a power of two to a length of about 1.

    Attributes:
        exact: (P, E) float64.
        scales: (P,) what they were multiplied by.
    """

    exact: Doubles
    scales: Doubles

    @classmethod
    def of(cls, queries_PE: NDArray[np.float32]) -> Queries:
        """Scale each query.

        Raises:
            ShapeError: a number is not finite.
        """
        exact = np.asarray(queries_PE, np.float64)
        if not np.isfinite(exact).all():
            raise ShapeError("a query holds a number that is not finite")
        scales = np.array([power_of_two(float(x)) for x in np.sqrt(np.einsum("pe,pe->p", exact, exact))])
        return cls(exact * scales[:, None], scales)

    def take(self, chosen: Ints) -> Queries:
        """Some of them."""
        return Queries(self.exact[chosen], self.scales[chosen])


class _Look:
    """Scores of one precision, and how far off they can be.

    Attributes:
        relative: the part of a score's error that grows with the score.
        factors: column of ``Copies.bounds`` -> (P,) what it counts for in the part that does not.
    """

    relative = 0.0
    factors: dict[int, Tensor]

    def __init__(self, gallery: Gallery, queries: Queries) -> None:
        self.gallery = gallery
        self.exact = torch.from_numpy(queries.exact)
        self.lengths, self.size = self.exact.norm(dim=1), self.exact.shape[1]
        self.summing = 1.01 * (self.size + 2) * 2.0**-23 * self.lengths

    def errors(self, bounds_M5: NDArray[np.float32]) -> Tensor:
        """(P, M) the part of the error that does not grow with the score, of the worst row of each group."""
        total = torch.full((len(self.exact), len(bounds_M5)), self.size * 2.0**-120)
        for column, factor in self.factors.items():
            bound = torch.from_numpy(np.ascontiguousarray(bounds_M5[:, column]))
            total += torch.outer((factor * 1.0001).to(torch.float32), bound)
        return total

    def scores(self, begin: int, end: int) -> Tensor:
        """(P, rows) of the rows from ``begin`` to ``end``, in memory that the next call may use again."""
        raise NotImplementedError


class _Multiplied(_Look):
    """Scores by one matrix product of rounded queries."""

    def __init__(self, gallery: Gallery, queries: Queries, dtype: torch.dtype) -> None:
        super().__init__(gallery, queries)
        self.queries = self.exact.to(dtype)
        self.lost = (self.exact - self.queries.to(torch.float64)).norm(dim=1) + self.summing
        self._room = torch.empty(0, dtype=dtype)

    def product(self, rows: Tensor) -> Tensor:
        """(P, rows) in memory that is used again."""
        size = len(self.queries) * len(rows)
        if len(self._room) < size:
            self._room = torch.empty(size, dtype=self.queries.dtype)
        return torch.mm(self.queries, rows.T, out=self._room[:size].view(len(self.queries), len(rows)))


class _Low(_Multiplied):
    """A look at the bfloat16 copy."""

    relative = 1.01 * 2.0**-8

    def __init__(self, gallery: Gallery, queries: Queries) -> None:
        super().__init__(gallery, queries, torch.bfloat16)
        self.factors = {0: self.lengths, 1: self.lost}

    def scores(self, begin: int, end: int) -> Tensor:
        return self.product(self.gallery.low_block(begin, end))


class _Single(_Multiplied):
    """A look at the vectors in float32."""

    def __init__(self, gallery: Gallery, queries: Queries) -> None:
        super().__init__(gallery, queries, torch.float32)
        self.factors = {2: self.lost}

    def scores(self, begin: int, end: int) -> Tensor:
        return self.product(self.gallery.block(begin, end, torch.float32))


class _Coarse(_Look):
    """A look at the int8 copy, with two digits of each query."""

    def __init__(self, gallery: Gallery, queries: Queries) -> None:
        super().__init__(gallery, queries)
        first, digits = digits_of(queries.exact)
        rest = queries.exact - first[:, None] * digits
        second, more = digits_of(rest)
        lost = torch.from_numpy(rest - second[:, None] * more).norm(dim=1) + 2.0**-20 * (1 + self.size**0.5 / 100) * self.lengths
        self._digits = torch.from_numpy(np.concatenate([digits, more]).astype(np.int8))
        self._first, self._second = (torch.from_numpy(t.astype(np.float32))[:, None] for t in (first, second))
        self.factors = {3: self.lengths + lost, 0: lost, 1: lost}

    def scores(self, begin: int, end: int) -> Tensor:
        assert self.gallery.coarse is not None
        found = torch._int_mm(self._digits, torch.from_numpy(self.gallery.coarse[begin:end]).T).to(torch.float32)
        first, second = found.chunk(2)
        return first.mul_(self._first).add_(second.mul_(self._second)).mul_(self.gallery.steps[begin:end])


class _Found:
    """Candidates of a batch as they come, with the threshold that each query has reached."""

    def __init__(self, queries: int, k: int, cap: int) -> None:
        self.best = torch.full((queries, k), _LOWEST)
        self.count = torch.zeros(queries, dtype=torch.int64)
        self.open = torch.ones(queries, dtype=torch.bool)
        self._cap = cap
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def raise_threshold(self, lower_PM: Tensor) -> Tensor:
        """(P,) the k-th largest lower end so far; infinite for queries that were given up."""
        k = self.best.shape[1]
        self.best = torch.cat([self.best, lower_PM], 1).topk(k, 1).values
        return torch.where(self.open, self.best[:, -1], torch.inf)

    def give_up(self, more_P: Tensor) -> Tensor:
        """Close the queries for which too many candidates remain; (P,) those that are still open."""
        self.open &= self.count + more_P <= self._cap
        return self.open

    def add(self, query_C: Tensor, row_C: Tensor, upper_C: Tensor) -> None:
        """Remember candidates."""
        self.count += torch.bincount(query_C, minlength=len(self.count))
        self._parts.append((query_C, row_C, upper_C))

    def result(self) -> tuple[Ints, Ints, Ints]:
        """Query and row of every candidate of the open queries, ordered by row; and the queries that were given up."""
        self.give_up(torch.zeros_like(self.count))
        query, row, upper = (torch.cat(column) for column in zip(*self._parts, strict=True))
        keep = self.open[query] & (upper >= self.best[query, -1])
        order = row[keep].argsort()
        return query[keep][order].numpy(), row[keep][order].numpy(), np.flatnonzero(~self.open.numpy())


def _group(allowed: Bools | None, rows: int, k: int) -> int:
    """Rows in a group: few enough that there are several groups for each of the k hits."""
    size = _GROUP
    while size > 1:
        whole = rows // size * size
        groups = whole // size if allowed is None else int(allowed[:whole].reshape(-1, size).any(1).sum())
        if groups >= 4 * k:
            return size
        size //= 2
    return 1


def _survivors(look: _Look, gallery: Gallery, k: int, allowed: Bools | None, queries: int) -> tuple[Ints, Ints, Ints]:
    """One pass over the gallery: candidates as (query, row), and the queries for which there are too many."""
    rows, group = len(gallery), _group(allowed, len(gallery), k)
    found = _Found(queries, k, max(32 * k, rows // 256, 256))
    block = min(max(_SCORES // queries, _BLOCK[0]), _BLOCK[1]) // _GROUP * _GROUP
    bounds = gallery.grouped(group)
    for begin in range(0, rows, block):
        end = min(begin + block, rows)
        scores = look.scores(begin, end)
        if allowed is not None:
            scores.masked_fill_(torch.from_numpy(~allowed[begin:end]), _NEVER)
        groups = -(-(end - begin) // group)
        if groups * group != end - begin:
            scores = torch.nn.functional.pad(scores, (0, groups * group - (end - begin)), value=_NEVER)
        _collect(found, look, scores.view(queries, groups, group), bounds[begin // group : begin // group + groups], begin)
    return found.result()


def _collect(found: _Found, look: _Look, scores_PMG: Tensor, bounds_M5: NDArray[np.float32], begin: int) -> None:
    """Raise the thresholds by a block's groups, then keep its rows that reach them."""
    scores_PMG = scores_PMG.to(torch.float32) if len(scores_PMG) <= _FEW else scores_PMG
    top = scores_PMG.amax(2).to(torch.float32)
    fixed = look.errors(bounds_M5)
    error = fixed.add(top.abs(), alpha=look.relative)
    threshold = found.raise_threshold(top - error)
    hits = top + error >= threshold[:, None]
    hits &= found.give_up(hits.sum(1))[:, None]
    query_H, group_H = hits.nonzero(as_tuple=True)
    upper = scores_PMG[query_H, group_H].to(torch.float32)
    upper = upper.add(upper.abs(), alpha=look.relative) + fixed[query_H, group_H][:, None]
    place_C, inside_C = (upper >= threshold[query_H][:, None]).nonzero(as_tuple=True)
    row_C = begin + group_H[place_C] * scores_PMG.shape[2] + inside_C
    found.add(query_H[place_C], row_C, upper[place_C, inside_C])


def _rescored(gallery: Gallery, queries: Queries, query_C: Ints, row_C: Ints, k: int) -> tuple[Ints, Ints, Doubles]:
    """Candidates that float32 cannot rule out, with their scores in float64 (scaled)."""
    size = queries.exact.shape[1]
    single = torch.from_numpy(queries.exact).to(torch.float32)
    scores = np.empty(len(row_C), np.float32)
    for part in _pairs(len(row_C)):
        rows = torch.from_numpy(_taken(gallery, row_C[part])).to(torch.float32)
        scores[part] = (rows * single[query_C[part]]).sum(1).numpy()
    lengths = np.sqrt(np.einsum("pe,pe->p", queries.exact, queries.exact))
    error = ((size + 4) * 2.0**-23 * lengths[query_C] * gallery.bounds[row_C, 2] * 1.01 + size * 2.0**-120).astype(np.float64)
    threshold = _kth(query_C, scores - error, len(queries.exact), k)
    keep = scores + error >= threshold[query_C]
    query_C, row_C = query_C[keep], row_C[keep]
    return query_C, row_C, _doubles(gallery, queries, query_C, row_C)


def _doubles(gallery: Gallery, queries: Queries, query_C: Ints, row_C: Ints) -> Doubles:
    """(C,) scaled inner products in float64, each summed in the same order."""
    exact = np.empty(len(row_C))
    for part in _pairs(len(row_C)):
        exact[part] = (_taken(gallery, row_C[part]) * queries.exact[query_C[part]]).sum(1)
    return exact


def _taken(gallery: Gallery, rows: Ints) -> Doubles:
    return np.asarray(gallery.vectors[rows], np.float64) * gallery.frame.scale


def _pairs(count: int) -> Iterator[slice]:
    for begin in range(0, count, _PAIRS):
        yield slice(begin, begin + _PAIRS)


def _kth(query_C: Ints, value_C: Doubles, queries: int, k: int) -> Doubles:
    """(P,) the k-th largest value of each query; minus infinity where it has fewer."""
    order = np.lexsort((-value_C, query_C))
    starts = np.searchsorted(query_C[order], np.arange(queries + 1))
    enough = starts[1:] - starts[:-1] >= k
    kth = np.full(queries, -np.inf)
    kth[enough] = value_C[order[starts[:-1][enough] + k - 1]]
    return kth


def _brute(gallery: Gallery, queries: Queries, k: int, allowed: Bools | None) -> tuple[Ints, Ints, Doubles]:
    """Every row in float64; of rows tied with the k-th only the first k are kept."""
    rows, size = len(gallery), queries.exact.shape[1]
    chosen = [(np.empty(0, np.int64), np.empty(0)) for _ in queries.exact]
    lengths = np.sqrt(np.einsum("pe,pe->p", queries.exact, queries.exact))
    near = 2 * (size + 2) * 2.0**-52 * lengths * float(gallery.bounds[:, 2].max(initial=0.0))
    exact = torch.from_numpy(queries.exact)
    for begin in range(0, rows, _BLOCK[0]):
        end = min(begin + _BLOCK[0], rows)
        scores = (exact @ gallery.block(begin, end, torch.float64).T).numpy()
        numbers = np.arange(begin, end) if allowed is None else begin + np.flatnonzero(allowed[begin:end])
        for p, (known, held) in enumerate(chosen):
            whole = np.concatenate([known, numbers]), np.concatenate([held, scores[p, numbers - begin]])
            chosen[p] = _thinned(*whole, k, near[p])
    query_C = np.concatenate([np.full(len(known), p) for p, (known, _) in enumerate(chosen)]) if chosen else np.empty(0, np.int64)
    row_C = np.concatenate([known for known, _ in chosen]) if chosen else np.empty(0, np.int64)
    return query_C, row_C, _doubles(gallery, queries, query_C, row_C)


def _thinned(rows: Ints, scores: Doubles, k: int, near: float) -> tuple[Ints, Doubles]:
    """The rows above the k-th score, and the first k of those that are as good as tied with it."""
    if len(rows) <= k:
        return rows, scores
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, tied = scores > kth + near, np.abs(scores - kth) <= near
    keep = above | (tied & (np.cumsum(tied) <= 2 * k))
    return rows[keep], scores[keep]


def _ordered(query_C: Ints, row_C: Ints, score_C: Doubles, queries: Queries, scale: float, k: int) -> tuple[Doubles, Ints]:
    """The k best of each query; ties by row number."""
    count = len(queries.exact)
    order = np.lexsort((row_C, -score_C, query_C))
    query_C, row_C, score_C = query_C[order], row_C[order], score_C[order]
    starts = np.searchsorted(query_C, np.arange(count))
    rank = np.arange(len(query_C)) - starts[query_C]
    keep = rank < k
    scores, rows = np.full((count, k), -np.inf), np.full((count, k), -1, np.int64)
    scores[query_C[keep], rank[keep]] = score_C[keep] / (scale * queries.scales[query_C[keep]])
    rows[query_C[keep], rank[keep]] = row_C[keep]
    return scores, rows


def search(gallery: Gallery, queries_PE: NDArray[np.float32], k: int, allowed: Bools | None = None) -> tuple[Doubles, Ints]:
    """The k rows with the largest inner product with each query, exactly.

    Args:
        gallery: what is searched.
        queries_PE: the queries.
        k: how many hits, at least 1.
        allowed: (N,) which rows may be found; None for all.

    Returns:
        (P, K) scores in float64 and (P, K) row numbers, best first, ties by row number; minus infinity and -1 where there are fewer rows.

    Raises:
        ShapeError: shapes do not fit, k is below 1, or a query is not finite.
    """
    size = gallery.vectors.shape[1]
    if queries_PE.ndim != 2 or queries_PE.shape[1] != size:
        raise ShapeError(f"queries of shape {queries_PE.shape} do not fit vectors of {size} numbers")
    if k < 1:
        raise ShapeError(f"k is {k}; at least 1 hit has to be asked for")
    if allowed is not None and allowed.shape != (len(gallery),):
        raise ShapeError(f"a filter of shape {allowed.shape} does not fit {len(gallery)} rows")
    rows = np.arange(len(gallery)) if allowed is None else np.flatnonzero(allowed)
    scores, found = np.full((len(queries_PE), k), -np.inf), np.full((len(queries_PE), k), -1, np.int64)
    if len(rows) == 0 or len(queries_PE) == 0:
        return scores, found
    if allowed is not None and (len(rows) == len(gallery) or len(rows) <= max(SMALL, len(gallery) // 16)):
        inside = gallery if len(rows) == len(gallery) else gallery.rows(rows)
        scores, found = search(inside, queries_PE, k)
        return scores, np.where(found >= 0, rows[found], -1)
    top = min(k, len(rows))
    for begin in range(0, len(queries_PE), _QUERIES):
        part = slice(begin, min(begin + _QUERIES, len(queries_PE)))
        scores[part, :top], found[part, :top] = _search(gallery, Queries.of(queries_PE[part]), top, allowed)
    return scores, found


def _search(gallery: Gallery, queries: Queries, k: int, allowed: Bools | None) -> tuple[Doubles, Ints]:
    count, scale = len(queries.exact), gallery.frame.scale
    scores, rows = np.empty((count, k)), np.empty((count, k), np.int64)
    waiting = np.arange(count)
    for kind in _looks(gallery, count):
        if len(waiting) == 0:
            break
        asked = queries.take(waiting)
        query_C, row_C, left = _survivors(kind(gallery, asked), gallery, k, allowed, len(waiting))
        done = np.setdiff1d(np.arange(len(waiting)), left)
        pairs = _rescored(gallery, asked, query_C, row_C, k)
        found = _ordered(*pairs, asked, scale, k)
        scores[waiting[done]], rows[waiting[done]] = found[0][done], found[1][done]
        waiting = waiting[left]
    if len(waiting):
        asked = queries.take(waiting)
        scores[waiting], rows[waiting] = _ordered(*_brute(gallery, asked, k, allowed), asked, scale, k)
    return scores, rows


@cache
def int8_is_exact(size: int) -> bool:
    """Whether products of int8 vectors of some size are exact here: processors without the instructions for it may cut off large sums.

    Args:
        size: E.
    """
    if size < _NARROW:
        return False
    signs = torch.tensor([[1], [-1]], dtype=torch.int8)
    given = torch.cat([signs * 127, signs]).repeat(1, size)
    given[2:] += (torch.arange(size) % 251 - 125).to(torch.int8)
    rows = given.repeat(64, 1)
    return bool(torch.equal(torch._int_mm(given, rows.T), given.to(torch.int32) @ rows.T.to(torch.int32)))


def _looks(gallery: Gallery, queries: int) -> list[type[_Low | _Single | _Coarse]]:
    """Which first looks are worth their time, in order, by size and by what the machine and the settings of torch can do."""
    if len(gallery) <= SMALL:
        return []
    found: list[type[_Low | _Single | _Coarse]] = []
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        coarse = gallery.coarse is not None and queries <= _DIGITS and int8_is_exact(gallery.vectors.shape[1])
        found += [_Coarse] * coarse + [_Low] * (gallery.low is not None)
    return found + [_Single] * (torch.get_float32_matmul_precision() == "highest")
