"""A space with the rows that lie in it: what finds what across sources, and what the space is like.

Letters: N rows, Q queries, G items of the gallery, E width of a vector, L classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import SchemaError
from unisono.retrieve import measures
from unisono.retrieve.measures import Positives, Vectors

#: Figures of a space are measured on at most this many rows a source, chosen by the seed.
SAMPLE = 2048
#: Neighbours that k-occurrence counts.
NEIGHBOURS = 10


@dataclass(frozen=True)
class Space:
    """Rows as one vector a source.

    Attributes:
        vectors: source -> (N, E), of unit length where present.
        present: source -> (N,), whether the row has it.
        contents: source -> (N,), a number for what the row's cells hold: equal ones are the same content.
        items: (N,) numbers from 0 on; rows of one number are one item.
    """

    vectors: Mapping[str, Vectors]
    present: Mapping[str, NDArray[np.bool_]]
    contents: Mapping[str, NDArray[Any]]
    items: NDArray[np.int64]

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources in table order."""
        return tuple(self.vectors)

    def rows(self, *sources: str) -> NDArray[np.int64]:
        """Rows that have all of these sources."""
        found: NDArray[np.int64] = np.flatnonzero(np.logical_and.reduce([self.present[s] for s in sources]))
        return found

    def of(self, source: str, rows: NDArray[np.int64]) -> Vectors:
        """Vectors of some rows."""
        return self.vectors[source][rows]


@dataclass(frozen=True)
class Search:
    """Every row of one side looking for its own among the rows of another.

    Attributes:
        asked: sources of the query, whose vectors are multiplied channel by channel if there are several.
        given: the source looked through.
        queries: (Q,) rows.
        gallery: (G,) rows.
        positives: what belongs together.
    """

    asked: tuple[str, ...]
    given: str
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    positives: Positives

    def vectors(self, space: Space) -> tuple[Vectors, Vectors]:
        """(Q, E) and (G, E); products are brought to unit length."""
        product = space.of(self.asked[0], self.queries)
        for source in self.asked[1:]:
            product = product * space.of(source, self.queries)
        if len(self.asked) > 1:
            product = (product / np.maximum(np.linalg.norm(product, axis=1, keepdims=True), 1e-30)).astype(np.float32)
        return product, space.of(self.given, self.gallery)


def search_of(space: Space, a: str | Sequence[str], b: str) -> Search:
    """Search from source a, or several at once, to source b.

    What a row of a has to find: the cells of b in rows of the same item as a row with the same content in a, and every cell of b whose
    content equals one of these.
    """
    sources = (a,) if isinstance(a, str) else tuple(a)
    queries, gallery = space.rows(*sources), space.rows(b)
    asked, given = measures.places(space.contents[sources[0]][queries]), measures.places(space.contents[b][gallery])
    for source in sources[1:]:
        more = measures.places(space.contents[source][queries])
        asked = measures.places(asked * (int(more.max(initial=0)) + 1) + more)
    q, g, items = len(queries), len(gallery), int(space.items.max(initial=-1)) + 1
    kinds_a, kinds_b = int(asked.max(initial=-1)) + 1, int(given.max(initial=-1)) + 1
    chain = (
        measures.links(np.arange(q), asked, (q, kinds_a)),
        measures.links(asked, space.items[queries], (kinds_a, items)),
        measures.links(space.items[gallery], given, (items, kinds_b)),
        measures.links(given, np.arange(g), (kinds_b, g)),
    )
    return Search(sources, b, queries, gallery, Positives(chain))


def searches(sources: Sequence[str], *, product: bool = False) -> list[tuple[tuple[str, ...], str]]:
    """Every ordered pair of sources; in a space of products each source by all others."""
    if product and len(sources) > 2:
        return [(tuple(o for o in sources if o != s), s) for s in sources]
    return [((a,), b) for a, b in itertools.permutations(sources, 2)]


def ranks_of(space: Space, search: Search) -> measures.Ranks:
    """How every query of a search finds what belongs to it."""
    return measures.rank(*search.vectors(space), search.positives)


def json_number(value: float) -> float | None:
    """A figure as JSON knows it: none where undefined."""
    return float(value) if np.isfinite(value) else None


def json_interval(interval: tuple[float, float]) -> list[float] | None:
    """An interval as JSON knows it: none where undefined."""
    return [float(interval[0]), float(interval[1])] if np.isfinite(interval).all() else None


