"""What a search found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unisono.retrieve.fields import shown


@dataclass(frozen=True)
class Hit:
    """One row that was found.

    Attributes:
        rank: its place, from 1.
        row: its number in the index.
        key: what names it.
        score: the cosine of its vector and the query's, in [-1, 1].
        fields: column -> value.
    """

    rank: int
    row: int
    key: Any
    score: float
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Hits:
    """What a search found.

    Attributes:
        query: what was asked, in plain values, with the number of rows that were searched and of those that have no vector on that side.
        hits: the rows, best first.
    """

    query: Mapping[str, Any]
    hits: tuple[Hit, ...]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_json(self) -> dict[str, Any]:
        """``{"query": {...}, "hits": [{"rank", "key", "score", "fields"}, ...]}``; bytes are told by their number."""
        found = [{"rank": h.rank, "key": h.key, "score": h.score, "fields": {n: shown(v) for n, v in h.fields.items()}} for h in self.hits]
        return {"query": dict(self.query), "hits": found}
