"""``graph-transformer``: attention to neighbours alone, weighed by edges, and Laplacian eigenvectors (arXiv:2012.09699)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.examples import column_of
from tests.systems.trunks import WIDTH, close, recipe_trunk, trunk_of, values_of
from tests.tokens import net
from unisono.core.draw import Draw
from unisono.core.tokens import Meta
from unisono.modalities.base import tokenisers
from unisono.modalities.graph import Graph
from unisono.modalities.laplacian import laplacian_eigenvectors
from unisono.nn.trunk import Trunk

SMALL = ["steps.along.mixer=edge_attention(heads=2)"]
READ = {"read": "mean"}
RING = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (3, 0), (0, 3)]
APART = [*RING, (4, 5), (5, 4), (5, 6), (6, 5)]


def tokens(trunk: Trunk, x: Tensor, meta: Meta) -> Tensor:
    with torch.no_grad():
        return trunk.run(x, trunk.plan(meta)).tokens


@pytest.mark.parametrize("seed", range(3))
def test_it_is_equivariant_to_the_numbering_of_nodes(seed: int) -> None:
    meta, trunk = net(0, 7, APART), recipe_trunk("graph-transformer", SMALL)
    x = values_of(meta)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(7))
    rank = torch.argsort(order)
    assert meta.edges is not None
    moved = replace(net(0, 7, APART), edges=rank[meta.edges])
    close(tokens(trunk, x[order], moved), tokens(trunk, x, meta)[order])


def test_the_pooled_answer_and_eigenvectors_go_with_the_numbering() -> None:
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (1, 4), (0, 2)]).T  # no two equal eigenvalues
    order = np.random.default_rng(1).permutation(6)
    first = laplacian_eigenvectors(pairs, 6, 4)
    second = laplacian_eigenvectors(np.argsort(order)[pairs], 6, 4)
    np.testing.assert_allclose(np.abs(second), np.abs(first[order]), atol=1e-5)
    assert np.allclose((second * first[order]).mean(0) ** 2, 1, atol=1e-5)


def test_components_that_are_not_joined_do_not_influence_each_other() -> None:
    meta, trunk = net(0, 7, APART), recipe_trunk("graph-transformer", SMALL)
    x = values_of(meta)
    other = x.clone()
    other[4:] = values_of(meta, 5)[4:]
    a, b = tokens(trunk, x, meta), tokens(trunk, other, meta)
    assert torch.equal(a[:4], b[:4])
    assert not bool((a[4:] == b[4:]).all(1).any())


@pytest.mark.parametrize("carried", [0.0, 0.75])
def test_a_complete_graph_with_constant_edges_is_ordinary_self_attention(carried: float) -> None:
    """A constant value on all edges weighs every channel alike for all pairs, as if the keys' map had rows of that size."""
    pairs = [(u, v) for u in range(5) for v in range(5)]
    meta = replace(net(0, 5, pairs), edge_values=torch.full((25, 2), carried))
    x = values_of(meta)
    along = trunk_of([{"scope": "neighbours", "mixer": "edge_attention(heads=2)"}, READ])
    plain = trunk_of([{"scope": "sample"}, READ])
    weights = dict(along.state_dict())
    edge = weights.pop("steps.0.mixer.edge.weight")
    factor = 1 + (torch.full((2,), carried, dtype=torch.float64) @ edge.T)
    for name in ("weight", "bias"):
        whole = weights[f"steps.0.mixer.project.{name}"].clone()
        whole[WIDTH : 2 * WIDTH] *= factor if name == "bias" else factor[:, None]
        weights[f"steps.0.mixer.project.{name}"] = whole
    plain.load_state_dict(weights)
    close(tokens(along, x, meta), tokens(plain, x, meta))


