"""A batch of token metadata with a little of everything, for contracts: ragged samples, grids, several items, a clip, graphs, an empty row.

Letters: T tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unisono.core.names import Names
from unisono.core.tokens import Meta, concatenate
from unisono.nn.part import Frame

#: What ``rich_meta``'s columns are called.
NAMES = Names(
    ("number", "text", "image", "video", "graph"), ("price", "title", "photo", "clip", "net"), ("table", "title", "photo", "clip", "net")
)
#: The frame of a trunk over them.
FRAME = Frame(NAMES, num_modalities=6, num_edge_values=2)


def cells(sample: int, column: int, places: list[tuple[int, ...]], *, item: int = 0, samples: int = 1) -> Meta:
    """The tokens of one item of a cell, at places of up to three axes; in a video the first axis is also the second."""
    t = len(places)
    place = torch.full((t, 3), -1)
    for k, p in enumerate(places):
        place[k, : len(p)] = torch.tensor(p, dtype=torch.int64)

    def full(value: int) -> Tensor:
        return torch.full((t,), value, dtype=torch.int64)

    time = place[:, 0].float() * 0.5 if column == 3 else torch.full((t,), torch.nan)
    return Meta(
        full(sample), full(column), full(item), full(column), full(column), full(0),
        place, torch.full((t, 3), torch.nan), time, samples, len(NAMES.modalities),
    )  # fmt: skip


def net(sample: int, nodes: int, pairs: list[tuple[int, int]], samples: int = 1) -> Meta:
    """The tokens of one graph, with two values on every edge."""
    meta = cells(sample, 4, [()] * nodes, samples=samples)
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    values = torch.arange(2.0 * len(pairs)).reshape(-1, 2) / 10
    return Meta(**{**meta.__dict__, "edges": edges, "edge_values": values, "node": torch.arange(nodes)})


def block(*sides: int) -> list[tuple[int, ...]]:
    """All places of a grid."""
    return [tuple(int(i) for i in index) for index in np.ndindex(*sides)]


def rich_meta(*, shuffle: int | None = None, samples: int = 4) -> Meta:
    """Samples of numbers, words, pictures of several sizes, several pictures in a cell, a clip, graphs, and one sample without anything."""
    parts = [
        cells(0, 0, [()]), cells(0, 1, block(5)), cells(0, 2, block(3, 4)), cells(0, 2, block(2, 2), item=1), cells(0, 3, block(2, 2, 3)),
        cells(1, 2, block(5, 2)), net(1, 4, [(0, 1), (1, 0), (2, 1), (3, 3)]),
        cells(3, 0, [()]), cells(3, 0, [()]), cells(3, 1, block(1)), net(3, 2, []), cells(3, 3, block(3, 1, 2)),
    ]  # fmt: skip
    meta = concatenate(parts)
    meta = Meta(**{**meta.__dict__, "num_samples": samples})
    if shuffle is None:
        return meta
    return meta.select(torch.from_numpy(np.random.default_rng(shuffle).permutation(len(meta))))
