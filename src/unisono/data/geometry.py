"""A scene as points in space, as a series of motion, and as a graph of its things.

Letters: ``N`` points, ``T`` steps of time.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.data.picture import INK, inside, shift
from unisono.data.scenes import CLOUD, COLOURS, SHAPES, SIZES, TRACK, Scene
from unisono.data.stream import Stream

_POINTS = 40
_POOL = 1024
TRACK_RATE = 16.0


@lru_cache(maxsize=8)
def _pool(shape: str) -> NDArray[np.float32]:
    """Points drawn evenly from a shape in [-1, 1]^2 (1024, 2)."""
    stream = Stream(0, SHAPES.index(shape), CLOUD)
    found: list[tuple[float, float]] = []
    while len(found) < _POOL:
        x, y = (np.array([2 * stream.unit() - 1 for _ in range(256)]) for _ in range(2))
        hit = inside(shape, x, y)
        found += list(zip(x[hit].tolist(), y[hit].tolist(), strict=True))
    return np.array(found[:_POOL], dtype=np.float32)


def cloud(scene: Scene) -> NDArray[np.float32]:
    """Scan the scene: (N, 6) of x (right), y (down), z (away), red, green, blue, all within about 0 to 1, forty points a thing."""
    stream = Stream(scene.seed, scene.row, CLOUD)
    parts = []
    for thing in scene.things:
        start = stream.below(_POOL - _POINTS)
        flat = _pool(thing.shape)[start : start + _POINTS] * np.float32(thing.radius) + np.array([thing.x, thing.y], dtype=np.float32)
        away = np.float32(thing.depth) + np.abs(stream.bells(_POINTS)) * np.float32(0.02)
        ink = np.broadcast_to(np.array(INK[thing.colour], dtype=np.float32) / np.float32(255), (_POINTS, 3))
        parts.append(np.concatenate([flat, away[:, None], ink], axis=1))
    return np.concatenate(parts).astype("<f4")


def points(scene: Scene) -> bytes:
    """Scan the scene, as the bytes of an ``.npy`` file."""
    out = io.BytesIO()
    np.save(out, cloud(scene), allow_pickle=False)
    return out.getvalue()


def series(scene: Scene) -> dict[str, Any]:
    """Follow the main thing: ``{values, rate}`` with values (T, 2) of x and y at 16 Hz, 24 to 40 steps, sensor noise 0.005."""
    stream = Stream(scene.seed, scene.row, TRACK)
    steps = 24 + stream.below(17)
    noise = stream.bells(2 * steps).reshape(steps, 2) * np.float32(0.005)
    main = scene.main
    track = np.array([shift(main.motion, t / (steps - 1)) for t in range(steps)], dtype=np.float32)
    values = track + noise + np.array([main.x, main.y], dtype=np.float32)
    return {"values": values.tolist(), "rate": TRACK_RATE}


def graph(scene: Scene) -> dict[str, Any]:
    """Give the scene graph ``{nodes, edges, edge_values, directed}``.

    A node is one thing: one-hot shape (6), one-hot colour (8), one-hot size (3), x, y. For two things whose centres differ, an edge
    leads from the one further left to the other with values (1, 0, dx), and one from the upper to the lower with (0, 1, dy).
    """
    nodes = []
    for thing in scene.things:
        kinds = (
            [float(thing.shape == s) for s in SHAPES]
            + [float(thing.colour == c) for c in COLOURS]
            + [float(thing.size == s) for s in SIZES]
        )
        nodes.append([*kinds, thing.x, thing.y])
    edges, values = [], []
    for i, a in enumerate(scene.things):
        for j, b in enumerate(scene.things):
            if a.x < b.x:
                edges.append([i, j])
                values.append([1.0, 0.0, b.x - a.x])
            if a.y < b.y:
                edges.append([i, j])
                values.append([0.0, 1.0, b.y - a.y])
    return {"nodes": nodes, "edges": edges, "edge_values": values, "directed": True}
