"""Graphs: nodes with features, labels or nothing, and edges between them.

Letters: N present cells, n nodes, F node features, V labels, L edges, De values of an edge, R random-walk steps, D width, T tokens (nodes).

A cell is a struct or JSON text ``{nodes, edges: [[u, v], ...], edge_values?, directed?}``; ``nodes`` is a count, a list of numbers, a
list of lists of numbers, or a list of labels; nodes are numbered from 0. Edges are undirected unless ``directed`` is true.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.registry import Count, Index
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.laplacian import laplacian_eigenvectors

MAX_NODES, MAX_EDGES, MAX_TEXT = 65_536, 1_048_576, 64 * 1024 * 1024
#: Random-walk features are computed densely for graphs of up to so many nodes; beyond, they are 0 and a flag says so.
MAX_WALK_NODES = 512


@dataclass(frozen=True)
class Graph:
    """A decoded graph.

    Attributes:
        nodes: n.
        features: (n, F) float32; F is 0 where nodes have none.
        labels: the n labels, or None.
        edges: (2, L) int64, from and to, as given.
        edge_values: (L, De) float32.
        directed: whether an edge goes one way only.
    """

    nodes: int
    features: NDArray[np.float32]
    labels: tuple[str, ...] | None
    edges: NDArray[np.int64]
    edge_values: NDArray[np.float32]
    directed: bool

    def both_ways(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The edges as messages pass: an undirected one both ways, a loop once."""
        if self.directed:
            return self.edges, self.edge_values
        back = self.edges[0] != self.edges[1]
        return (
            np.concatenate([self.edges, self.edges[::-1, back]], 1),
            np.concatenate([self.edge_values, self.edge_values[back]]),
        )


