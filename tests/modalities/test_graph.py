from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.modalities.shape_helpers import WIDTH, check_empty, check_every_gradient, fitted
from unisono.core.draw import Draw
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, modalities, tokenisers
from unisono.modalities.graph import walk_features

GRAPH = modalities.build("graph")
COLUMN = Column("x", "graph", "x", 1)


def decode(cell: object):  # type: ignore[no-untyped-def]
    return GRAPH.decode(cell, COLUMN, Context())


def labelled() -> list:
    one = {"nodes": ["a", "b", "c"], "edges": [[0, 1], [1, 2]], "edge_values": [1.0, 2.0]}
    two = {"nodes": ["a", "a"], "edges": [[0, 1]], "edge_values": [3.0], "directed": True}
    return [decode(one), None, decode(two), decode({"nodes": ["b"], "edges": []})]


def featured() -> list:
    return [decode({"nodes": [[1, 2], [3, 4], [5, 7]], "edges": [[0, 1], [1, 1]]}), None, decode({"nodes": [[0, 1]], "edges": []})]


def counted() -> list:
    return [decode({"nodes": 4, "edges": [[0, 1], [1, 2], [2, 0], [2, 3]]}), decode({"nodes": 2}), None]


@pytest.mark.parametrize(("cell", "reason"), [
    ("{", "no JSON"),
    ("[1]", "has no nodes"),
    ({"edges": []}, "has no nodes"),
    ({"nodes": 0}, "0 nodes"),
    ({"nodes": 10**9}, "1,000,000,000 nodes"),
    ({"nodes": 2, "edges": [[0, 2]]}, r"edge 0 is \[0, 2\], but the graph has the nodes 0 to 1"),
    ({"nodes": 2, "edges": [[0, -1]]}, "nodes 0 to 1"),
    ({"nodes": 2, "edges": [[0, 1, 1]]}, "not a pair"),
    ({"nodes": 2, "edges": [[0, 0.5]]}, "not a pair"),
    ({"nodes": 2, "edges": 3}, "list of at most"),
    ({"nodes": [[1], [1, 2]]}, "nodes are ragged"),
    ({"nodes": [1.0, float("inf")]}, "infinite"),
    ({"nodes": "ab"}, "not str"),
    ({"nodes": 2, "edges": [[0, 1]], "edge_values": []}, "0 edge_values for 1 edges"),
    ({"nodes": 2, "edges": [], "directed": "no"}, "directed is true or false"),
    ('{"nodes": [NaN], "edges": []}', "missing, infinite"),
])  # fmt: skip
def test_unreadable_cells_say_why(cell: object, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(cell)


@given(st.integers(1, 8), st.data())
def test_json_and_struct_decode_alike(nodes: int, data: st.DataObject) -> None:
    ends = st.integers(0, nodes - 1)
    edges = [list(p) for p in data.draw(st.lists(st.tuples(ends, ends), max_size=9))]
    cell = {"nodes": nodes, "edges": edges, "directed": data.draw(st.booleans())}
    one, two = decode(cell), decode(json.dumps(cell))
    np.testing.assert_array_equal(one.edges, two.edges)
    assert one.nodes == two.nodes == nodes and one.directed == two.directed == cell["directed"]
    ways, _ = one.both_ways()
    loops = sum(u == v for u, v in cell["edges"])
    assert ways.shape[1] == (len(cell["edges"]) if cell["directed"] else 2 * len(cell["edges"]) - loops)


def test_detection() -> None:
    def guess(array: pa.Array):  # type: ignore[no-untyped-def]
        return GRAPH.detect(ColumnSample("x", array.type, array, array.to_pylist()))

    assert guess(pa.array([{"nodes": 2, "edges": [[0, 1]]}])) is not None
    assert guess(pa.array(['{"nodes": 2, "edges": []}'])) is not None
    assert guess(pa.array([{"bytes": b"", "path": "a"}])) is None and guess(pa.array(["text"])) is None


def test_walks_of_a_triangle_and_a_path() -> None:
    triangle = walk_features(decode({"nodes": 3, "edges": [[0, 1], [1, 2], [2, 0]]}), 2)
    np.testing.assert_allclose(triangle[:, 3:], [[0.5, 0.25]] * 3)
    path = walk_features(decode({"nodes": 2, "edges": [[0, 1]]}), 2)
    np.testing.assert_allclose(path[:, 3:], [[1, 0]] * 2)
    directed = walk_features(decode({"nodes": 2, "edges": [[0, 1]], "directed": True}), 2)
    np.testing.assert_allclose(directed[:, :2], np.log([[2, 1], [1, 2]]), rtol=1e-6)


@pytest.mark.parametrize("make", [labelled, featured, counted])
def test_contracts(make) -> None:  # type: ignore[no-untyped-def]
    cells = make()
    tokeniser = tokenisers.build("nodes")
    columns = fitted(tokeniser, [COLUMN], {"x": cells})
    torch.manual_seed(0)
    module = tokeniser.module(columns, WIDTH)
    packed = tokeniser.pack(columns, {"x": cells}, None)
    values = module(packed)
    assert np.bincount(packed.sample, minlength=len(cells)).tolist() == [0 if c is None else c.nodes for c in cells]
    assert packed.edges is not None and torch.equal(packed.sample[packed.edges[0]], packed.sample[packed.edges[1]])
    for row in range(len(cells)):
        one = tokeniser.pack(columns, {"x": cells[row : row + 1]}, None)
        torch.testing.assert_close(module(one), values[packed.sample == row], atol=1e-6, rtol=1e-5)
    drawn = tokeniser.pack(columns, {"x": cells}, Draw(0, 0, np.arange(len(cells))))
    assert len(drawn) == len(packed)
    check_every_gradient(module, packed)
    check_empty(tokeniser, columns, {"x": [None, None]}, module)
    check_empty(tokeniser, columns, {}, module)


def test_messages_equal_a_loop_over_edges() -> None:
    cells = labelled()
    tokeniser = tokenisers.build("nodes(rounds=1)")
    columns = fitted(tokeniser, [COLUMN], {"x": cells})
    module = tokeniser.module(columns, WIDTH)
    packed = tokeniser.pack(columns, {"x": cells}, None)
    h = module.node(packed.inputs["node"]) + module.label[packed.inputs["code"]]
    edges, carried = packed.edges.T.tolist(), packed.edge_values
    sent = [torch.nn.functional.gelu(module.sends[0](module.norms[0](h[u])) + module.edge[0](carried[k])) for k, (u, _) in enumerate(edges)]
    for t, value in enumerate(module(packed)):
        got = [m for m, (_, v) in zip(sent, edges, strict=True) if v == t]
        mean = torch.stack(got).mean(0) if got else torch.zeros(WIDTH)
        torch.testing.assert_close(value, h[t] + module.gets[0](mean), atol=1e-5, rtol=1e-4)


def test_the_order_of_nodes_does_not_matter() -> None:
    cells = [decode({"nodes": [[1], [2], [3]], "edges": [[0, 1], [1, 2]]}), decode({"nodes": [[3], [1], [2]], "edges": [[1, 2], [2, 0]]})]
    tokeniser = tokenisers.build("nodes")
    columns = fitted(tokeniser, [COLUMN], {"x": cells})
    module = tokeniser.module(columns, WIDTH)
    values = module(tokeniser.pack(columns, {"x": cells}, None))
    torch.testing.assert_close(values[[0, 1, 2]], values[[4, 5, 3]], atol=1e-6, rtol=1e-5)


def test_graphs_of_different_features_are_refused() -> None:
    cells = featured()
    tokeniser = tokenisers.build("nodes")
    with pytest.raises(SchemaError, match="0 and with 2 node features"):
        tokeniser.fit(COLUMN, [cells, counted()])
    columns = fitted(tokeniser, [COLUMN], {"x": cells})
    with pytest.raises(Unreadable, match="nodes of 1 features in a column of graphs with 2"):
        GRAPH.decode({"nodes": [[1]], "edges": []}, columns[0], Context())
