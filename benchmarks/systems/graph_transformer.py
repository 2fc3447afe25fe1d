"""A transformer on graphs, attention to neighbours and Laplacian eigenvectors (arXiv:2012.09699; recipe ``graph-transformer``).

Claim: eigenvectors of the Laplacian tell apart what neighbours' features cannot. Exact (``tests/systems/test_graph_transformer.py``):
equivariance to the numbering of nodes; constant edges on a complete graph are ordinary self-attention; components do not influence each
other; sparse equals dense. The edges keep their values from layer to layer; the paper also updates them. Batch norm in place of layer
norm is a word of ``norm``.

Graphs of nodes without features: one ring or two rings of half the size, which look the same from every node; three communities or
none at the same number of edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

import unisono
from benchmarks import Goal, Measured, row
from benchmarks.systems.common import accuracy, differences, shares

SETTINGS = ["width=32", "train.steps=200", "train.batch=64", "train.lr=0.002"]
ROWS = 600


def ring(nodes: int, first: int = 0) -> list[list[int]]:
    """Edges of a cycle."""
    return [[first + k, first + (k + 1) % nodes] for k in range(nodes)]


def communities(rng: np.random.Generator, nodes: int, grouped: bool) -> list[list[int]]:
    """Edges among three groups mostly, or anywhere, as many in both."""
    group, edges = np.arange(nodes) % 3, set()
    while len(edges) < 2 * nodes:
        a, b = sorted(rng.integers(0, nodes, 2).tolist())
        if a != b and (not grouped or group[a] == group[b] or rng.random() < 0.05):
            edges.add((a, b))
    return [list(e) for e in edges]


def graphs(seed: int, world: str) -> pa.Table:
    """Graphs of two kinds, nodes numbered at random."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for k in range(ROWS):
        nodes, kind = int(2 * rng.integers(5, 9)), (k + k // 10) % 2 == 0
        if world == "rings":
            edges = ring(nodes) if kind else [*ring(nodes // 2), *ring(nodes // 2, nodes // 2)]
        else:
            edges = communities(rng, nodes, kind)
        name = rng.permutation(nodes)
        cell = {"nodes": nodes, "edges": [[int(name[a]), int(name[b])] for a, b in edges]}
        found.append({"graph": cell, "kind": "one" if kind else "other", "split": "test" if k % 10 >= 7 else "train"})
    return pa.Table.from_pylist(found)


@row(
    "systems/graph-transformer",
    goals=[Goal("accuracy_gain", must=0.1)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    over={"world": ("rings", "communities")},
    derive=differences("accuracy"),
)
def graph_transformer(*, arm: str, seed: int, world: str) -> Measured:
    """Accuracy on small graphs with Laplacian eigenvectors and without."""
    tokens = [] if arm == "ours" else ["tokens.graph=nodes(rounds=0, walks=0)"]
    model = unisono.fit(
        graphs(seed, world), "kind=category", recipe="graph-transformer", split="split", columns={"graph": "graph"},
        settings=[*SETTINGS, *tokens], seed=seed, progress=False,
    )  # fmt: skip
    return shares({"accuracy": accuracy(model, "kind")})