@modalities.register("graph")
class GraphModality(Modality):
    """One graph a cell."""

    name = "graph"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim structs with ``nodes`` and ``edges``, and JSON text of them."""
        if pa.types.is_struct(sample.type):
            names = {field.name for field in sample.type}
            return Guess(0.97, "structs with nodes and edges") if {"nodes", "edges"} <= names else None
        texts = sample.values[:20]
        if not texts or not all(isinstance(t, str) and t.lstrip().startswith("{") and '"edges"' in t and '"nodes"' in t for t in texts):
            return None
        return Guess(0.96, "JSON text with nodes and edges")

    def decode(self, cell: Any, column: Column, context: Context) -> Graph:
        """Turn one struct or JSON text into a graph.

        Raises:
            Unreadable: no JSON, nodes or edges of another form, an edge to a node that is not there, infinite values.
        """
        if isinstance(cell, str):
            cell = _from_json(cell)
        if not isinstance(cell, Mapping) or cell.get("nodes") is None:
            raise Unreadable("a graph is {nodes, edges: [[u, v], ...], edge_values?, directed?}; this cell has no nodes")
        count, features, labels = _nodes(cell["nodes"])
        edges = _edges(cell.get("edges"), count)
        directed = cell.get("directed")
        if directed is not None and not isinstance(directed, bool):
            raise Unreadable(f"directed is true or false, not {str(directed)[:40]!r}")
        graph = Graph(count, features, labels, edges, _edge_values(cell.get("edge_values"), edges.shape[1]), bool(directed))
        if column.statistics:
            _agree(graph, column.statistics)
        return graph

    def show(self, cell: Any) -> Any:
        """Counts of nodes and edges."""
        return None if cell is None else f"graph of {cell.nodes} nodes and {cell.edges.shape[1]} edges"


def _from_json(text: str) -> Any:
    if len(text) > MAX_TEXT:
        raise Unreadable(f"{len(text):,} characters of JSON are more than the {MAX_TEXT:,} allowed")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the text is no JSON ({str(error)[:80]})") from None


def _numbers(given: Any, what: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(given, np.float64).astype(np.float32)
    except (ValueError, TypeError):
        raise Unreadable(f"{what} are ragged, or hold something else than numbers") from None
    if not np.isfinite(array).all():
        raise Unreadable(f"{what} hold a value that is missing, infinite or too large for 32 bits")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise Unreadable(f"{what} are numbers or lists of numbers, not of the shape {array.shape}")
    return array


def _nodes(given: Any) -> tuple[int, NDArray[np.float32], tuple[str, ...] | None]:
    count = given if isinstance(given, int) and not isinstance(given, bool) else len(given) if isinstance(given, list) else None
    if count is None:
        raise Unreadable(f"nodes are a count, a list of features or a list of labels, not {type(given).__name__}")
    if not 0 < count <= MAX_NODES:
        raise Unreadable(f"a graph of {count:,} nodes; 1 to {MAX_NODES:,} are possible")
    if isinstance(given, int):
        return count, np.zeros((count, 0), np.float32), None
    if all(isinstance(v, str) for v in given):
        return count, np.zeros((count, 0), np.float32), tuple(given)
    return count, _numbers(given, "nodes"), None


def _edges(given: Any, count: int) -> NDArray[np.int64]:
    pairs = [] if given is None else given
    if not isinstance(pairs, list) or len(pairs) > MAX_EDGES:
        raise Unreadable(f"edges are a list of at most {MAX_EDGES:,} pairs [u, v]")
    for k, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in pair):
            raise Unreadable(f"edge {k} is {str(pair)[:40]}, not a pair [u, v] of whole numbers")
        if not (0 <= pair[0] < count and 0 <= pair[1] < count):
            raise Unreadable(f"edge {k} is {list(pair)}, but the graph has the nodes 0 to {count - 1}")
    return np.array(pairs, np.int64).reshape(-1, 2).T


def _edge_values(given: Any, count: int) -> NDArray[np.float32]:
    if given is None:
        return np.zeros((count, 0), np.float32)
    if not isinstance(given, list) or len(given) != count:
        raise Unreadable(f"{len(given) if isinstance(given, list) else 'no list of'} edge_values for {count} edges")
    return _numbers(given, "edge_values") if count else np.zeros((0, 0), np.float32)


def _agree(graph: Graph, statistics: Mapping[str, Any]) -> None:
    expected = len(statistics.get("mean", ()))
    if graph.features.shape[1] != expected:
        raise Unreadable(f"nodes of {graph.features.shape[1]} features in a column of graphs with {expected}")
    expected = len(statistics.get("edge_mean", ()))
    if graph.edges.shape[1] and graph.edge_values.shape[1] != expected:
        raise Unreadable(f"edges of {graph.edge_values.shape[1]} values in a column of graphs with {expected}")


def walk_features(graph: Graph, steps: int) -> NDArray[np.float32]:
    """Structure around each node: degrees and the chance that a random walk is back after 2, 3, ... steps (arXiv:2110.07875).

    Returns:
        (n, 3 + R): log(1 + out degree), log(1 + in degree), 1 where walks were computed, and R chances.
    """
    edges, _ = graph.both_ways()
    out = np.zeros((graph.nodes, 3 + steps), np.float32)
    out[:, 0] = np.log1p(np.bincount(edges[0], minlength=graph.nodes))
    out[:, 1] = np.log1p(np.bincount(edges[1], minlength=graph.nodes))
    if steps and graph.nodes <= MAX_WALK_NODES:
        step = np.zeros((graph.nodes, graph.nodes), np.float32)
        np.add.at(step, (edges[0], edges[1]), 1.0)
        step /= np.maximum(step.sum(1, keepdims=True), 1)
        walk = step
        for r in range(steps):
            walk = walk @ step
            out[:, 3 + r] = walk.diagonal()
        out[:, 2] = 1.0
    return out


@tokenisers.register("nodes", source="arXiv:2110.07875")
class Nodes(Tokeniser):
    """Graphs by a token for each node: features or label, structure, and rounds of messages from the neighbours.

    Args:
        rounds: rounds of messages.
        walks: random-walk steps looked at.
        eigenvectors: smooth functions on the graph that say where a node lies (``modalities.laplacian``, arXiv:2012.09699), each with a
            random sign in training; graphs of more than 512 nodes have zeros.
        most: labels of the vocabulary at most; others share one vector, which stands in for known ones now and then in training.
    """

    reads = frozenset({"graph"})

    def __init__(self, *, rounds: Index = 2, walks: Index = 6, most: Count = 1000, eigenvectors: Index = 0) -> None:
        self.rounds, self.walks, self.most, self.eigenvectors = rounds, walks, most, eigenvectors

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Scales of node features and edge values, and the vocabulary of labels.

        Raises:
            SchemaError: graphs with different numbers of node features or edge values.
        """
        graphs = [g for chunk in chunks for g in Items.of(column, chunk).arrays]
        labels = Counter(label for g in graphs for label in g.labels or ())
        words = [w for w, _ in sorted(labels.items(), key=lambda p: (-p[1], p[0]))[: self.most]]
        mean, scale = _scales(column, [g.features for g in graphs], "node features")
        edge_mean, edge_scale = _scales(column, [g.edge_values for g in graphs if g.edges.shape[1]], "edge values")
        return {"mean": mean, "scale": scale, "edge_mean": edge_mean, "edge_scale": edge_scale, "vocabulary": words}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """A token a node; ``edges`` hold the messages' ways, undirected edges both."""
        column, known = columns[0], columns[0].statistics
        items = Items.of(column, cells.get(column.name, []))
        counts = np.array([g.nodes for g in items.arrays], np.int64)
        offsets = np.cumsum(counts) - counts
        lookup = {word: i + 2 for i, word in enumerate(known["vocabulary"])}
        features = [np.zeros((0, len(known["mean"])), np.float32)]
        values = [np.zeros((0, len(known["edge_mean"])), np.float32)]
        walks, codes, edges = [np.zeros((0, 3 + self.walks), np.float32)], [np.zeros(0, np.int64)], [np.zeros((2, 0), np.int64)]
        for graph, offset in zip(items.arrays, offsets, strict=True):
            ways, carried = graph.both_ways()
            edges.append(ways + offset)
            values.append(carried if carried.shape[0] else values[0])
            features.append(graph.features)
            walks.append(walk_features(graph, self.walks))
            codes.append(np.array([lookup.get(w, 1) for w in graph.labels] if graph.labels else [0] * graph.nodes, np.int64))
        code = np.concatenate(codes)
        if draw is not None and lookup and len(code):
            rolls = [g.random(n) for g, n in zip(draw.at(items.sample).generators(f"labels {column.name}"), counts, strict=True)]
            code[(np.concatenate(rolls) < 0.02) & (code > 1)] = 1
        where = self._eigenvectors(column, items, draw)
        standard = (np.concatenate(features) - np.array(known["mean"])) / np.array(known["scale"])
        node = np.concatenate([np.clip(standard, -10, 10), np.concatenate(walks), where], 1).astype(np.float32)
        carried = ((np.concatenate(values) - np.array(known["edge_mean"])) / np.array(known["edge_scale"])).clip(-10, 10).astype(np.float32)
        ways = np.concatenate(edges, 1)
        inputs = {"node": torch.from_numpy(node), "code": torch.from_numpy(code)}
        inputs |= {"way": torch.from_numpy(ways), "carried": torch.from_numpy(carried)}
        return Packed.of(
            inputs,
            np.repeat(items.sample, counts),
            column.index,
            item=np.repeat(items.item, counts),
            edges=ways,
            edge_values=carried if carried.shape[1] else None,
        )

    def _eigenvectors(self, column: Column, items: Items, draw: Draw | None) -> NDArray[np.float32]:
        """(T, K) of all graphs, their signs drawn in training."""
        found = [np.zeros((0, self.eigenvectors), np.float32)]
        rolls = None if draw is None or not self.eigenvectors else draw.at(items.sample).generators(f"signs {column.name}")
        for k, graph in enumerate(items.arrays):
            small = graph.nodes <= MAX_WALK_NODES
            vectors = laplacian_eigenvectors(graph.edges, graph.nodes, self.eigenvectors if small else 0)
            if not small:
                vectors = np.zeros((graph.nodes, self.eigenvectors), np.float32)
            found.append(vectors if rolls is None else vectors * rolls[k].choice(np.array([-1, 1], np.float32), self.eigenvectors))
        return np.concatenate(found)

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The network of one column."""
        return GraphNodes(columns[0].statistics, width, self)


def _scales(column: Column, arrays: Sequence[NDArray[np.float32]], what: str) -> tuple[list[float], list[float]]:
    widths = sorted({a.shape[1] for a in arrays})
    if len(widths) > 1:
        raise SchemaError(f"column {column.name!r}: graphs with {widths[0]} and with {widths[1]} {what}; all need the same number")
    if not arrays:
        return [], []
    block = np.concatenate(arrays).astype(np.float64)
    scale = block.std(0)
    scale[scale < 1e-6] = 1.0
    return block.mean(0).tolist(), scale.tolist()


class GraphNodes(nn.Module):
    """``h = A x + E[label]``; each round ``h_v += W mean_u gelu(U norm(h_u) + V e_uv)`` over the edges u -> v."""

    def __init__(self, statistics: Mapping[str, Any], width: int, settings: Nodes) -> None:
        super().__init__()
        self.node = nn.Linear(len(statistics["mean"]) + 3 + settings.walks + settings.eigenvectors, width)
        words = len(statistics["vocabulary"])
        self.label = nn.Parameter(torch.randn(words + 2, width) * 0.5) if words else None
        values = len(statistics["edge_mean"])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(settings.rounds))
        self.sends = nn.ModuleList(nn.Linear(width, width) for _ in range(settings.rounds))
        self.edge = nn.ModuleList(nn.Linear(values, width, bias=False) for _ in range(settings.rounds if values else 0))
        self.gets = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(settings.rounds))

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        way, carried = packed.inputs["way"], packed.inputs["carried"]
        h: Tensor = self.node(packed.inputs["node"])
        if self.label is not None:
            h = h + self.label[packed.inputs["code"]]
        degree = h.new_zeros(len(h), 1).index_add(0, way[1], h.new_ones(way.shape[1], 1)).clamp(min=1)
        for k, (norm, send, get) in enumerate(zip(self.norms, self.sends, self.gets, strict=True)):
            message = send(norm(h))[way[0]]
            if len(self.edge):
                message = message + self.edge[k](carried)
            h = h + get(torch.zeros_like(h).index_add(0, way[1], nn.functional.gelu(message)) / degree)
        return h
