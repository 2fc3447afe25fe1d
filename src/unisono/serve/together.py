"""Searches that were asked at the same time: one pass of the model for the parts of all, one scan of the index for each side.

Letters: P queries, E dimensions of the space, K hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.retrieve.embedder import Embedder
from unisono.retrieve.hits import Hit, Hits
from unisono.retrieve.index import Index
from unisono.retrieve.query import Query, combine, embed_parts, read_query

_SHORT = ("text", "image", "audio")


def read(index: Index, asked: Mapping[str, Any]) -> Query:
    """What was asked, checked against an index.

    Args:
        index: the index.
        asked: the keyword arguments of ``Index.search``.

    Raises:
        QueryError: something is unknown, empty, ambiguous or out of range.
    """
    short = {word: asked.get(word) for word in _SHORT}
    rest = {name: value for name, value in asked.items() if name not in _SHORT}
    return read_query(index.columns, index.sides, short=short, **rest)


def can_share(index: Index, query: Query) -> bool:
    """Whether a query can be searched with others: it has no filter, and no item is part of it."""
    return index.aligned and query.where is None and all(part.column is not None for part in query.parts)


def search_together(index: Index, embedder: Embedder, queries: Sequence[Query]) -> list[Hits]:
    """The same hits as ``Index.search`` finds for each query.

    Args:
        index: the index.
        embedder: its model.
        queries: those for which ``can_share`` holds.

    Raises:
        QueryError: a part of one of them cannot be read.
    """
    vectors = embed_parts(embedder, [part for query in queries for part in query.parts])
    ends = np.cumsum([len(query.parts) for query in queries])
    each = np.split(vectors, ends[:-1])
    wanted = np.stack([combine(own, [q.weight(p) for p in q.parts]) for q, own in zip(queries, each, strict=True)])
    found: dict[int, Hits] = {}
    for to in dict.fromkeys(query.to for query in queries):
        places = [n for n, query in enumerate(queries) if query.to == to]
        scores, rows = index.nearest(wanted[places], max(queries[n].k for n in places), to=to)
        searched = int(index.vectors(to)[1].sum())
        items = _items(index, rows)
        for n, own_scores, own_rows in zip(places, scores.tolist(), rows.tolist(), strict=True):
            told = {**queries[n].to_json(), "searched": searched, "without_vector": index.size - searched}
            best = [(row, score) for row, score in zip(own_rows, own_scores, strict=True) if row >= 0][: queries[n].k]
            found[n] = Hits(told, tuple(Hit(rank, row, items[row][0], score, items[row][1]) for rank, (row, score) in enumerate(best, 1)))
    return [found[n] for n in range(len(queries))]


def _items(index: Index, rows: NDArray[np.int64]) -> dict[int, tuple[Any, dict[str, Any]]]:
    """Row number -> key and fields of every row that was found, each read once."""
    wanted = np.unique(rows[rows >= 0])
    fields = index.take(wanted).to_pylist() or [{}] * len(wanted)
    return dict(zip(wanted.tolist(), zip(index.keys.take(pa.array(wanted)).to_pylist(), fields, strict=True), strict=True))
