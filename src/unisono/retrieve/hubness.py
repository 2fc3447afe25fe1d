"""Corrections of a gallery that need no training: against hubs, which many queries find, and against vectors that crowd into a cone.

A correction is fitted to a gallery with *banks*, queries and items from training rows. What comes out is again a gallery that is searched
by inner product, so that any index can hold it.

Letters: Q queries, G items of the gallery, B vectors of a bank, E width of a vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unisono.core.errors import ConfigError, ShapeError
from unisono.core.registry import Count, NonNegative, Registry
from unisono.retrieve.measures import Vectors, as_vectors, score_blocks


@dataclass(frozen=True)
class Corrected:
    """A gallery as it is to be searched.

    Attributes:
        gallery: (G, E) or, where an item's score has a term of its own, (G, E + 1).
        plain: (G, E) the gallery as it was given.
        found: (G,) which items a query has to have on top to be corrected; None where every query is.
        extended: the gallery has one channel more, which queries meet with 1, or with 0 where they are not corrected.
    """

    gallery: Vectors
    plain: Vectors
    found: NDArray[np.bool_] | None = None
    extended: bool = False

    def queries(self, queries_QE: ArrayLike) -> Vectors:
        """Queries as they are to be searched by; each depends on itself alone."""
        queries = as_vectors(queries_QE, "queries")
        if not self.extended:
            return queries
        own = np.ones(len(queries), np.float32)
        if self.found is not None:
            for start, stop, scores in score_blocks(queries, self.plain):
                own[start:stop] = self.found[scores.argmax(1)]
        return np.concatenate([queries, own[:, None]], 1)


class Correction(ABC):
    """A way to correct a gallery."""

    @abstractmethod
    def fit(self, gallery_GE: ArrayLike, *, query_bank: ArrayLike, gallery_bank: ArrayLike) -> Corrected:
        """Correct a gallery.

        Args:
            gallery_GE: (G, E) vectors of unit length.
            query_bank: (B, E) queries of training rows.
            gallery_bank: (B, E) items of training rows, of the gallery's side.

        Raises:
            ShapeError: a bank is empty or of another width.
        """


corrections: Registry[Correction] = Registry("correction", Correction, package="unisono.retrieve")


def _three(gallery: ArrayLike, query_bank: ArrayLike, gallery_bank: ArrayLike) -> tuple[Vectors, Vectors, Vectors]:
    made = as_vectors(gallery, "gallery"), as_vectors(query_bank, "bank of queries"), as_vectors(gallery_bank, "bank of items")
    for bank, what in zip(made[1:], ("queries", "items"), strict=True):
        if not len(bank):
            raise ShapeError(f"the bank of {what} is empty")
        if bank.shape[1] != made[0].shape[1]:
            raise ShapeError(f"the bank of {what} has {bank.shape[1]} channels, the gallery has {made[0].shape[1]}")
    return made


# -- normalising by banks --------------------------------------------------------------------------------------------------------


def log_sums(gallery_GE: Vectors, bank_BE: Vectors, beta: float) -> NDArray[np.float64]:
    """``log sum_b exp(beta <g, b>)`` of every item, (G,)."""
    found = np.empty(len(gallery_GE))
    for start, stop, scores in score_blocks(gallery_GE, bank_BE):
        scaled = beta * scores.astype(np.float64)
        top = scaled.max(1)
        found[start:stop] = top + np.log(np.exp(scaled - top[:, None]).sum(1))
    return found


def found_by(queries_BE: Vectors, gallery_GE: Vectors, nearest: int) -> NDArray[np.bool_]:
    """(G,) items among the ``nearest`` of at least one query."""
    found, k = np.zeros(len(gallery_GE), bool), min(nearest, len(gallery_GE))
    for _, _, scores in score_blocks(queries_BE, gallery_GE):
        found[np.argpartition(-scores, k - 1, axis=1)[:, :k].reshape(-1)] = True
    return found


@corrections.register("dbnorm", source="arXiv:2310.11612")
class DBNorm(Correction):
    """Dual inverted softmax: an item counts the less, the nearer it is to everything in a bank of queries and in a bank of items.

    ``s'(q, g) = e^{a s(q, g)} / sum_{q' in bank} e^{a s(q', g)} * e^{b s(q, g)} / sum_{g' in bank} e^{b s(g', g)}``. The logarithm is
    ``(a + b) s(q, g) - o(g)``: an inner product with one channel more. With b = 0 it is the inverted softmax. The dynamic kind corrects
    only queries whose nearest item is among those that a query of the bank finds.

    Args:
        query_beta: a.
        gallery_beta: b.
        dynamic: correct only where a hub could be on top.
        nearest: how many items a query of the bank finds.
    """

    def __init__(
        self, *, query_beta: NonNegative = 20.0, gallery_beta: NonNegative = 20.0, dynamic: bool = True, nearest: Count = 1
    ) -> None:
        if query_beta + gallery_beta <= 0:
            raise ConfigError("dbnorm: one of query_beta and gallery_beta has to be above 0")
        self.query_beta, self.gallery_beta, self.dynamic, self.nearest = query_beta, gallery_beta, dynamic, nearest

    def fit(self, gallery_GE: ArrayLike, *, query_bank: ArrayLike, gallery_bank: ArrayLike) -> Corrected:
        """Correct a gallery.

        Raises:
            ShapeError: a bank is empty or of another width.
        """
        gallery, queries, items = _three(gallery_GE, query_bank, gallery_bank)
        offset = log_sums(gallery, queries, self.query_beta) + log_sums(gallery, items, self.gallery_beta)
        own = -(offset - offset.mean()) / (self.query_beta + self.gallery_beta)
        found = found_by(queries, gallery, self.nearest) if self.dynamic else None
        return Corrected(np.concatenate([gallery, own[:, None].astype(np.float32)], 1), gallery, found, True)


# -- inverse graph convolution ---------------------------------------------------------------------------------------------------


def unit(vectors_NE: NDArray[Any]) -> Vectors:
    """Vectors at unit length; zero stays zero."""
    found: Vectors = (vectors_NE / np.maximum(np.linalg.norm(vectors_NE, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return found


def inverse_convolution(vectors_NE: ArrayLike, bank_BE: ArrayLike, *, rate: float, nearest: int | None) -> Vectors:
    """``normalise(x - r / k sum_j s(x, j) y_j)`` over the k nearest of a bank, or over all of it with s less its mean for x.

    Args:
        vectors_NE: x.
        bank_BE: y.
        rate: r.
        nearest: k; None for all.
    """
    x, bank = as_vectors(vectors_NE, "vectors"), as_vectors(bank_BE, "bank")
    found = np.empty_like(x)
    for start, stop, scores in score_blocks(x, bank):
        if nearest is None:
            weights, count = scores - scores.mean(1, keepdims=True), len(bank)
        else:
            count = min(nearest, len(bank))
            near = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            weights = np.zeros_like(scores)
            np.put_along_axis(weights, near, np.take_along_axis(scores, near, 1), 1)
        found[start:stop] = x[start:stop] - (rate / count) * (weights @ bank)
    return unit(found)


@corrections.register("invgc", source="arXiv:2310.13366")
class InvGC(Correction):
    """Inverse graph convolution: every item of the gallery moves away from its neighbours, so that a cone of vectors opens.

    ``x' = normalise(x - r / k sum_{j in kNN(x)} s(x, j) y_j)``, with neighbours from a bank of items and from a bank of queries; the two
    results are averaged.

    Args:
        rate: r; 0 changes nothing.
        nearest: k; None takes the whole bank, with similarities less their mean.
    """

    def __init__(self, *, rate: NonNegative = 0.5, nearest: Count | None = 10) -> None:
        self.rate, self.nearest = rate, nearest

    def fit(self, gallery_GE: ArrayLike, *, query_bank: ArrayLike, gallery_bank: ArrayLike) -> Corrected:
        """Correct a gallery.

        Raises:
            ShapeError: a bank is empty or of another width.
        """
        gallery, queries, items = _three(gallery_GE, query_bank, gallery_bank)
        parts = [inverse_convolution(gallery, bank, rate=self.rate, nearest=self.nearest) for bank in (items, queries)]
        return Corrected(unit((parts[0] + parts[1]) / 2), gallery)
