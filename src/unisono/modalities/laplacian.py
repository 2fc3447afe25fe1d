"""Where a node lies in its graph, by the smoothest functions on it: eigenvectors of the normalised Laplacian (arXiv:2012.09699).

Letters: n nodes, L edges, K eigenvectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def laplacian_eigenvectors(edges: NDArray[np.int64], nodes: int, count: int) -> NDArray[np.float32]:
    """The eigenvectors of ``I - A_ij / sqrt(d_i d_j)`` with the smallest eigenvalues after the first, each of mean square 1.

    Directions, loops and repeated edges are ignored. Signs are such that the entry that is largest in size is positive, and graphs
    with fewer eigenvectors have zeros for the others. Eigenvectors of equal eigenvalues may be any basis of their space.

    Args:
        edges: (2, L) node numbers.
        nodes: n.
        count: K.

    Returns:
        (n, K).
    """
    out = np.zeros((nodes, count), np.float32)
    if count == 0 or nodes < 2:
        return out
    near = np.zeros((nodes, nodes))
    near[edges[0], edges[1]] = near[edges[1], edges[0]] = 1.0
    np.fill_diagonal(near, 0.0)
    degree = near.sum(1)
    root = 1 / np.sqrt(np.maximum(degree, 1))
    values, vectors = np.linalg.eigh(np.eye(nodes) - root[:, None] * near * root[None, :])
    vectors = vectors[:, np.argsort(values, kind="stable")][:, 1 : count + 1] * np.sqrt(nodes)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0, keepdims=True), 0)
    out[:, : vectors.shape[1]] = vectors * np.where(largest < 0, -1.0, 1.0)
    return out
