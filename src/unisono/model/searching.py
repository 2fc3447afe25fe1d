"""What a report says of a shared space: its figures, and real searches with their hits and misses.

Letters: Q queries, G items of the gallery.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.core.schema import Schema
from unisono.model.showing import Showcase
from unisono.model.spaces import Laid
from unisono.report.content import Cell
from unisono.report.render import render_search
from unisono.report.searching import ClassRow, Estimate, Example, Found, PairRow, SearchReport, SpaceRow
from unisono.retrieve import measures
from unisono.retrieve.measures import RANKS
from unisono.retrieve.space import Search, search_of, searches

#: Results shown of a query; queries and misses shown of a pair; pairs of which any are shown.
_SHOWN, _QUERIES, _MISSES, _PAIRS = 5, 2, 2, 6
#: Cells shown of a source of several columns.
_COLUMNS = 4


def search_page(
    table: str, found: Mapping[str, Any], laid: Laid, schema: Schema, *, product: bool, examples: bool, where: str | None
) -> str:
    """A page of what was measured.

    Args:
        table: the table's name.
        found: what ``measured`` gives.
        laid: the table in the space.
        schema: the model's columns.
        product: several sources together seek another.
        examples: show rows.
        where: the filter on rows.
    """
    made = dt.datetime.now().astimezone().strftime("%d %B %Y, %H:%M").lstrip("0")
    return render_search(
        search_report(found, laid, schema, product=product, examples=examples, where=where or ""),
        table=Path(table).name or table,
        made=made,
    )


def search_report(found: Mapping[str, Any], laid: Laid, schema: Schema, *, product: bool, examples: bool, where: str = "") -> SearchReport:
    """Figures and, unless rows may not be shown, examples; the other arguments are those of ``search_page``."""
    shown: list[Example] = []
    misses: list[Example] = []
    if examples:
        drawer = _Drawer(laid, schema, Showcase(laid.cache))
        for asked, given in sorted(searches(laid.space.sources, product=product), key=_both_ways)[:_PAIRS]:
            some, worst = drawer.examples(asked, given)
            shown += some
            misses += worst
    return SearchReport(
        rows=len(laid.rows),
        where=where,
        pairs=[_pair(row) for row in found["retrieval"]],
        classes=[_classes(row) for row in found.get("zero_shot", ())],
        space=_space_rows(found["space"]),
        examples=shown,
        misses=misses,
        shown=examples,
    )


def _estimate(value: float | None, interval: Sequence[float] | None) -> Estimate:
    low, high = interval if interval is not None else (None, None)
    return Estimate(value, low, high)


def _pair(row: Mapping[str, Any]) -> PairRow:
    def of(name: str) -> Estimate:
        return _estimate(row[name], row["ci95"][name])

    return PairRow(row["from"], row["to"], [of(f"r@{k}") for k in RANKS], of("median_rank"), of("map"), row["n"], row["gallery"])


def _classes(row: Mapping[str, Any]) -> ClassRow:
    accuracy = _estimate(row["accuracy"], row["ci95"]["accuracy"])
    return ClassRow(row["from"], row["column"], accuracy, row["classes"], row["n"], row["templates"])


def _space_rows(space: Mapping[str, Any]) -> list[SpaceRow]:
    """Every figure, with what good looks like and, where that is plain, whether it is."""

    def verdict(value: float | None, good: float, poor: float) -> str:
        return "" if value is None else "good" if value <= good else "poor" if value >= poor else "fair"

    rows = []
    for pair in space["pairs"]:
        figure = _estimate(**_named(pair["alignment"]))
        said = "mean squared distance of what belongs together: 0 at best, 2 where it is unrelated"
        rows.append(SpaceRow("alignment", f"{pair['a']} and {pair['b']}", figure, said, verdict(figure.value, 0.6, 1.4)))
    for pair in space["pairs"]:
        figure = _estimate(**_named(pair["modality_gap"]))
        said = "distance between the means of two sources: 0 at best; far above, each keeps to its own corner"
        rows.append(SpaceRow("modality gap", f"{pair['a']} and {pair['b']}", figure, said, verdict(figure.value, 0.25, 0.8)))
    for source in space["sources"]:
        figure = _estimate(**_named(source["uniformity"]))
        said = "log mean closeness of any two: about −4 where vectors use the whole sphere, 0 where all are alike"
        rows.append(SpaceRow("uniformity", source["source"], figure, said, verdict(figure.value, -2.5, -1.0)))
    for hub in space["by_direction"]:
        figure = _estimate(**_named(hub["skewness"]))
        said = f"skewness of how many queries have an item among their {hub['k']} nearest: about 0 at best, above 2 there are hubs"
        rows.append(SpaceRow("hubness", f"{hub['from']} → {hub['to']}", figure, said, verdict(figure.value, 1.5, 3.0)))
    for source in space["sources"]:
        said = f"directions in use, of {source['width']}: more keep more apart"
        rows.append(SpaceRow("effective rank", source["source"], Estimate(source["effective_rank"]), said))
    return rows


def _named(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": figure["value"], "interval": figure["ci95"]}


def _both_ways(search: tuple[tuple[str, ...], str]) -> list[str]:
    """Two sources both ways stand one behind the other."""
    return sorted([*search[0], search[1]])


@dataclass
class _Drawer:
    """Draws searches.

    Attributes:
        laid: the table in the space.
        schema: the model's columns.
        showcase: draws cells.
    """

    laid: Laid
    schema: Schema
    showcase: Showcase

    def __post_init__(self) -> None:
        self._cells: dict[tuple[str, int], list[Cell]] = {}
        key = self.schema.key
        self._keys: list[Any] | None = None
        if key is not None and key in self.laid.cache.schema.names:
            self._keys = self.laid.cache.take(self.laid.rows, [key]).column(key).to_pylist()

    def examples(self, asked: Sequence[str], given: str) -> tuple[list[Example], list[Example]]:
        """Some queries drawn at random, and those whose own came last."""
        search = search_of(self.laid.space, asked, given)
        queries, gallery = search.vectors(self.laid.space)
        first = measures.rank(queries, gallery, search.positives).first
        known = np.flatnonzero(first > 0)
        rng = np.random.default_rng(0)
        some = rng.choice(known, min(_QUERIES, len(known)), replace=False) if len(known) else known
        late = known[np.argsort(-first[known], kind="stable")]
        worst = [q for q in late.tolist() if first[q] > 1 and q not in set(some.tolist())][:_MISSES]

        def shown(q: int) -> Example:
            _, items = search.positives.block(q, q + 1)
            return self._example(search, q, gallery @ queries[q], items, int(first[q]))

        return [shown(q) for q in some.tolist()], [shown(q) for q in worst]

    def _example(self, search: Search, q: int, scores: NDArray[np.float32], items: NDArray[np.int64], rank: int) -> Example:
        gallery, query, b = search.gallery, int(search.queries[q]), search.given
        own = np.zeros(len(gallery), bool)
        own[items] = True
        order = np.lexsort((own, -scores))[:_SHOWN]
        found = [Found(self.cell(b, int(gallery[g])), self.name(int(gallery[g])), float(scores[g]), bool(own[g])) for g in order.tolist()]
        best = int(items[np.argmax(scores[items])])
        wanted = [] if own[order].any() else self.cell(b, int(gallery[best]))
        asked = [cell for source in search.asked for cell in self.cell(source, query)]
        return Example(" + ".join(search.asked), b, asked, self.name(query), found, rank, len(gallery), wanted)

    def cell(self, source: str, row: int) -> list[Cell]:
        """A source of a row as a person sees it."""
        if (source, row) not in self._cells:
            columns = [c for c in self.schema.columns if c.source == source and c.name in self.laid.cache.schema.names]
            place, cells = int(self.laid.rows[row]), []
            for column in columns[:_COLUMNS]:
                drawn = self.showcase.show(place, column)
                if len(columns) > 1:
                    drawn = [Cell("text", f"{column.name}: {c.text}") if c.kind == "text" else c for c in drawn if c.kind != "missing"]
                cells += drawn
            if len(columns) > _COLUMNS:
                cells.append(Cell("text", f"and {len(columns) - _COLUMNS} more columns"))
            self._cells[source, row] = cells
        return self._cells[source, row]

    def name(self, row: int) -> str:
        """What a row is called."""
        return f"row {int(self.laid.rows[row]):,}" if self._keys is None else str(self._keys[row])