def test_sparse_is_dense_with_a_mask() -> None:
    meta = net(0, 7, APART)
    x, trunk = values_of(meta), trunk_of([{"scope": "neighbours", "mixer": "edge_attention(heads=2)", "ffn": "none"}, READ])
    layer: Any = trunk.steps[0]
    assert meta.edges is not None and meta.edge_values is not None
    size = WIDTH // 2
    normed = torch.nn.functional.layer_norm(x, (WIDTH,), layer.norms[0].weight, layer.norms[0].bias, layer.norms[0].eps)
    q, k, v = layer.mixer.project(normed).view(7, 3, 2, size).unbind(1)
    scores = torch.full((2, 7, 7), -math.inf, dtype=torch.float64)
    for (u, t), values in zip(meta.edges.T.tolist(), meta.edge_values.double(), strict=True):
        weigh = 1 + layer.mixer.edge(values).view(2, size)
        scores[:, t, u] = (q[t] * k[u] * weigh).sum(-1) / math.sqrt(size)
    mixed = torch.einsum("hts,shd->thd", torch.softmax(scores, -1), v).reshape(7, WIDTH)
    with torch.no_grad():
        close(tokens(trunk, x, meta), x + layer.mixer.out(mixed))


# --- eigenvectors


def dense_laplacian(edges: np.ndarray[Any, Any], nodes: int) -> np.ndarray[Any, Any]:
    near = np.zeros((nodes, nodes))
    for u, v in edges.T:
        if u != v:
            near[u, v] = near[v, u] = 1
    degree = np.maximum(near.sum(1), 1)
    return np.eye(nodes) - near / np.sqrt(np.outer(degree, degree))


def test_they_are_eigenvectors_in_the_order_of_their_eigenvalues() -> None:
    edges = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 0), (1, 0), (2, 5)]).T
    found, laplacian = laplacian_eigenvectors(edges, 6, 8).astype(np.float64), dense_laplacian(edges, 6)
    assert found.shape == (6, 8)
    assert not found[:, 5:].any(), "six nodes have five eigenvectors besides the first"
    values = [(f @ laplacian @ f) / (f @ f) for f in found[:, :5].T]
    np.testing.assert_allclose(values, np.linalg.eigvalsh(laplacian)[1:], atol=1e-5)
    np.testing.assert_allclose(laplacian @ found[:, :5], found[:, :5] * values, atol=1e-5)
    np.testing.assert_allclose((found[:, :5] ** 2).mean(0), 1, atol=1e-5)


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_small_graphs_and_graphs_without_edges_have_some_too(nodes: int) -> None:
    found = laplacian_eigenvectors(np.zeros((2, 0), np.int64), nodes, 4)
    assert found.shape == (nodes, 4) and bool(np.isfinite(found).all())


def test_signs_are_drawn_in_training_by_row_and_epoch_alone() -> None:
    ring = np.array([(k, (k + 1) % 6) for k in range(6)] + [(0, 3)]).T
    graph = Graph(6, np.zeros((6, 0), np.float32), None, ring, np.zeros((7, 0), np.float32), False)
    tokeniser = tokenisers.build("nodes(rounds=0, walks=0, eigenvectors=3)")
    column = column_of("graph")
    column = replace(column, statistics=tokeniser.fit(column, [[graph]]))

    def features(draw: Draw | None, cells: int = 1) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = tokeniser.pack([column], {"graph": [graph] * cells}, draw).inputs["node"].numpy()[:, -3:]
        return found

    still = features(None)
    assert np.array_equal(still, laplacian_eigenvectors(ring, 6, 3))
    seen = set()
    for epoch in range(40):
        moved = features(Draw(0, epoch, np.array([5])))
        signs = (moved * still).sum(0) / (still**2).sum(0)
        np.testing.assert_allclose(np.abs(signs), 1, atol=1e-6)
        np.testing.assert_allclose(moved, still * signs, atol=1e-6)
        seen.add(tuple(np.sign(signs).tolist()))
        both = features(Draw(0, epoch, np.array([9, 5])), 2)
        assert np.array_equal(both[6:], moved)
    assert len(seen) == 8
