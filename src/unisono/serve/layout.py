"""What a space looks like: a map of it in two dimensions, and the items that are almost alike.

Letters: N items, E dimensions of the space, L landmarks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

#: Up to this many items are laid out themselves; of more, as many landmarks, between which the others are placed.
LANDMARKS = 2500
#: Up to this many items every pair is compared; of more, those that share one of their two nearest cells.
ALL_PAIRS = 20_000
_BLOCK, _PAIR_BLOCK = 2048, 256
_NEIGHBOURS = 4
#: The most items of a cell that are all compared with each other.
_CROWD = 4096


def principal(vectors_NE: Floats, *, seed: int = 0) -> Floats:
    """The two directions of largest variance, (N, 2), each within [-1, 1].

    Args:
        vectors_NE: (N, E), memory-mapped or not; read once, in blocks.
        seed: of the sample that the directions are found on.
    """
    count = len(vectors_NE)
    if count < 3 or vectors_NE.shape[1] < 2:
        return (
            np.stack([np.linspace(-0.5, 0.5, count), np.zeros(count)], 1).astype(np.float32)
            if count > 1
            else np.zeros((count, 2), np.float32)
        )
    sample = vectors_NE[_sample(count, 20_000, seed)].astype(np.float64)
    mean = sample.mean(0)
    _, directions = np.linalg.eigh((sample - mean).T @ (sample - mean))
    axes = directions[:, [-1, -2]]
    parts = [(vectors_NE[k : k + _BLOCK] - mean) @ axes for k in range(0, count, _BLOCK)]
    return _framed(np.concatenate(parts))


def neighbourly(vectors_NE: Floats, *, seed: int = 0) -> Floats:
    """A map (N, 2) that keeps neighbours together: t-SNE (van der Maaten & Hinton 2008) of the items or of landmarks among them.

    With more than ``LANDMARKS`` items a seeded sample is laid out, and every other item stands at the mean of its nearest landmarks,
    weighted by ``exp(20 (s - s_max))`` of their cosines s, moved a little so that items do not cover each other.

    Args:
        vectors_NE: (N, E) unit vectors.
        seed: of the sample and the movement.
    """
    count = len(vectors_NE)
    chosen = _sample(count, LANDMARKS, seed)
    landmarks = np.ascontiguousarray(vectors_NE[chosen], np.float32)
    if len(np.unique(landmarks, axis=0)) < 10:
        return principal(vectors_NE, seed=seed)
    places = _tsne(landmarks, seed)
    if len(chosen) == count:
        return _framed(places)
    found = np.empty((count, 2))
    spread = 0.01 * np.ptp(places, 0).max()
    random = np.random.default_rng(seed)
    for begin in range(0, count, _BLOCK):
        cosines = np.asarray(vectors_NE[begin : begin + _BLOCK], np.float32) @ landmarks.T
        near = np.argpartition(-cosines, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        close = np.take_along_axis(cosines, near, 1).astype(np.float64)
        weights = np.exp(20.0 * (close - close.max(1, keepdims=True)))
        mean = (places[near] * weights[..., None]).sum(1) / weights.sum(1)[:, None]
        found[begin : begin + _BLOCK] = mean + spread * random.standard_normal(mean.shape)
    found[chosen] = places
    return _framed(found)


def _tsne(vectors_LE: Floats, seed: int) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = min(50, *vectors_LE.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reduced = PCA(few, random_state=seed).fit_transform(vectors_LE)
        perplexity = min(30.0, (len(vectors_LE) - 1) / 3.0)
        method = TSNE(2, perplexity=perplexity, init="pca", max_iter=600, random_state=seed, n_jobs=1)
        return np.asarray(method.fit_transform(reduced), np.float64)


def _framed(places_N2: NDArray[np.floating]) -> Floats:
    """Centred, and of one scale for both axes, so that nearly all of the items lie within [-1, 1]."""
    low, high = np.percentile(places_N2, [0.2, 99.8], axis=0)
    scale = max(float((high - low).max()) / 2.0, 1e-12)
    framed: Floats = ((places_N2 - (low + high) / 2.0) / scale).astype(np.float32)
    return framed


def _sample(count: int, most: int, seed: int) -> Indices:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def near_duplicates(vectors_NE: Floats, threshold: float, *, seed: int = 0) -> tuple[list[Indices], bool]:
    """Groups of items joined by cosines of at least ``threshold``, the largest groups first.

    Args:
        vectors_NE: (N, E) unit vectors.
        threshold: the least cosine.
        seed: of the cells.

    Returns:
        Groups of two or more places, and whether every pair was compared (see ``ALL_PAIRS``).
    """
    count = len(vectors_NE)
    exact = count <= ALL_PAIRS
    labels = np.arange(count)
    for pairs in _all_pairs(vectors_NE, threshold) if exact else _cell_pairs(vectors_NE, threshold, seed):
        labels = _joined(labels, pairs)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if count else []
    return sorted((g for g in groups if len(g) > 1), key=len, reverse=True), exact


def _joined(labels: Indices, pairs: Indices) -> Indices:
    """Labels of the groups after joining those that pairs connect; no more is kept of the pairs, however many there are."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return labels
    ends = labels[pairs]
    graph = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(labels), len(labels)))
    joined: Indices = connected_components(graph, directed=False)[1].astype(np.int64)[labels]
    return joined


def _all_pairs(vectors: Floats, threshold: float) -> Iterator[Indices]:
    """Every pair of places at least so close, block by block."""
    for begin in range(0, len(vectors), _PAIR_BLOCK):
        block = vectors[begin : begin + _PAIR_BLOCK] @ vectors[begin:].T
        a, b = np.nonzero(block >= threshold)
        yield np.stack([a, b], 1)[a < b] + begin


def _cell_pairs(vectors: Floats, threshold: float, seed: int) -> Iterator[Indices]:
    """Pairs that share one of their two nearest of about sqrt(N) cells."""
    centres = np.asarray(vectors[_sample(len(vectors), int(len(vectors) ** 0.5), seed)], np.float32)
    nearest = [np.argpartition(-(vectors[k : k + _BLOCK] @ centres.T), 2, axis=1)[:, :2] for k in range(0, len(vectors), _BLOCK)]
    cells = np.concatenate(nearest)
    for cell in range(len(centres)):
        members = np.flatnonzero((cells == cell).any(1))
        for some in _windows(members, vectors, centres[cell]):
            for pairs in _all_pairs(np.asarray(vectors[some]), threshold):
                yield some[pairs]


def _windows(members: Indices, vectors: Floats, centre: Floats) -> Iterator[Indices]:
    """The members of a cell; of a crowded one overlapping windows in the order of their cosine with its centre."""
    if len(members) <= _CROWD:
        yield members
        return
    cosines = np.concatenate([vectors[members[k : k + _BLOCK]] @ centre for k in range(0, len(members), _BLOCK)])
    ordered = members[np.argsort(cosines, kind="stable")]
    for begin in range(0, len(ordered) - _CROWD // 2, _CROWD // 2):
        yield ordered[begin : begin + _CROWD]
