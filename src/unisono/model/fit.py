"""The main job: from a table to a trained, calibrated, measured and saved model."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unisono.core.errors import ConfigError, UserError
from unisono.core.files import write_text
from unisono.core.memory import kept_heap, release_memory
from unisono.core.schema import Schema
from unisono.model.aligning import Aligner, centre, check_apart, check_rows, lay_out, present_of, space_of
from unisono.model.contents import read_contents
from unisono.model.encoders import check_frozen, keep_features, open_features, store_encoders, with_encoders, without_layers
from unisono.model.evaluate import Evaluator
from unisono.model.folder import CHECKPOINT, RECIPE, SCHEMA, WEIGHTS, write_model, write_schema
from unisono.model.learner import Supervised, TrainingRows
from unisono.model.options import FitOptions
from unisono.model.prepare import Prepared, check_names, prepare
from unisono.model.reporting import Fit, write_report
from unisono.model.scoring import Scored, batches_of
from unisono.model.searching import search_report
from unisono.model.spaces import Laid as SpaceRows
from unisono.network import Network, freeze
from unisono.recipe import Recipe, build_objective, fitted_objective, load_recipe
from unisono.recipe import Supervised as SupervisedSentence
from unisono.report.searching import SearchReport
from unisono.retrieve.space import retrieval, space_figures
from unisono.table.batching import Assembler, SourceDropout
from unisono.table.cache import TableCache
from unisono.table.read import open_table
from unisono.table.source import TableSource
from unisono.train.budget import PLAN_FILE, Budget, TrainPlan
from unisono.train.devices import choose_device, choose_precision
from unisono.train.distribute import is_main, world_size
from unisono.train.loop import train
from unisono.train.progress import History
from unisono.train.settings import TrainSettings

logger = logging.getLogger("unisono")

#: The folder of the memory-mapped table within the model folder, while training.
CACHE = "cache"


@dataclass
class Fitted:
    """What a fit leaves.

    Attributes:
        network: trained, on the CPU, in evaluation mode.
        recipe: the resolved recipe, with the plan that was trained by.
        schema: with calibrated targets.
        metrics: what ``metrics.json`` holds.
        notes: what a person should know.
    """

    network: Network
    recipe: Recipe
    schema: Schema
    metrics: dict[str, Any]
    notes: list[str]


@contextmanager
def working_folder(out: Path | None) -> Iterator[Path]:
    """The folder of a fit: the model's own, or a temporary one for a model in memory."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="unisono-") as folder:
        yield Path(folder)


def claim_folder(options: FitOptions) -> None:
    """Make sure the model folder can be used.

    Raises:
        UserError: it is not empty and neither force nor resume was asked for, or it cannot be written.
    """
    out = options.out
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: this is a file, not a folder")
    if out.is_dir() and any(out.iterdir()) and not options.resume:
        if not options.force:
            raise UserError(f"--out {out}: the folder is not empty; go on with --resume, or replace what is there with --force")
        if not (out / SCHEMA).is_file() and not (out / CHECKPOINT).is_dir() and not (out / CACHE).is_dir():
            raise UserError(f"--out {out}: --force replaces a model folder only, and this is none; empty it yourself, or choose another")
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise UserError(f"--out {out}: the folder cannot be written: {error.strerror}") from None


def fit_table(data: Any, options: FitOptions, *, started_at: float | None = None) -> Fitted:
    """Fit a model to a table.

    Args:
        data: whatever ``open_table`` reads.
        options: what was asked for.
        started_at: when the command began, on ``time.monotonic``; now if not given.

    Raises:
        UserError: of many kinds; each message says what to mend.
        TrainingError: training cannot go on.
    """
    started = time.monotonic() if started_at is None else started_at
    recipe = load_recipe(options.chosen_recipe, options.settings)
    recipe = fitted_objective(recipe, targets=bool(options.targets), align=options.align, objective=options.objective)
    settings = TrainSettings.read(recipe.settings.get("train"), f"recipe {recipe.name}: train")
    if is_main():
        claim_folder(options)
    with working_folder(options.out if is_main() else None) as folder, torch.random.fork_rng(devices=[]):
        source = open_table(data, null_words=options.null_words, encoding=options.encoding, media_root=options.media_root)
        check_names(options, source.schema.names, source.name)
        recipe = with_encoders(recipe, options.encoders, source.schema.names, link=options.link_encoders)
        if options.freeze:
            recipe = without_layers(recipe)
        cache = _cache(source, folder / CACHE, options.resume)
        try:
            prepared = prepare(cache, recipe, options, source.hints)
            prepared.notes[:0] = source.notes
            release_memory()
            with kept_heap():
                return _fit_prepared(prepared, recipe, settings, options, folder, started)
        finally:
            _tidy(cache, folder)


