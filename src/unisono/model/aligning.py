"""A shared space in training and after it: its loss, what is checked before, and what finds what.

Letters: N rows, E width of the space, S sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unisono.core.errors import ConfigError, SchemaError
from unisono.core.plan import move
from unisono.model.contents import Contents
from unisono.model.scoring import batches_of, outputs
from unisono.network import SPACE, Network, Output
from unisono.nn.space import Shown, Side, join, mean_of_sources
from unisono.objectives.align import first_content, related
from unisono.objectives.alike import Cosine
from unisono.objectives.matching import hard_partners, paired_with
from unisono.retrieve import measures
from unisono.retrieve.space import Space, ranks_of, search_of, searches
from unisono.table.batching import Assembler, Batch
from unisono.table.store import Store

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
#: The loss is taken of at most so many validation rows at once.
_LOSS_ROWS = 512
_APART_ROWS, _APART_MOST = 8, 1e-3
_CENTRE_ROWS = 128


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


def space_of(laid: Laid, contents: Contents, rows: Rows) -> Space:
    """Rows of a table in the space, with what belongs together.

    Args:
        laid: the rows in the space.
        contents: of the table.
        rows: (N,) which of its rows they are.
    """
    cells = {source: contents.cells[source][rows] for source in laid.vectors}
    return Space(laid.vectors, laid.present, cells, measures.places(contents.item[rows]))


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

    def matching(self, output: Output, rows: Rows) -> Tensor:
        """The loss of telling a batch's rows from rows of which one source was exchanged, by the layers behind the space.

        The source is drawn for the batch, and what it is exchanged for by how alike it is to the rest of the row in the space; nothing is
        exchanged for what belongs together with the row.
        """
        network = self.network
        assert network.matching is not None
        assert output.tapped is not None
        values, meta = output.tapped
        host = torch.device("cpu")
        meta, sides = move(meta, host), list(self.contents.identity(rows).told(move(output.shown[0], host)).values())
        chosen, count = int(torch.randint(len(sides), ())), len(rows)
        others = [side for k, side in enumerate(sides) if k != chosen]
        rest = Cosine().together(others, count)
        (a, has_a), (b, has_b) = rest.of_rows(count), sides[chosen].of_rows(count)
        both = has_a & has_b
        item = torch.from_numpy(self.contents.item[rows])
        same = torch.eye(count, dtype=torch.bool)
        whole = replace(sides[chosen], vectors=b[has_b], row=torch.nonzero(has_b)[:, 0], content=first_content(sides[chosen], count)[has_b])
        same[:, has_b] |= related(Side(a, torch.arange(count), torch.zeros(count, dtype=torch.int64)), whole, item)
        alike = (a @ b.T).detach() * network.matching.sharpness
        partner = hard_partners(alike, same | ~both[:, None] | ~both[None, :], torch.rand(count))
        index, paired = paired_with(meta, meta.source == chosen, partner)
        made = torch.nonzero(partner >= 0).squeeze(1)
        start = network.trunk.after(SPACE)
        plan = network.trunk.plan(paired, start=start).to(values.device)
        wrong = network.trunk.run(values[index.to(values.device)], plan, start).pooled[made.to(values.device)]
        loss: Tensor = network.matching(output.pooled[made.to(values.device)], wrong)
        return loss * network.matching.weight

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
        space = space_of(laid, self.contents, numbers)
        figures = [
            measures.retrieval_figures(ranks_of(space, search_of(space, *search)))
            for search in searches(space.sources, product=alignments.product)
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


def centre(network: Network, assembler: Assembler, store: Store, rows: Rows, device: torch.device) -> None:
    """Set the centres of a new network's shared spaces by some of its training rows."""
    was_training = network.training
    for batch in batches_of(assembler, store, rows[:_CENTRE_ROWS], size=_CENTRE_ROWS):
        network.eval().centre(batch.to(device))
    network.train(was_training)


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
