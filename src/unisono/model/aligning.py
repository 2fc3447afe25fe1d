"""A shared space in training and after it: its loss, what is checked before, and what finds what.

Letters: N rows, E width of the space, S sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.errors import ConfigError, SchemaError
from unisono.model.contents import Contents
from unisono.model.scoring import batches_of, outputs
from unisono.network import Network
from unisono.nn.space import Shown, Side, join, mean_of_sources
from unisono.objectives.alike import multiply
from unisono.retrieve import measures
from unisono.table.batching import Assembler, Batch
from unisono.table.store import Store

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
#: The loss is taken of at most so many validation rows at once.
_LOSS_ROWS = 512
_APART_ROWS, _APART_MOST = 8, 1e-3


@dataclass(frozen=True)
class Laid:
    """Rows in a model's space.

    Attributes:
        vectors: source -> (N, E), of unit length where present.
        present: source -> (N,).
        whole: (N, E) the rows' own vectors.
    """

    vectors: dict[str, Vectors]
    present: dict[str, NDArray[np.bool_]]
    whole: Vectors


def lay_out(network: Network, batches: Iterable[Batch], *, device: torch.device, bf16: bool = False) -> Laid:
    """Run an aligned network over rows; the arguments are those of ``scoring.outputs``."""
    parts = [(output.shown[0], len(output.pooled)) for output in outputs(network, batches, device=device, bf16=bf16)]
    return laid_of(parts, network)


def laid_of(parts: Sequence[tuple[Shown, int]], network: Network) -> Laid:
    """What batches show, row by row."""
    alignments = network.alignments
    assert alignments is not None
    if not parts:
        empty = np.zeros((0, alignments.width), np.float32)
        return Laid({s: empty for s in alignments.sources}, {s: np.zeros(0, np.bool_) for s in alignments.sources}, empty)
    vectors, present = {}, {}
    for source in parts[0][0]:
        each = [shown[source].of_rows(rows) for shown, rows in parts]
        vectors[source] = torch.cat([v for v, _ in each]).float().cpu().numpy()
        present[source] = torch.cat([h for _, h in each]).cpu().numpy()
    whole = torch.cat([mean_of_sources(shown, rows) for shown, rows in parts]).float().cpu().numpy()
    return Laid(vectors, present, whole)


@dataclass(frozen=True)
class Search:
    """One side looking for another.

    Attributes:
        query: sources of the query; several are multiplied.
        target: the source looked through.
    """

    query: tuple[str, ...]
    target: str


def searches(sources: Sequence[str], product: bool) -> list[Search]:
    """Every ordered pair of sources; in a space of products every source by all others."""
    if product and len(sources) > 2:
        return [Search(tuple(o for o in sources if o != s), s) for s in sources]
    return [Search((a,), b) for a, b in itertools.permutations(sources, 2)]


def rank(laid: Laid, contents: Contents, rows: Rows, search: Search) -> tuple[measures.Ranks, int]:
    """How a side finds what belongs to it, and how many rows it looks through.

    Args:
        laid: the rows in the space.
        contents: of the table.
        rows: (N,) which of its rows they are.
        search: who looks for what.
    """
    asks = np.flatnonzero(np.logical_and.reduce([laid.present[s] for s in search.query]))
    has = np.flatnonzero(laid.present[search.target])
    asked = measures.places(
        np.stack([contents.cells[s][rows[asks]] for s in search.query]).T.copy().view([("", np.int64)] * len(search.query))[:, 0]
    )
    given = measures.places(contents.cells[search.target][rows[has]])
    item = measures.places(contents.item[rows])
    q, g, items = len(asks), len(has), int(item.max(initial=-1)) + 1
    kinds, things = int(asked.max(initial=-1)) + 1, int(given.max(initial=-1)) + 1
    chain = (
        measures.links(np.arange(q), asked, (q, kinds)),
        measures.links(asked, item[asks], (kinds, items)),
        measures.links(item[has], given, (items, things)),
        measures.links(given, np.arange(g), (things, g)),
    )
    queries = multiply([torch.from_numpy(laid.vectors[s][asks]) for s in search.query]).numpy()
    return measures.rank(queries, laid.vectors[search.target][has], measures.Positives(chain)), g


def retrieval(laid: Laid, contents: Contents, rows: Rows, product: bool, *, seed: int = 0) -> list[dict[str, Any]]:
    """Recall, median rank and mean average precision of every search, with intervals: what ``metrics.json`` holds."""
    found = []
    for search in searches(tuple(laid.vectors), product):
        ranks, gallery = rank(laid, contents, rows, search)
        figures = {k: _number(v) for k, v in measures.retrieval_figures(ranks).items()}
        intervals = measures.retrieval_intervals(ranks, seed=seed) if len(ranks.known.first) else {}
        ci95 = {k: [float(low), float(high)] for k, (low, high) in intervals.items() if np.isfinite([low, high]).all()}
        source = " + ".join(search.query)
        found.append({"from": source, "to": search.target, **figures, "n": len(ranks.known.first), "gallery": gallery, "ci95": ci95})
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass
class Aligner:
    """The loss and the validation of a shared space.

    Attributes:
        network: with a shared space.
        contents: of the table's rows.
    """

    network: Network
    contents: Contents

    def loss(self, shown: Sequence[Shown], rows: Rows, device: torch.device | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what a batch of the table's rows shows, and its parts."""
        assert self.network.alignments is not None
        found: tuple[Tensor, dict[str, Tensor]] = self.network.alignments(shown, self.contents.identity(rows).to(device))
        return found

    def validate(self, batches: Iterable[Batch], *, device: torch.device, bf16: bool) -> dict[str, float]:
        """Recall at 1, mean average precision and loss on validation rows, the mean over all searches."""
        alignments = self.network.alignments
        assert alignments is not None
        found, rows = [], []
        for batch in batches:
            [output] = outputs(self.network, [batch], device=device, bf16=bf16)
            found.append(output.shown)
            rows.append(batch.rows)
        numbers = np.concatenate(rows)
        laid = laid_of([(shown[0], len(r)) for shown, r in zip(found, rows, strict=True)], self.network)
        figures = [
            measures.retrieval_figures(rank(laid, self.contents, numbers, search)[0])
            for search in searches(tuple(laid.vectors), alignments.product)
        ]
        metrics = {f"retrieval.{key}": _mean([f[key] for f in figures]) for key in ("r@1", "map")}
        losses, weights, begin = [], [], 0
        while begin < len(found):
            end, count = begin, 0
            while end < len(found) and (count == 0 or count + len(rows[end]) <= _LOSS_ROWS):
                count += len(rows[end])
                end += 1
            sides = joined(found[begin:end], [len(r) for r in rows[begin:end]])
            losses.append(float(self.loss(sides, np.concatenate(rows[begin:end]), device)[0]))
            weights.append(count)
            begin = end
        return {**metrics, "align.loss": float(np.average(losses, weights=weights))}


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def check_rows(network: Network, contents: Contents, present_NS: NDArray[np.bool_], train: Rows, file: str) -> list[str]:
    """Make sure that there is something to align.

    Args:
        network: with a shared space.
        contents: of the table.
        present_NS: (N, S) which sources each row has.
        train: training rows.
        file: the table's name.

    Returns:
        What a person should know.

    Raises:
        SchemaError: one source, one row, or rows that nothing tells apart.
    """
    alignments = network.alignments
    assert alignments is not None
    sources = alignments.sources
    if len(sources) < 2 and alignments.needs_pairs:
        raise SchemaError(
            f"{file}: one space is for at least two sources, the table has only {sources[0]!r}; add a column of another modality, keep one "
            "that was left out with --column NAME=MODALITY, or learn from rows of one item with --item COL and "
            "--objective 'align(extra=[intra])'"
        )
    if len(train) < 2:
        raise SchemaError(f"{file}: {len(train)} training row: to be told apart there must be at least two; give more rows")
    given = present_NS[train]
    if len(sources) > 1 and not (given.sum(1) > 1).any() and alignments.needs_pairs:
        raise SchemaError(f"{file}: no training row has two of the sources {', '.join(sources)}, so nothing shows what belongs together")
    for k, source in enumerate(sources):
        cells = contents.cells[source][train[given[:, k]]]
        if len(cells) > 1 and (cells == cells[0]).all():
            raise SchemaError(f"{file}: all rows are alike in {source!r}, so that nothing can be found by it; leave it out with --drop")
    if len(np.unique(contents.item[train])) == 1:
        raise SchemaError(f"{file}: all training rows are one item, so that nothing is to be told apart; name another column with --item")
    none = int((~present_NS.any(1)).sum())
    return [f"{none} rows have none of the sources and no place in the space"] if none else []


