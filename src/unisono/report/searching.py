"""What a report says of a shared space, as plain values; a part of a model's report, or a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unisono.report.content import Cell


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PairRow:
    """Searching from one source to another.

    Attributes:
        a: where queries are from.
        b: what is searched.
        recall: at ranks 1, 5 and 10.
        median: rank of the first hit.
        precision: mean average precision.
        queries: how many.
        gallery: how many items are searched.
    """

    a: str
    b: str
    recall: Sequence[Estimate]
    median: Estimate
    precision: Estimate
    queries: int
    gallery: int


@dataclass(frozen=True)
class ClassRow:
    """Classes found by their names alone: from which source, of which column, how often right, among how many classes."""

    a: str
    column: str
    accuracy: Estimate
    classes: int
    rows: int
    templates: Sequence[str] = ()


@dataclass(frozen=True)
class SpaceRow:
    """One figure of the space.

    Attributes:
        name: what it is called.
        where: of which source or sources.
        figure: its value.
        good: what good looks like.
        verdict: ``good``, ``fair`` or ``poor``, or nothing where it depends.
    """

    name: str
    where: str
    figure: Estimate
    good: str
    verdict: str = ""


@dataclass(frozen=True)
class Found:
    """One result of a query: its cell, its row's name, its score, and whether it is what was looked for."""

    cell: Sequence[Cell]
    name: str
    score: float
    hit: bool


@dataclass(frozen=True)
class Example:
    """A query and what it found.

    Attributes:
        a: where it is from.
        b: what was searched.
        query: its cell.
        name: its row.
        found: the nearest, the first of all first.
        rank: of the first hit.
        gallery: how many items were searched.
        wanted: the cell that it should have found, where it is not among those found.
    """

    a: str
    b: str
    query: Sequence[Cell]
    name: str
    found: Sequence[Found]
    rank: int
    gallery: int
    wanted: Sequence[Cell] = ()


@dataclass(frozen=True)
class SearchReport:
    """Everything about searching across sources.

    Attributes:
        rows: how many rows it was measured on.
        where: which rows, in words.
        pairs: every ordered pair of sources.
        classes: found by their names.
        space: figures of the space.
        examples: some queries.
        misses: the queries that found their own last.
        shown: whether rows may be shown.
    """

    rows: int
    where: str
    pairs: Sequence[PairRow]
    classes: Sequence[ClassRow] = ()
    space: Sequence[SpaceRow] = ()
    examples: Sequence[Example] = ()
    misses: Sequence[Example] = ()
    shown: bool = True
