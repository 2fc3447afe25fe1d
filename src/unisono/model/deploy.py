"""Deploying: the same model made cheaper without loss beyond rounding, with the change in its answers and its speed measured.

Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unisono.compress.fold import FOLDS, Note, fold, ordered
from unisono.compress.pack import can_pack, lay_out
from unisono.compress.probe import fastest, made_up, random_values
from unisono.core.errors import ConfigError, SchemaError, UserError
from unisono.core.schema import Schema
from unisono.core.tokens import Meta
from unisono.model.evaluate import Evaluator
from unisono.model.narrow import as_before, narrowed
from unisono.model.stream import Predictor
from unisono.network import HALF, LOSSLESS, PACK, WORDS, Network, edge_values
from unisono.nn.trunk import Trunk
from unisono.recipe import Recipe
from unisono.table.cache import TableCache

logger = logging.getLogger("unisono")

#: A fold whose answers differ by more than this in float64, relative to the largest, is not the same function.
EXACT = 1e-9
#: Folds that are faster on some machines and slower on others.
MEASURED = ("copies", "rms", HALF, PACK)
_ROWS = 64


@dataclass
class Deployment:
    """What deploying did.

    Attributes:
        folds: the folds that were done, in order.
        notes: what each did and where, and why others did nothing.
        left_out: columns whose weights were dropped.
        change: the largest change of any score or pooled channel on made-up rows, in single precision.
        exact_change: the same in double precision.
        milliseconds: of one forward pass of 64 made-up rows through trunk and heads, before and after.
        weights: how many there were, and are.
        preparation: seconds that laying out weights takes at every load.
        metrics: target -> metric -> before and after, on the table that was given; empty without one.
    """

    folds: tuple[str, ...] = ()
    notes: list[Note] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    change: float = 0.0
    exact_change: float = 0.0
    milliseconds: tuple[float, float] = (0.0, 0.0)
    weights: tuple[int, int] = (0, 0)
    preparation: float = 0.0
    metrics: dict[str, dict[str, tuple[float | None, float | None]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folds": list(self.folds),
            "notes": [vars(n) for n in self.notes],
            "left_out": list(self.left_out),
            "change": self.change,
            "exact_change": self.exact_change,
            "milliseconds": list(self.milliseconds),
            "weights": list(self.weights),
            "preparation": self.preparation,
            "metrics": {t: {k: list(v) for k, v in m.items()} for t, m in self.metrics.items()},
        }


@dataclass(frozen=True)
class Trial:
    """Made-up rows that networks are compared on.

    Attributes:
        meta: their tokens.
        values: (T, D).
    """

    meta: Meta
    values: Tensor

    @classmethod
    def of(cls, network: Network, schema: Schema) -> Trial:
        """Rows with every column of a schema."""
        meta = made_up(schema, rows=_ROWS, edge_values=edge_values(schema))
        return cls(meta, random_values(meta, network.width))

    def run(self, network: Network, meta: Meta | None = None) -> Callable[[], Tensor]:
        """A forward pass through trunk and heads, planned once; every pooled channel and score in one vector."""
        trunk, dtype = network.trunk, next(network.trunk.parameters()).dtype
        plan, values = trunk.plan(self.meta if meta is None else meta), self.values.to(dtype)

        def forward() -> Tensor:
            with torch.inference_mode():
                pooled = trunk.run(values, plan).pooled
                each = pooled.view(len(network.heads), -1, pooled.shape[1]) if trunk.forks else [pooled] * len(network.heads)
                scores = [head(own.to(_type(head))).reshape(-1).to(dtype) for head, own in zip(network.heads, each, strict=True)]
            return torch.cat([pooled.reshape(-1), *scores])

        return forward

    def pooled(self, trunk: Trunk, meta: Meta | None = None) -> Tensor:
        """What a trunk in float64 says."""
        with torch.no_grad():
            return trunk.run(self.values.double(), trunk.plan(self.meta if meta is None else meta)).pooled


def _type(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)


def deploy(
    network: Network, recipe: Recipe, schema: Schema, *,
    folds: Sequence[str] | None = None, columns: Sequence[str] | None = None, data: Any = None, reading: Mapping[str, Any] | None = None,
) -> tuple[Network, Recipe, Schema, Deployment]:  # fmt: skip
    """A cheaper model of the same answers.

    Args:
        network: the model; it is left as it is.
        recipe: its recipe.
        schema: its columns and targets.
        folds: words of ``WORDS``, each done whatever it saves; None for those that save something on this machine. ``half`` (bfloat16)
            changes the answers by more than the order of sums does, so it has to be asked for.
        columns: the columns that tables will have, so that what only others need is left out; None for all.
        data: a table with the targets, on which the change in error is measured; None for made-up rows alone.
        reading: how the table is read.

    Raises:
        UserError: a fold or column is unknown, or nothing can be left out.
    """
    wanted = LOSSLESS if folds is None else _known(folds)
    before = copy.deepcopy(network).cpu().eval()
    new, plain, small = (copy.deepcopy(before), recipe, schema) if columns is None else narrowed(before, recipe, schema, columns)
    report = Deployment(left_out=tuple(c.name for c in schema.columns if c.name not in {k.name for k in small.columns}))
    trial = Trial.of(new, small)
    asked = as_before(trial.meta, schema, small)
    reference = trial.pooled(copy.deepcopy(before.trunk).double(), asked)
    exact = copy.deepcopy(new.trunk).double()
    if not _same(reference, trial.pooled(exact)):
        raise UserError(f"without {', '.join(report.left_out)} the model would not say the same of the other columns, so none is left out")
    for word in wanted:
        new, exact = _tried(word, new, exact, trial, report, always=folds is not None)
    report.folds = new.folds[len(network.folds) :]
    report.exact_change = _distance(reference, trial.pooled(exact))
    runs = [trial.run(before, asked), trial.run(new)]
    report.change = _distance(*(run() for run in runs))
    report.milliseconds = (*fastest(runs),)  # type: ignore[assignment]
    report.weights = (_count(before), _count(new))
    if data is not None:
        report.metrics = _metrics((before, recipe, schema), (new, plain, small), data, reading or {})
    return new.cpu(), plain, small, report


def _known(folds: Sequence[str]) -> tuple[str, ...]:
    try:
        return ordered(folds, WORDS)
    except ConfigError as error:
        raise UserError(f"--fold: {error}") from None


def _tried(word: str, network: Network, exact: Trunk, trial: Trial, report: Deployment, *, always: bool) -> tuple[Network, Trunk]:
    """The network with one more fold, or as it was where the fold is not exact, finds nothing or costs more than it saves."""
    if word in network.folds:
        report.notes.append(Note(word, "network", False, "done before"))
        return network, exact
    if word == PACK and not can_pack():
        report.notes.append(Note(word, "network", False, "this machine's library lays out no weights"))
        return network, exact
    folded = exact
    if word in FOLDS:
        folded = copy.deepcopy(exact)
        found = fold(folded, word)
        if not any(n.done for n in found):
            report.notes += found
            return network, exact
        if not _same(trial.pooled(exact), trial.pooled(folded)):
            report.notes.append(Note(word, "trunk", False, "the answers would change by more than rounding, so it is left out"))
            return network, exact
    changed = copy.deepcopy(network)
    notes = changed.fold(word)
    seconds = lay_out(changed) if word == PACK else 0.0
    if word in MEASURED:
        slow, fast = fastest([trial.run(network), trial.run(changed)], repeats=15)
        says = f"{slow:.2f} ms became {fast:.2f} ms"
        if fast > slow and not always:
            report.notes.append(Note(word, "network", False, f"costs more than it saves on this machine: {says}"))
            return network, exact
        notes = [Note(n.fold, n.place, n.done, f"{n.what}; {says}" if n.done else n.what) for n in notes]
    report.notes += notes
    report.preparation += seconds
    return changed, folded


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and _distance(a, b) <= EXACT * (1.0 + float(a.abs().max()))


def _count(network: Network) -> int:
    return sum(p.numel() for p in network.parameters())


def _metrics(
    before: tuple[Network, Recipe, Schema], after: tuple[Network, Recipe, Schema], data: Any, reading: Mapping[str, Any]
) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    """Every metric before and after, on one table."""
    found = []
    for network, recipe, schema in (before, after):
        predictor = Predictor(network, recipe, schema, **reading)
        source = predictor.open(data)
        for target in schema.targets:
            if target.name not in source.schema.names:
                raise SchemaError(f"{source.name}: the target column {target.name!r} is absent, so there is nothing to measure")
        with tempfile.TemporaryDirectory(prefix="unisono-") as folder:
            measured, rows = predictor.measured(TableCache.write(source, Path(folder)), source, None)
            found.append(_figures(measured, rows))
    was, now = found
    return {t: {k: (value, now[t][k]) for k, value in metrics.items()} for t, metrics in was.items()}


def _figures(measured: Evaluator, rows: Any) -> dict[str, dict[str, float | None]]:
    return measured.metrics(measured.scored(rows), rows)


def said(report: Deployment) -> list[str]:
    """What deploying did, in lines for a person."""
    (slow, fast), (many, few) = report.milliseconds, report.weights
    lines = [f"{'done' if n.done else 'left'}  {n.fold}  {n.place}: {n.what}" for n in report.notes]
    if report.left_out:
        lines.append(f"left out: the weights of {', '.join(report.left_out)}")
    lines.append(f"answers: the largest change is {report.change:.1e} in single precision, {report.exact_change:.1e} in double")
    lines.append(f"forward pass of {_ROWS} made-up rows: {slow:.2f} ms became {fast:.2f} ms; weights: {many:,} became {few:,}")
    if report.preparation:
        lines.append(f"laying out weights takes {report.preparation:.3f} s at every load")
    for target, metrics in report.metrics.items():
        changes = ", ".join(f"{k} {_figure(a)} became {_figure(b)}" for k, (a, b) in metrics.items())
        lines.append(f"{target}: {changes}")
    return lines


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