def check_apart(network: Network, assembler: Assembler, store: Store, rows: Rows, device: torch.device) -> None:
    """Make sure that a source is embedded the same whether it is alone or in company.

    Raises:
        ConfigError: sources meet before they are embedded.
    """
    if network.alignments is None or len(network.alignments.sources) < 2 or not len(rows):
        return
    some = rows[:_APART_ROWS]
    whole = lay_out(network, batches_of(assembler, store, some), device=device)
    for source in network.alignments.sources:
        alone = lay_out(network, batches_of(assembler, store, some, [source]), device=device)
        off = np.abs(alone.vectors[source] - whole.vectors[source])[whole.present[source]]
        if off.size and off.max() > _APART_MOST:
            raise ConfigError(
                f"the trunk lets sources meet before they are embedded ({source!r} alone is not what it is in company), so that none "
                "could be sought by another: use a recipe whose layers have scope: source or item, such as align, or put a step "
                "{save: space} before they meet"
            )


def present_of(assembler: Assembler, store: Store, rows: int) -> NDArray[np.bool_]:
    """(N, S) which sources each row of the table has."""
    parts = []
    for start in range(0, rows, 1024):
        part = np.arange(start, min(start + 1024, rows), dtype=np.int64)
        parts.append(assembler.present(store.cells(part), len(part)))
    return np.concatenate(parts) if parts else np.zeros((0, len(assembler.sources)), np.bool_)


def joined(parts: Sequence[Sequence[Shown]], rows: Sequence[int]) -> list[dict[str, Side]]:
    """Micro-batches' sides as those of one batch, in every space."""
    return [join([shown[k] for shown in parts], rows) for k in range(len(parts[0]))]