def _tidy(cache: TableCache, folder: Path) -> None:
    """Leave nothing of a fit that ended, well or badly, but keep what an interrupted one needs to go on."""
    if (folder / CHECKPOINT).is_dir():
        return
    cache.remove()
    if not (folder / WEIGHTS).is_file():
        for name in (RECIPE, SCHEMA, PLAN_FILE):
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _cache(source: TableSource, folder: Path, resume: bool) -> TableCache:
    """The table's rows, memory-mapped; an interrupted run's are used again when the table is the same."""
    if resume and source.fingerprint is not None and folder.is_dir():
        try:
            cache = TableCache.open(folder)
        except UserError:
            return TableCache.write(source, folder)
        if cache.fingerprint == source.fingerprint:
            return cache
    return TableCache.write(source, folder)


def _fit_prepared(prepared: Prepared, recipe: Recipe, settings: TrainSettings, options: FitOptions, folder: Path, started: float) -> Fitted:
    torch.manual_seed(options.seed)
    schema, split = prepared.schema, prepared.split
    for note in prepared.notes:
        logger.info("%s", note)
    writes = options.out is not None and is_main()
    if prepared.bad and writes:
        write_bad_cells(folder / "bad_cells.csv", prepared)
    network = Network(recipe=recipe, schema=schema)
    _freeze(network, settings, options)
    objective = build_objective(recipe)
    assembler = Assembler(schema, network.groups, network.trunk, SourceDropout(objective.drop_sources))
    rows = TrainingRows(prepared.store, assembler, split.train, prepared.targets, options.seed)
    device = choose_device()
    bf16 = choose_precision(settings.precision, device) == "bf16"
    own = objective.supervised or SupervisedSentence()
    aligner = make_aligner(network, prepared, assembler, options) if network.aligned else None
    learner = Supervised(
        network, schema, rows, split.val, prepared.targets, row_namer(prepared), device, bf16, own.reads, own.alone, aligner
    )
    network.to(device)
    centre(network, assembler, prepared.store, split.train, device)
    check_apart(network, assembler, prepared.store, split.train, device)
    measured = Evaluator(network, schema, assembler, prepared.store, prepared.targets, device, bf16)
    held_out = {name: part for name, part in (("val", split.val), ("test", split.test)) if len(part)}
    budget = None
    if options.budget is not None:
        budget = Budget(options.budget, started, _reserve_seconds(measured, list(held_out.values())))

    def on_plan(plan: TrainPlan) -> None:
        if writes:
            write_text(folder / RECIPE, store_encoders(folder, planned(recipe, plan)).to_yaml())
            write_schema(folder, schema)

    history = train(
        learner, rows, settings,
        folder=options.out, seed=options.seed, resume=options.resume, budget=budget,
        progress=options.progress, on_plan=on_plan,
    )  # fmt: skip
    recipe = planned(recipe, history.plan)
    scored = {name: measured.scored(part) for name, part in held_out.items()}
    if "val" in scored:
        schema = calibrate(measured, scored["val"], split.val)
    measured = replace(measured, schema=schema)
    metrics = measure(measured, prepared, history, scored)
    search = None
    if aligner is not None:
        found, search = measure_space(measured, aligner, prepared, options, held_out)
        metrics.update(found)
    network.to("cpu").eval()
    fitted = Fitted(network, recipe, schema, metrics, prepared.notes)
    if writes:
        write_model(folder, network, recipe, schema, metrics)
        scores = scored[metrics["headline"]].scores if scored else {}
        write_report(
            folder, Fit(replace(measured, device=torch.device("cpu")), prepared, recipe, options, history, metrics, scores), search
        )
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    return fitted


def _freeze(network: Network, settings: TrainSettings, options: FitOptions) -> None:
    """Set aside what is not trained, and keep on disk what frozen encoders say."""
    freeze(network, settings.freeze)
    if options.freeze:
        check_frozen(network.groups)
    keep_features(network.groups, open_features(options.features))


def make_aligner(network: Network, prepared: Prepared, assembler: Assembler, options: FitOptions) -> Aligner:
    """What a shared space is trained and measured by.

    Raises:
        ConfigError: several processes share the batches.
        SchemaError: there is nothing to align.
    """
    if world_size() > 1:
        raise ConfigError("align: its batches are contrasted as a whole, which several processes cannot share yet; run it in one process")
    cache = prepared.cache
    contents = read_contents(cache, prepared.schema, options.item)
    present = present_of(assembler, prepared.store, cache.num_rows)
    for note in check_rows(network, contents, present, prepared.split.train, cache.name):
        prepared.notes.append(note)
        logger.warning("%s: %s", cache.name, note)
    return Aligner(network, contents)


