"""The learner of a table: a network with its loss and validation, and the training rows in batches.

Letters: B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from unisono.core.draw import Draw
from unisono.core.errors import ConfigError
from unisono.core.memory import shared_heap
from unisono.core.schema import Schema
from unisono.model.aligning import Aligner, joined
from unisono.model.scoring import batches_of, score
from unisono.network import Network, Output
from unisono.nn.space import Side
from unisono.table.batching import Assembler, Batch
from unisono.table.store import Store
from unisono.train.protocols import Losses, Validation

#: Assembled validation batches are kept up to this many bytes.
_KEEP_BYTES = 256 * 1024 * 1024
#: Training batches that are made in advance, by the thread or by each worker process.
PREFETCHED = 2
#: Processes that decode a table whose decoded cells do not fit in memory.
WORKERS = 2

Item = TypeVar("Item")
Encoded = Mapping[str, tuple[NDArray[Any], NDArray[np.bool_]]]


def prefetch(made: Iterator[Item], ahead: int = PREFETCHED) -> Generator[Item, None, None]:
    """The same items in the same order, made by a thread up to ``ahead`` of them in advance.

    An error of the maker is raised where its item would have come; leaving the iterator ends the thread.

    Yields:
        What ``made`` yields.
    """
    ready: Queue[Item | BaseException | None] = Queue(ahead)
    left = Event()

    def put(found: Item | BaseException | None) -> bool:
        while not left.is_set():
            try:
                ready.put(found, timeout=0.1)
            except Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for batch in made:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    maker = Thread(target=make, name="unisono-batches", daemon=True)
    maker.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        left.set()
        maker.join()


class TrainingRows:
    """The training rows in batches, their order a function of (seed, epoch).

    Args:
        store: decoded cells.
        assembler: packs a batch.
        rows: the training rows.
        targets: target -> (encoded values, present) of every row.
        seed: of order, augmentation and source dropout.
    """

    def __init__(self, store: Store, assembler: Assembler, rows: NDArray[np.int64], targets: Encoded, seed: int) -> None:
        self.store, self.assembler, self.rows, self.targets, self.seed = store, assembler, rows, targets, seed

    @property
    def num_rows(self) -> int:
        """How many rows an epoch has."""
        return len(self.rows)

    def batches_per_epoch(self, batch_rows: int) -> int:
        """How many batches an epoch has; a last one too small to learn from joins the one before."""
        return max(1, round(len(self.rows) / batch_rows))

    def epoch(self, epoch: int, *, skip: int, rank: int, world: int, batch_rows: int) -> Iterator[Batch]:
        """The epoch's batches after the first ``skip``, each cut to the slice of process ``rank`` of ``world``."""
        order = np.random.Generator(np.random.Philox([self.seed, epoch])).permutation(self.rows)
        parts = [np.array_split(rows, world)[rank] for rows in np.array_split(order, self.batches_per_epoch(batch_rows))[skip:]]
        if self.store.resident:
            return prefetch(self.batch(rows, epoch) for rows in parts)
        return self._by_workers(_Epoch(self, parts, epoch))

    def _by_workers(self, epoch: _Epoch) -> Iterator[Batch]:
        with shared_heap():
            yield from DataLoader(epoch, batch_size=None, num_workers=WORKERS, prefetch_factor=PREFETCHED)

    def batch(self, rows: NDArray[np.int64], epoch: int) -> Batch:
        """One training batch."""
        targets = {name: (_tensor(values[rows]), torch.from_numpy(present[rows])) for name, (values, present) in self.targets.items()}
        return self.assembler.assemble(rows, self.store.cells(rows), targets, Draw(self.seed, epoch, rows))


@dataclass(frozen=True)
class _Epoch(Dataset[Batch]):
    """An epoch's batches by number, for worker processes that decode them."""

    training: TrainingRows
    parts: Sequence[NDArray[np.int64]]
    epoch: int

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Batch:
        return self.training.batch(self.parts[number], self.epoch)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