def retrieval(space: Space, *, product: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Recall, median rank and mean average precision of every search, over the queries that have something to find.

    Args:
        space: the rows.
        product: several sources together find another; without it every ordered pair is measured.
        seed: of the intervals.

    Raises:
        SchemaError: there are fewer than two sources, or fewer than two rows.
    """
    if len(space.sources) < 2:
        raise SchemaError(f"searching across sources needs two of them, the model reads only {', '.join(space.sources) or 'none'}")
    if len(space.items) < 2:
        raise SchemaError(f"searching needs at least two rows, there {'is' if len(space.items) else 'are'} {len(space.items)}")
    found = []
    for asked, given in searches(space.sources, product=product):
        search = search_of(space, asked, given)
        ranks = ranks_of(space, search)
        figures = {k: json_number(v) for k, v in measures.retrieval_figures(ranks).items()}
        ci95 = {k: json_interval(v) for k, v in measures.retrieval_intervals(ranks, seed=seed).items()}
        sizes = {"n": len(ranks.known.first), "gallery": len(search.gallery)}
        found.append({"from": " + ".join(asked), "to": given, **figures, **sizes, "ci95": ci95})
    return found


def _some(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    if len(rows) <= SAMPLE:
        return rows
    found: NDArray[np.int64] = np.sort(np.random.default_rng(seed).choice(rows, SAMPLE, replace=False))
    return found


def _figure(value: float, interval: tuple[float, float]) -> dict[str, Any]:
    return {"value": json_number(value), "ci95": json_interval(interval)}


def space_figures(space: Space, *, seed: int = 0) -> dict[str, Any]:
    """What the space is like.

    Returns:
        ``{"rows": n, "sources": [{"source", "rows", "uniformity", "effective_rank", "width"}], "pairs": [{"a", "b", "rows", "alignment",
        "modality_gap"}], "by_direction": [{"from", "to", "k", "skewness"}]}`` and the mean of each figure under its own name; figures with
        intervals are ``{"value", "ci95"}``.
    """
    sources: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    hubs: list[dict[str, Any]] = []
    for source in space.sources:
        x = space.of(source, _some(space.rows(source), seed))
        sources.append(
            {
                "source": source,
                "rows": len(x),
                "uniformity": _figure(measures.uniformity(x), measures.uniformity_interval(x, seed=seed)),
                "effective_rank": json_number(measures.effective_rank(x)) if len(x) else None,
                "width": x.shape[1],
            }
        )
    for a, b in itertools.combinations(space.sources, 2):
        both = _some(space.rows(a, b), seed)
        x, y = space.of(a, both), space.of(b, both)
        off = measures.alignment(x, y)
        mean = _figure(float(off.mean()) if len(off) else float("nan"), measures.mean_interval(off, seed=seed))
        gap = _figure(measures.modality_gap(x, y), measures.gap_interval(x, y, seed=seed))
        pairs.append({"a": a, "b": b, "rows": len(both), "alignment": mean, "modality_gap": gap})
    for a, b in itertools.permutations(space.sources, 2):
        queries, gallery = (space.of(s, _some(space.rows(s), seed)) for s in (a, b))
        k = min(NEIGHBOURS, max(len(gallery) - 1, 1))
        skew = _figure(measures.hubness(queries, gallery, k), measures.hubness_interval(queries, gallery, k, seed=seed))
        hubs.append({"from": a, "to": b, "k": k, "skewness": skew})
    return {
        "rows": len(space.items),
        "alignment": _mean([p["alignment"]["value"] for p in pairs]),
        "uniformity": _mean([s["uniformity"]["value"] for s in sources]),
        "modality_gap": _mean([p["modality_gap"]["value"] for p in pairs]),
        "hubness": _mean([h["skewness"]["value"] for h in hubs]),
        "effective_rank": _mean([s["effective_rank"] for s in sources]),
        "sources": sources,
        "pairs": pairs,
        "by_direction": hubs,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def zero_shot(vectors_NE: Vectors, labels_N: NDArray[np.int64], classes_LE: Vectors, *, seed: int = 0) -> dict[str, Any]:
    """How often the class whose name lies nearest is the right one (``accuracy``), or one of the five nearest is (``accuracy@5``).

    Args:
        vectors_NE: rows.
        labels_N: the class of each.
        classes_LE: of ``measures.class_vectors``.
        seed: of the intervals.
    """
    ranks = measures.rank(vectors_NE, classes_LE, Positives.of(labels_N, np.arange(len(classes_LE))))
    figures, intervals = measures.retrieval_figures(ranks), measures.retrieval_intervals(ranks, seed=seed)
    named = {"accuracy": "r@1", "accuracy@5": "r@5"}
    return {
        **{name: json_number(figures[key]) for name, key in named.items()},
        "n": len(ranks.known.first),
        "classes": len(classes_LE),
        "ci95": {name: json_interval(intervals[key]) for name, key in named.items()},
    }