def measure_space(
    measured: Evaluator, aligner: Aligner, prepared: Prepared, options: FitOptions, held_out: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, Any], SearchReport | None]:
    """The blocks ``retrieval`` and ``space`` of ``metrics.json``, on the headline's rows, and what the report says of them."""
    alignments = measured.network.alignments
    name = "test" if "test" in held_out else "val" if "val" in held_out else None
    if alignments is None or name is None:
        return {"retrieval": []}, None
    rows = held_out[name]
    laid = lay_out(measured.network, batches_of(measured.assembler, measured.store, rows), device=measured.device, bf16=measured.bf16)
    space = space_of(laid, aligner.contents, rows)
    if len(rows) < 2 or len(space.sources) < 2:
        return {"retrieval": []}, None
    found = {"retrieval": retrieval(space, product=alignments.product), "space": space_figures(space)}
    words = "validation rows" if name == "val" else "test rows"
    report = search_report(
        found, SpaceRows(space, prepared.cache, rows), measured.schema, product=alignments.product, examples=options.examples, where=words
    )
    return found, report


def planned(recipe: Recipe, plan: TrainPlan) -> Recipe:
    """The recipe with the plan it is trained by, so that it repeats the run to the same bits."""
    return recipe.with_settings({"train": plan.as_settings()})


def _reserve_seconds(measured: Evaluator, parts: Sequence[NDArray[np.int64]]) -> float:
    """How long the evaluation will take, the headline's rows last: a few rows are run, after a first run that warms up, and scaled up."""
    from unisono.tasks.missing import subsets

    if not parts:
        return 3.0
    some = parts[-1][:64]
    measured.scored(some)
    begin = time.monotonic()
    measured.scored(some)
    once = time.monotonic() - begin
    again = len(subsets(measured.schema.sources)) if measured.schema.targets else 1
    passes = sum(max(len(part) / len(some), 1.0) for part in [*parts, *[parts[-1]] * again])
    return 3.0 + 1.3 * once * passes


def calibrate(measured: Evaluator, scored: Scored, rows: NDArray[np.int64]) -> Schema:
    """The schema with every task's calibration fitted on validation rows."""
    targets = []
    for target in measured.schema.targets:
        values, present = measured.targets[target.name]
        task = measured.network.tasks[target.name]
        fitted = task.calibrate(scored.scores[target.name], values[rows], present[rows], target.statistics)
        targets.append(replace(target, statistics={**target.statistics, **fitted}))
    return replace(measured.schema, targets=tuple(targets))


def measure(measured: Evaluator, prepared: Prepared, history: History, scored: Mapping[str, Scored]) -> dict[str, Any]:
    """What ``metrics.json`` holds: every figure says which rows it is from; ``headline`` names the rows that count.

    Args:
        measured: targets calibrated.
        prepared: the table made ready.
        history: what training did.
        scored: ``val`` and ``test``, as far as there are such rows -> the network's scores of them.
    """
    parts: dict[str, Any] = {}
    split = prepared.split
    for name, found in scored.items():
        rows = getattr(split, name)
        intervals = measured.intervals(found, rows)
        ci95 = {t: {k: list(v) for k, v in m.items()} for t, m in intervals.items()}
        parts[name] = {**measured.figures(found, rows), "ci95": ci95}
    headline = "test" if "test" in parts else "val" if "val" in parts else None
    rows = {"test": split.test, "val": split.val}.get(headline or "", split.train[:0])
    return {
        "headline": headline,
        "split": split.how,
        "rows": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
        **parts,
        "missing": measured.missing(rows) if len(rows) and measured.schema.targets else [],
        "training": {
            "steps": history.steps, "seconds": round(history.seconds, 3), "stopped": history.stopped, "best_step": history.best_step,
            "parameters": sum(p.numel() for p in measured.network.parameters()),
        },
        "bad_cells": len(prepared.bad),
    }  # fmt: skip


def row_namer(prepared: Prepared) -> Any:
    """Row index -> a name that a person recognises."""
    key, cache = prepared.schema.key, prepared.cache

    def name(row: int) -> str:
        if key is None:
            return f"row {row}"
        value = cache.take(np.array([row], np.int64), [key]).column(key)[0].as_py()
        return f"row {row} ({key} {value})"

    return name


def write_bad_cells(path: Path, prepared: Prepared) -> None:
    """Write ``bad_cells.csv``: file, row, column, reason."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "row", "column", "reason"])
    writer.writerows([prepared.cache.name, b.row, b.column, b.reason] for b in prepared.bad)
    write_text(path, text.getvalue())