@dataclass
class Supervised:
    """Predicts target columns: the loss of every target, measured in units of its best constant answer, averaged over targets.

    With a shared space the loss of its alignment is added, as the mean over a batch's rows; there may then be no targets at all.

    Attributes:
        network: what is trained.
        schema: with fitted targets.
        training: the training rows.
        validation: rows for early stopping; may be empty.
        targets: target -> (encoded values, present) of every row.
        names: row -> a name that a person recognises.
        reads: weight of the mean loss over the reads before the last.
        alone: weight of the loss of the row's sources, each by itself; its mean over them is added.
        aligner: the loss of the shared space, or None.
    """

    network: Network
    schema: Schema
    training: TrainingRows
    validation: NDArray[np.int64]
    targets: Encoded
    names: Any
    device: torch.device
    bf16: bool = False
    reads: float = 0.0
    alone: float = 0.0
    aligner: Aligner | None = None

    def __post_init__(self) -> None:
        self._kept: list[Batch] | None = None
        self._units = {t.name: max(self.network.tasks[t.name].constant_loss(t.statistics), 1e-6) for t in self.schema.targets}

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.network

    @property
    def whole(self) -> bool:
        """Whether the loss is of a batch as a whole, so that micro-batches do not add up to it."""
        return self.aligner is not None

    def loss(self, batch: Batch) -> Losses:
        """Sum over rows of the mean over targets, and the number of rows that count: those with any target, or all of a shared space."""
        output = self.network(batch)
        losses = self._supervised(output, batch)
        if self.aligner is None:
            return losses
        aligned, parts = self.aligner.loss(output.shown, batch.rows, self.device)
        if self.network.matching is not None:
            parts = {**parts, "matching": self.aligner.matching(output, batch.rows)}
            aligned = aligned + parts["matching"]
        return self._with(losses, aligned, parts, len(batch.rows))

    def _with(self, losses: Losses, aligned: Tensor, parts: Mapping[str, Tensor], rows: int) -> Losses:
        """The losses of rows with that of their alignment."""
        own = {name: (float(part.detach()) * rows, float(rows)) for name, part in parts.items()}
        total = losses.total_sum.to(aligned.device) + aligned * rows
        return Losses(total, torch.tensor(float(rows)), {**losses.parts, **own})

    def _supervised(self, output: Output, batch: Batch) -> Losses:
        """The loss of the targets, and what the trunk adds."""
        scores = output.scores
        total: Tensor = torch.zeros(())
        parts: dict[str, tuple[float, float]] = {}
        for target in self.schema.targets:
            values, present = batch.targets[target.name]
            losses = self.network.tasks[target.name].loss(scores[target.name], values, present, target.statistics)
            summed = losses.sum()
            if self.reads and output.earlier:
                said = [self.network.tasks[target.name].loss(e[target.name], values, present, target.statistics) for e in output.earlier]
                summed = summed + self.reads * torch.stack(said).mean(0).sum()
            if (alone := output.alone) is not None:
                task = self.network.tasks[target.name]
                own = task.loss(alone.scores[target.name], values[alone.row], present[alone.row], target.statistics)
                summed = summed + self.alone * (own * alone.weight).sum()
            total = total.to(losses.device) + summed / self._units[target.name] / len(self.schema.targets)
            parts[target.name] = (float(losses.detach().sum()), float(present.sum()))
        rows = torch.tensor(float(len(batch.rows)))
        if self.aligner is None:
            rows = torch.stack([present for _, present in batch.targets.values()]).any(0).sum().to(torch.float32)
        if output.extra is not None:
            total = total.to(output.extra.device) + output.extra * rows.to(output.extra.device)
        return Losses(total, rows, parts)

    def backward(self, pieces: Sequence[Batch], cast: Callable[[], AbstractContextManager[Any]]) -> Losses:
        """The gradient of a batch's loss from its micro-batches, in the memory of one of them.

        First every micro-batch is embedded without a graph; the loss of all vectors together gives the gradient of each; then every
        micro-batch is run again, with the same random numbers, and its part of that gradient is passed on (arXiv:2101.06983).

        Args:
            pieces: the micro-batches.
            cast: the precision of a forward pass.
        """
        assert self.aligner is not None
        if self.network.matching is not None:
            raise ConfigError("train.max_tokens: matching makes its pairs from the whole batch; leave the setting out, or matching")
        states, shown, rows = [], [], [len(p.rows) for p in pieces]
        for piece in pieces:
            states.append(_random_state(self.device))
            with torch.no_grad(), cast():
                shown.append(self.network(piece).shown)
        leaves = [{name: _leaf(side) for name, side in space.items()} for space in joined(shown, rows)]
        with cast():
            aligned, parts = self.aligner.loss(leaves, np.concatenate([p.rows for p in pieces]), self.device)
        count = sum(rows)
        (aligned * count).float().backward()  # type: ignore[no-untyped-call]
        found = Losses(aligned.detach() * 0.0, torch.tensor(0.0))
        taken = [{name: (0, 0) for name in space} for space in leaves]
        for piece, state in zip(pieces, states, strict=True):
            _set_random_state(self.device, state)
            with cast():
                output = self.network(piece)
                losses = self._supervised(output, piece)
                passed, taken = _passed_on(output.shown, leaves, taken)
                total = losses.total_sum.to(self.device) + passed
            if total.requires_grad:
                total.float().backward()  # type: ignore[no-untyped-call]
            own = {k: (v + found.parts.get(k, (0.0, 0.0))[0], n + found.parts.get(k, (0.0, 0.0))[1]) for k, (v, n) in losses.parts.items()}
            found = Losses(found.total_sum + losses.total_sum.detach().to(self.device), found.count, {**found.parts, **own})
        return self._with(found, aligned.detach(), parts, count)

    def validate(self) -> Validation | None:
        """Losses and metrics on the validation rows; what is minimised is the targets' loss, and what a search lacks of perfection."""
        if len(self.validation) == 0:
            return None
        metrics: dict[str, float] = {}
        objective, headline = 0.0, None
        if self.schema.targets:
            objective, headline = self._validate_targets(metrics)
        if self.aligner is not None:
            found = self.aligner.validate(self._batches(), device=self.device, bf16=self.bf16)
            metrics.update(found)
            objective += 1.0 - found["retrieval.map"]
            headline = headline or ("r@1", found["retrieval.r@1"])
        return Validation(metrics, objective, headline)

    def _validate_targets(self, metrics: dict[str, float]) -> tuple[float, tuple[str, float] | None]:
        scored = score(self.network, self._batches(), device=self.device, bf16=self.bf16)
        losses: list[float] = []
        headline: tuple[str, float] | None = None
        for target in self.schema.targets:
            task = self.network.tasks[target.name]
            values, present = (part[self.validation] for part in self.targets[target.name])
            per_row = task.loss(torch.from_numpy(scored.scores[target.name]), _tensor(values), torch.from_numpy(present), target.statistics)
            losses.append(float(per_row.sum()) / max(float(present.sum()), 1.0) / self._units[target.name])
            for key, value in task.metrics(scored.scores[target.name], values, present, target.statistics).items():
                metrics[f"{target.name}.{key}"] = value
            name = task.objective_metric[0]
            headline = headline or (name, metrics.get(f"{target.name}.{name}", float("nan")))
        return float(np.mean(losses)), headline

    def _batches(self) -> list[Batch] | Iterator[Batch]:
        """Validation batches, assembled once when they fit in memory."""
        if self._kept is not None:
            return self._kept
        made = batches_of(self.training.assembler, self.training.store, self.validation)
        if not self.training.store.resident:
            return iter(made)
        kept, used = [], 0
        for batch in made:
            kept.append(batch)
            used += sum(t.numel() * t.element_size() for p in batch.packed.values() for t in p.inputs.values())
        self._kept = kept if used <= _KEEP_BYTES else None
        return kept

    def move(self, batch: Batch, device: torch.device) -> Batch:
        """The batch on another device."""
        return batch.to(device)

    def describe_rows(self, batch: Batch) -> list[str]:
        """The rows' keys."""
        return [self.names(row) for row in batch.rows.tolist()]

    def split(self, batch: Batch, max_tokens: int) -> list[Batch]:
        """Micro-batches of at most so many tokens each, or one row."""
        counts = np.bincount(batch.plan.meta.sample.numpy(), minlength=len(batch.rows))
        pieces: list[list[int]] = [[]]
        used = 0
        for row, count in enumerate(counts.tolist()):
            if pieces[-1] and used + count > max_tokens:
                pieces.append([])
                used = 0
            pieces[-1].append(row)
            used += count
        if len(pieces) == 1:
            return [batch]
        return [self._rebuild(batch, piece) for piece in pieces]

    def _rebuild(self, batch: Batch, piece: Sequence[int]) -> Batch:
        epoch = batch.epoch
        return self.training.batch(batch.rows[np.array(piece, np.int64)], epoch)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _leaf(side: Side) -> Side:
    """The side with vectors and tokens that gradients end at."""
    tokens = None if side.tokens is None else side.tokens.detach().requires_grad_()
    return replace(side, vectors=side.vectors.detach().requires_grad_(), tokens=tokens)


def _passed_on(
    shown: Sequence[Mapping[str, Side]], leaves: Sequence[Mapping[str, Side]], taken: Sequence[Mapping[str, tuple[int, int]]]
) -> tuple[Tensor, list[dict[str, tuple[int, int]]]]:
    """``sum <vector, its gradient>`` over what a micro-batch shows, and how many vectors and tokens have been dealt with by now."""
    total: Any = 0.0
    after: list[dict[str, tuple[int, int]]] = []
    for sides, of_all, before in zip(shown, leaves, taken, strict=True):
        after.append({})
        for name, side in sides.items():
            vectors, tokens = before[name]
            kept = 0 if side.tokens is None else len(side.tokens)
            given = of_all[name].vectors.grad
            if given is not None:
                total = total + (side.vectors * given[vectors : vectors + len(side)]).sum()
            leaf = of_all[name].tokens
            if leaf is not None and leaf.grad is not None and side.tokens is not None:
                total = total + (side.tokens * leaf.grad[tokens : tokens + kept]).sum()
            after[-1][name] = (vectors + len(side), tokens + kept)
    return total, after
