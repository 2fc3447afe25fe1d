"""How well vectors find what belongs to them, and what the space they lie in is like: pure functions, in blocks of bounded memory.

Scores are inner products, which are cosines for vectors of unit length. A tie is decided against the query: a positive stands behind every
other item of the same score, so that a space in which all vectors are alike finds nothing.

Letters: Q queries, G items of the gallery, E width of a vector, N rows, K neighbours, R resamples, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from unisono.core.errors import ShapeError
from unisono.tasks.bootstrap import percentile_intervals

Array = NDArray[Any]
Vectors = NDArray[np.float32]
Interval = tuple[float, float]

#: A block of scores holds about this many numbers.
BLOCK = 1 << 23
#: Recall is given at these ranks.
RANKS = (1, 5, 10)
#: Figures of retrieval, as they are named in results.
FIGURES = (*(f"r@{k}" for k in RANKS), "median_rank", "map")


# -- what belongs together -------------------------------------------------------------------------------------------------------


def places(identities: ArrayLike) -> NDArray[np.int64]:
    """Identities (N,) of any type as numbers from 0 on: equal ones get one number."""
    return np.unique(np.asarray(identities), return_inverse=True)[1].reshape(-1).astype(np.int64)


def links(a_N: ArrayLike, b_N: ArrayLike, shape: tuple[int, int]) -> Any:
    """The relation that holds between ``a[n]`` and ``b[n]`` for every n, as a sparse matrix of ones."""
    a, b = np.asarray(a_N, np.int64), np.asarray(b_N, np.int64)
    made = sparse.csr_matrix((np.ones(len(a), np.int32), (a, b)), shape)
    made.data[:] = 1  # equal links were added up
    return made


@dataclass(frozen=True)
class Positives:
    """Which items of the gallery belong to which query: a chain of relations, put together only for the block of queries that is asked for.

    Attributes:
        chain: sparse (Q, .), ..., (., G); an item belongs to a query if a path of links leads from the one to the other.
    """

    chain: tuple[Any, ...]

    @classmethod
    def of(cls, query_items: ArrayLike, gallery_items: ArrayLike) -> Positives:
        """Queries (Q,) and items (G,) belong together where they have the same identity.

        Raises:
            ShapeError: identities are not in one dimension.
        """
        query, gallery = np.asarray(query_items), np.asarray(gallery_items)
        if query.ndim != 1 or gallery.ndim != 1:
            raise ShapeError(f"identities are vectors, got shapes {query.shape} and {gallery.shape}")
        known = places(np.concatenate([query, gallery])) if len(query) + len(gallery) else np.zeros(0, np.int64)
        q, g, n = known[: len(query)], known[len(query) :], int(known.max(initial=-1)) + 1
        return cls((links(np.arange(len(q)), q, (len(q), n)), links(g, np.arange(len(g)), (n, len(g)))))

    @classmethod
    def of_pairs(cls, queries: ArrayLike, items: ArrayLike, shape: tuple[int, int]) -> Positives:
        """Query ``queries[n]`` and item ``items[n]`` belong together for every n; ``shape`` is (Q, G)."""
        return cls((links(queries, items, shape),))

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return int(self.chain[0].shape[0]), int(self.chain[-1].shape[1])

    def block(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positives of queries ``start .. stop``: (stop - start + 1,) offsets, and the items of each query, ascending."""
        found = self.chain[0][start:stop]
        for relation in self.chain[1:]:
            found = found @ relation
            found.data[:] = 1
        found = found.tocsr()
        found.sum_duplicates()
        found.sort_indices()
        return found.indptr.astype(np.int64), found.indices.astype(np.int64)

    def counts(self) -> NDArray[np.int64]:
        """How many items belong to each query, (Q,)."""
        q, g = self.shape
        size = max(1, BLOCK // max(g, 1))
        parts = [np.diff(self.block(s, min(s + size, q))[0]) for s in range(0, q, size)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


# -- ranks -----------------------------------------------------------------------------------------------------------------------


def as_vectors(values: ArrayLike, what: str) -> Vectors:
    """Vectors as float32.

    Raises:
        ShapeError: they are not (N, E), or not finite.
    """
    array = np.ascontiguousarray(values, np.float32)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ShapeError(f"{what}: vectors are (rows, width), got the shape {array.shape}")
    if not np.isfinite(array).all():
        raise ShapeError(f"{what}: row {int(np.flatnonzero(~np.isfinite(array).all(1))[0])} has numbers that are not finite")
    return array


def score_blocks(queries: Vectors, gallery: Vectors) -> Iterator[tuple[int, int, Vectors]]:
    """Start, stop and scores (stop - start, G) of blocks of queries.

    Raises:
        ShapeError: the two sides have different widths.
    """
    if queries.shape[1] != gallery.shape[1]:
        raise ShapeError(f"queries have {queries.shape[1]} channels, the gallery has {gallery.shape[1]}")
    size = max(1, BLOCK // max(len(gallery), 1))
    for start in range(0, len(queries), size):
        stop = min(start + size, len(queries))
        yield start, stop, queries[start:stop] @ gallery.T


@dataclass(frozen=True)
class Ranks:
    """Where each query finds what belongs to it.

    Attributes:
        first: (Q,) rank of its best positive, from 1 on; 0 for a query without one.
        precision: (Q,) average precision, the mean over positives p of (positives up to p) / (rank of p); NaN for a query without one.
    """

    first: NDArray[np.int64]
    precision: NDArray[np.float64]

    @property
    def known(self) -> Ranks:
        """Those of queries with a positive."""
        has = self.first > 0
        return Ranks(self.first[has], self.precision[has])


def rank(queries_QE: ArrayLike, gallery_GE: ArrayLike, positives: Positives) -> Ranks:
    """Rank the gallery for every query, ties against the query.

    The j-th best positive has rank ``j + #{others with a score not below its own}``.

    Raises:
        ShapeError: vectors and positives do not fit each other.
    """
    queries, gallery = as_vectors(queries_QE, "queries"), as_vectors(gallery_GE, "gallery")
    if positives.shape != (len(queries), len(gallery)):
        raise ShapeError(f"positives are for {positives.shape} queries and items, there are {(len(queries), len(gallery))}")
    first, precision = np.zeros(len(queries), np.int64), np.full(len(queries), np.nan)
    for start, stop, scores in score_blocks(queries, gallery):
        offsets, items = positives.block(start, stop)
        counts = np.diff(offsets)
        one = np.flatnonzero(counts == 1)
        if len(one):
            own = scores[one, items[offsets[one]]]
            chosen = scores if len(one) == len(scores) else scores[one]
            found = np.count_nonzero(chosen >= own[:, None], axis=1)
            first[start + one], precision[start + one] = found, 1.0 / found
        for q in np.flatnonzero(counts > 1).tolist():
            ranks = _ranks_of(scores[q], items[offsets[q] : offsets[q + 1]])
            first[start + q], precision[start + q] = ranks[0], float((np.arange(1, len(ranks) + 1) / ranks).mean())
    return Ranks(first, precision)


def _ranks_of(scores_G: Vectors, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks of several positives, ascending."""
    own = np.sort(scores_G[items])
    not_below = np.bincount(np.searchsorted(own, scores_G, "right"), minlength=len(own) + 1)[:0:-1].cumsum()
    positives = np.bincount(np.searchsorted(own, own, "right"), minlength=len(own) + 1)[:0:-1].cumsum()
    ranks: NDArray[np.int64] = np.arange(1, len(own) + 1) + not_below - positives
    return ranks


def retrieval_figures(ranks: Ranks) -> dict[str, float]:
    """Recall at 1, 5 and 10, median rank and mean average precision over queries with a positive; NaN without one."""
    found = ranks.known
    return {name: float(v[0]) for name, v in _figures(found)(np.ones((1, len(found.first)))).items()}


def retrieval_intervals(ranks: Ranks, *, seed: int = 0, replicates: int = 1000) -> dict[str, Interval]:
    """95 % bootstrap intervals of ``retrieval_figures`` over queries."""
    found = ranks.known
    return percentile_intervals(_figures(found), len(found.first), FIGURES, seed=seed, replicates=replicates)


def _figures(ranks: Ranks) -> Any:
    order = np.argsort(ranks.first, kind="stable")
    ordered = ranks.first[order].astype(np.float64)
    hits = {f"r@{k}": (ranks.first <= k).astype(np.float64) for k in RANKS}

    def statistic(weights_RQ: Array) -> dict[str, Array]:
        """Weighted means, and the weighted median with its two middle ranks."""
        total = weights_RQ.sum(1)
        if not len(ordered):
            return {name: np.full(len(weights_RQ), np.nan) for name in FIGURES}
        found = {name: weights_RQ @ hit / total for name, hit in hits.items()}
        reached = weights_RQ[:, order].cumsum(1)
        low, high = (ordered[(reached < (total[:, None] + side) / 2).sum(1)] for side in (0, 1))
        return {**found, "median_rank": (low + high) / 2, "map": weights_RQ @ ranks.precision / total}

    return statistic


# -- classes named in words ------------------------------------------------------------------------------------------------------


def class_vectors(vectors_E: Sequence[ArrayLike]) -> Vectors:
    """One unit vector a class, (L, E): the normalised mean over its phrasings (N, E), each of unit length (arXiv:2103.00020).

    Raises:
        ShapeError: a class has no phrasing.
    """
    found = []
    for k, phrasings in enumerate(vectors_E):
        array = as_vectors(phrasings, f"class {k}")
        if not len(array):
            raise ShapeError(f"class {k} has no phrasing")
        found.append(array.mean(0, dtype=np.float64))
    stacked = np.stack(found)
    made: Vectors = (stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return made


# -- the space -------------------------------------------------------------------------------------------------------------------


def alignment(a_NE: ArrayLike, b_NE: ArrayLike) -> NDArray[np.float64]:
    """``|a_n - b_n|^2`` of vectors that belong together, (N,); alignment is their mean (arXiv:2005.10242, eq. 4 with exponent 2)."""
    a, b = as_vectors(a_NE, "a"), as_vectors(b_NE, "b")
    if a.shape != b.shape:
        raise ShapeError(f"vectors that belong together have one shape, got {a.shape} and {b.shape}")
    found: NDArray[np.float64] = np.square(a - b, dtype=np.float64).sum(1)
    return found


def gaussian_kernel(vectors_NE: ArrayLike, *, sharpness: float = 2.0) -> Vectors:
    """``exp(-t |x_i - x_j|^2)``, (N, N), zero where i = j."""
    x = as_vectors(vectors_NE, "vectors")
    square = np.square(x, dtype=np.float64).sum(1)
    kernel = np.empty((len(x), len(x)), np.float32)
    for start, stop, scores in score_blocks(x, x):
        distance = np.maximum(square[start:stop, None] + square[None, :] - 2.0 * scores, 0.0)
        kernel[start:stop] = np.exp(-sharpness * distance)
    np.fill_diagonal(kernel, 0.0)
    return kernel


def uniformity(vectors_NE: ArrayLike, *, sharpness: float = 2.0) -> float:
    """``log mean_{i != j} exp(-t |x_i - x_j|^2)`` (arXiv:2005.10242, eq. 5): the lower, the more evenly spread; NaN below two rows."""
    x = as_vectors(vectors_NE, "vectors")
    if len(x) < 2:
        return float("nan")
    square, total = np.square(x, dtype=np.float64).sum(1), 0.0
    for start, stop, scores in score_blocks(x, x):
        kernel = np.exp(-sharpness * np.maximum(square[start:stop, None] + square[None, :] - 2.0 * scores, 0.0))
        kernel[np.arange(stop - start), np.arange(start, stop)] = 0.0
        total += float(kernel.sum())
    return float(np.log(total / (len(x) * (len(x) - 1.0))))


def modality_gap(a_NE: ArrayLike, b_ME: ArrayLike) -> float:
    """``|mean a - mean b|`` (arXiv:2203.02053): how far two sources lie apart as a whole; NaN without rows on a side."""
    a, b = as_vectors(a_NE, "a"), as_vectors(b_ME, "b")
    if not len(a) or not len(b):
        return float("nan")
    return float(np.linalg.norm(a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)))


def occurrences(queries_QE: ArrayLike, gallery_GE: ArrayLike, k: int = 10) -> NDArray[np.float64]:
    """How many queries have each item among their k nearest, (G,); items tied at the k-th place share what is left of it.

    Raises:
        ShapeError: the two sides do not fit each other.
    """
    queries, gallery = as_vectors(queries_QE, "queries"), as_vectors(gallery_GE, "gallery")
    found = np.zeros(len(gallery))
    for _, _, scores in score_blocks(queries, gallery):
        found += nearest_shares(scores, k).sum(0, dtype=np.float64)
    return found


def nearest_shares(scores_QG: Vectors, k: int) -> Vectors:
    """(Q, G): 1 for an item among a query's k nearest, 0 for others, a share for items tied at the k-th place; rows sum to min(k, G)."""
    k = min(k, scores_QG.shape[1])
    if k == 0:
        return np.zeros(scores_QG.shape, np.float32)
    edge = np.partition(scores_QG, -k, axis=1)[:, -k, None]
    above, tied = scores_QG > edge, scores_QG == edge
    share = (k - np.count_nonzero(above, axis=1)) / np.count_nonzero(tied, axis=1)
    shares: Vectors = above + tied * share[:, None].astype(np.float32)
    return shares


def skewness(values: ArrayLike, axis: int = -1) -> Array:
    """``mean((x - m)^3) / mean((x - m)^2)^1.5``; 0 where all values are equal.

    Of k-occurrences it is hubness (Radovanovic et al., JMLR 2010): about 0 is even, far above means hubs that many queries find.
    """
    x = np.asarray(values, np.float64)
    off = x - x.mean(axis, keepdims=True)
    second, third = np.square(off).mean(axis), np.power(off, 3).mean(axis)
    flat = second <= 1e-20 * np.maximum(np.square(x).mean(axis), 1e-300)
    result: Array = np.where(flat, 0.0, third / np.where(flat, 1.0, second) ** 1.5)
    return result


def hubness(queries_QE: ArrayLike, gallery_GE: ArrayLike, k: int = 10) -> float:
    """The skewness of ``occurrences``; NaN without queries or items."""
    found = occurrences(queries_QE, gallery_GE, k)
    return float(skewness(found)) if len(found) and len(np.asarray(queries_QE)) else float("nan")


def effective_rank(vectors_NE: ArrayLike) -> float:
    """``exp(-sum_k p_k log p_k)``, p the singular values over their sum (Roy and Vetterli, 2007): how many directions are used.

    NaN for vectors that are all zero, or no rows.
    """
    x = as_vectors(vectors_NE, "vectors")
    gram = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), 1 << 14):
        part = x[start : start + (1 << 14)].astype(np.float64)
        gram += part.T @ part
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    if values.sum() <= 0:
        return float("nan")
    p = values[values > 1e-7 * values.max()] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


# -- intervals of the space ------------------------------------------------------------------------------------------------------


def mean_interval(values_N: ArrayLike, *, seed: int = 0) -> Interval:
    """95 % bootstrap interval of a mean."""
    values = np.asarray(values_N, np.float64)
    return percentile_intervals(lambda w: {"mean": w @ values / w.sum(1)}, len(values), ["mean"], seed=seed)["mean"]


def _centred(point: float, statistic: Callable[[Array], Array], n: int, seed: int, replicates: int) -> Interval:
    """A bootstrap interval moved so that the resamples' median lies on the figure: drawing rows twice biases all that is no mean."""

    def named(weights: Array) -> dict[str, Array]:
        return {"x": statistic(weights)}

    low, high = percentile_intervals(named, n, ["x"], seed=seed, replicates=replicates)["x"]
    middle, _ = percentile_intervals(named, n, ["x"], seed=seed, replicates=replicates, level=0.0)["x"]
    return point + low - middle, point + high - middle


def uniformity_interval(vectors_NE: ArrayLike, *, seed: int = 0, replicates: int = 400) -> Interval:
    """95 % bootstrap interval of ``uniformity`` over rows, a row drawn twice not compared with itself; it holds N N numbers at once."""
    kernel = gaussian_kernel(vectors_NE)

    def statistic(weights_RN: Array) -> Array:
        pairs = weights_RN.sum(1) ** 2 - np.square(weights_RN).sum(1)
        total = ((weights_RN.astype(np.float32) @ kernel) * weights_RN).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = np.where(total > 0, np.log(total / pairs), np.nan)
        return found

    return _centred(uniformity(vectors_NE), statistic, len(kernel), seed, replicates)


def gap_interval(a_NE: ArrayLike, b_NE: ArrayLike, *, seed: int = 0, replicates: int = 400) -> Interval:
    """95 % bootstrap interval of ``modality_gap`` over rows that have both sources."""
    off = as_vectors(a_NE, "a") - as_vectors(b_NE, "b")

    def statistic(weights_RN: Array) -> Array:
        found: Array = np.linalg.norm(weights_RN.astype(np.float32) @ off, axis=1) / weights_RN.sum(1)
        return found

    low, high = _centred(modality_gap(a_NE, b_NE), statistic, len(off), seed, replicates)
    return max(low, 0.0), high


def hubness_interval(queries_QE: ArrayLike, gallery_GE: ArrayLike, k: int = 10, *, seed: int = 0, replicates: int = 400) -> Interval:
    """95 % bootstrap interval of ``hubness`` over queries; it holds Q G numbers at once."""
    queries, gallery = as_vectors(queries_QE, "queries"), as_vectors(gallery_GE, "gallery")
    parts = [nearest_shares(scores, k) for _, _, scores in score_blocks(queries, gallery)]
    shares = np.concatenate(parts) if parts else np.zeros((0, len(gallery)), np.float32)

    def statistic(weights_RQ: Array) -> Array:
        return skewness(weights_RQ.astype(np.float32) @ shares)

    return _centred(hubness(queries, gallery, k), statistic, len(queries) if len(gallery) else 0, seed, replicates)
