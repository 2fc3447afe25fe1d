"""What the report of a fit says, gathered from the model, its rows and its training.

Letters: N rows, K scores of a target.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.core.files import write_text
from unisono.core.schema import Column, Target
from unisono.model.evaluate import Evaluator
from unisono.model.folder import REPORT
from unisono.model.options import FitOptions
from unisono.model.prepare import Prepared
from unisono.model.provenance import commands, facts
from unisono.model.showing import Showcase, count_missing, scalar
from unisono.recipe import Recipe
from unisono.report import content, figures
from unisono.report.render import render
from unisono.report.searching import SearchReport
from unisono.table.infer import ColumnReport
from unisono.table.memory import NAME
from unisono.tasks import diagnostics
from unisono.tasks.base import Task
from unisono.tasks.category import Category
from unisono.tasks.labels import Labels
from unisono.tasks.missing import worth_of_sources
from unisono.tasks.number import Number
from unisono.train.progress import History

_MISTAKES, _CHANCES = 12, 3
_CLASSES_SHOWN = 20
_SCALARS_SHOWN, _MEDIA_SHOWN = 8, 8
_SAMPLES, _SAMPLED_COLUMNS = 3, 60
_BAD_SHOWN = 8

Array = NDArray[Any]


@dataclass(frozen=True)
class Fit:
    """A finished fit, as the report sees it.

    Attributes:
        measured: the network with its rows, targets calibrated.
        prepared: the table made ready.
        recipe: resolved, with the plan that was trained by.
        options: what was asked for.
        history: what training did.
        metrics: what ``metrics.json`` holds.
        scores: target -> scores of the headline's rows.
    """

    measured: Evaluator
    prepared: Prepared
    recipe: Recipe
    options: FitOptions
    history: History
    metrics: Mapping[str, Any]
    scores: Mapping[str, Array]

    def rows(self, part: str) -> Array:
        """The rows of ``train``, ``val`` or ``test``."""
        found: Array = getattr(self.prepared.split, part)
        return found


def write_report(folder: Path, fit: Fit, search: SearchReport | None = None) -> None:
    """Write ``report.html``.

    Args:
        folder: the model folder.
        fit: what there is to say.
        search: what is found across sources, of a model with a shared space.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_text(folder / REPORT, render(replace(gather(fit), search=search)))


def gather(fit: Fit) -> content.Report:
    """Everything that the report says."""
    prepared, options, metrics = fit.prepared, fit.options, fit.metrics
    showcase = Showcase(prepared.cache) if options.examples else None
    headline = metrics["headline"]
    command, repeat = commands(prepared, options, fit.history)
    columns = column_rows(fit, showcase)
    return content.Report(
        table=_table_name(prepared.cache.name),
        rows=prepared.cache.num_rows,
        split={part: len(fit.rows(part)) for part in ("train", "val", "test")},
        split_how=prepared.split.how,
        headline=headline,
        targets=[target_report(fit, target, showcase) for target in fit.measured.schema.targets],
        columns=columns,
        bad=bad_rows(fit) if options.examples else (),
        bad_count=len(prepared.bad),
        notes=[note for note in prepared.notes if note != prepared.split.how and "is left out:" not in note],
        curves=curves(fit),
        sources=fit.measured.schema.sources,
        examples=options.examples,
        in_memory=prepared.cache.name == NAME,
        command=command,
        repeat=repeat,
        facts=facts(fit.recipe, options, fit.history, metrics["training"]["parameters"], fit.measured.device),
        recipe=fit.recipe.to_yaml(),
        recipe_name=fit.recipe.name,
        made=dt.datetime.now().astimezone().strftime("%d %B %Y, %H:%M").lstrip("0"),
    )


def _table_name(name: str) -> str:
    return Path(name).name or name


# -- data ---------------------------------------------------------------------------------------------------------------------------


def column_rows(fit: Fit, showcase: Showcase | None) -> list[content.ColumnRow]:
    """Every column of the table."""
    prepared = fit.prepared
    columns = {c.name: c for c in fit.measured.schema.columns}
    targets = {t.name: t for t in fit.measured.schema.targets}
    missing = count_missing(prepared.cache, [r.name for r in prepared.reports])
    bad: dict[str, int] = {}
    for cell in prepared.bad:
        bad[cell.column] = bad.get(cell.column, 0) + 1
    found = []
    for place, report in enumerate(prepared.reports):
        target, column = targets.get(report.name), columns.get(report.name)
        samples: list[content.Cell] = []
        if showcase is not None and place < _SAMPLED_COLUMNS:
            samples = _samples(fit, report, column, showcase)
        found.append(
            content.ColumnRow(
                name=report.name,
                role=report.role,
                modality=target.task if target else report.modality,
                why=target.reason if target else report.reason,
                remark="; ".join(x for x in (report.suspicion, report.doubt) if x) or _dropped(fit, report),
                source=column.source if column else "",
                missing=missing[report.name] / max(prepared.cache.num_rows, 1),
                unreadable=bad.get(report.name, 0),
                samples=samples,
            )
        )
    return found


def _dropped(fit: Fit, report: ColumnReport) -> str:
    return "dropped as asked for" if report.role == "left out" and report.name in fit.options.drop else ""


def _samples(fit: Fit, report: ColumnReport, column: Column | None, showcase: Showcase) -> list[content.Cell]:
    """A few values; media as pictures."""
    if column is None or column.modality in {"number", "category", "boolean", "datetime"}:
        return [content.Cell("text", text) for text in report.samples[:_SAMPLES]]
    rows = fit.rows("train")[:64]
    values = fit.prepared.cache.take(rows, [column.name]).column(column.name)
    present = [k for k in range(len(values)) if values[k].is_valid][:_SAMPLES]
    return [showcase.draw(values[k].as_py(), column, brief=True)[0] for k in present]


def bad_rows(fit: Fit) -> list[content.BadRow]:
    """The first unreadable cells."""
    return [content.BadRow(row_name(fit, b.row), b.column, b.reason) for b in fit.prepared.bad[:_BAD_SHOWN]]


def row_name(fit: Fit, row: int) -> str:
    """The row's key, or its number."""
    key = fit.prepared.schema.key
    if key is None:
        return f"row {row:,}"
    value = fit.prepared.cache.take(np.array([row], np.int64), [key]).column(key)[0].as_py()
    return f"{key} {value}"


# -- a target -----------------------------------------------------------------------------------------------------------------------


def target_report(fit: Fit, target: Target, showcase: Showcase | None) -> content.TargetReport:
    """Everything about one target, on the headline's rows."""
    task = fit.measured.network.tasks[target.name]
    metric, higher = task.objective_metric
    headline = fit.metrics["headline"]
    found: dict[str, Any] = {"parts": [], "distribution": distribution(fit, target, task)}
    if headline is not None:
        encoded, there = fit.measured.targets[target.name]
        rows = fit.rows(headline)
        answers = Answers(task, target, rows, np.asarray(fit.scores[target.name]), encoded[rows], there[rows])
        if there[rows].any():
            found.update(_measured(fit, answers, showcase))
    return content.TargetReport(
        name=target.name, task=target.task, reason=target.reason, metric=metric, higher=higher, constant=_constant(target), **found
    )


@dataclass(frozen=True)
class Answers:
    """What the model says of some rows' target.

    Attributes:
        task: the target's task.
        target: with fitted statistics.
        rows: (N,) rows of the table.
        scores: (N, K).
        values: encoded targets.
        present: (N,) bool.
    """

    task: Task
    target: Target
    rows: Array
    scores: Array
    values: Array
    present: Array

    @property
    def plain_statistics(self) -> dict[str, Any]:
        """The statistics before calibration."""
        found = dict(self.target.statistics)
        for key, value in (("temperature", 1.0), ("strength", 0.0), ("threshold", 0.5)):
            if key in found:
                found[key] = [value] * len(found[key]) if isinstance(found[key], list) else value
        return found

    def constant(self) -> dict[str, float]:
        """Metrics of the answer that scores of zero stand for: the training rows' shares, or their mean."""
        return dict(self.task.metrics(np.zeros_like(self.scores), self.values, self.present, self.plain_statistics))


def _constant(target: Target) -> str:
    statistics = target.statistics
    if "classes" in statistics:
        return f"Always answering “{figures.clean(statistics['classes'][int(np.argmax(statistics['counts']))], 40)}”"
    if "mean" in statistics:
        return f"Always answering {figures.number(float(statistics['mean']))}"
    return "Always answering how frequent each label is" if "labels" in statistics else ""


def _measured(fit: Fit, answers: Answers, showcase: Showcase | None) -> dict[str, Any]:
    task, statistics = answers.task, answers.target.statistics
    given = (answers.scores, answers.values, answers.present, statistics)
    found: dict[str, Any] = {"parts": parts(fit, answers)}
    if isinstance(task, Category):
        found["confusion"] = content.Confusion(**diagnostics.confusion(task, *given, limit=_CLASSES_SHOWN))
        said = task.codes(answers.scores, statistics)
        found["wrong"] = (int(((said != answers.values) & answers.present).sum()), int(answers.present.sum()))
    if isinstance(task, Labels):
        found["labels"] = label_rows(answers)
    if isinstance(task, Category | Labels):
        found["calibration"] = calibration(answers)
    if isinstance(task, Number):
        drawn = diagnostics.residuals(task, *given, bins=_bins(int(answers.present.sum())))
        drawn.pop("rows")
        found["residuals"] = content.Residuals(**drawn, rows=int(answers.present.sum()))
        found["coverage"] = coverage(answers)
    found["worth"], found["subsets"] = worth(fit, answers)
    if showcase is not None:
        found["mistakes"] = mistakes(fit, answers, showcase, len(fit.measured.schema.targets))
    return found


def parts(fit: Fit, answers: Answers) -> list[content.Part]:
    """Metrics by part, the headline's first."""
    metrics, name = fit.metrics, answers.target.name
    headline, constant = metrics["headline"], answers.constant()
    found = []
    for part in dict.fromkeys([headline, "val"]):
        if part not in metrics:
            continue
        values, intervals = metrics[part]["targets"][name], metrics[part].get("ci95", {}).get(name, {})
        measures = []
        for key, value in values.items():
            low, high = intervals.get(key) or (None, None)
            measures.append(content.Measure(key, value, low, high, constant.get(key) if part == headline else None))
        there = int(fit.measured.targets[name][1][fit.rows(part)].sum())
        found.append(content.Part(part, there, measures))
    return found


def distribution(fit: Fit, target: Target, task: Task) -> content.Distribution | None:
    """The target's values in the training rows."""
    statistics = target.statistics
    names = statistics.get("classes") or statistics.get("labels")
    if names:
        counts = np.array(statistics["counts"])
        chosen = np.argsort(-counts, kind="stable")[:_CLASSES_SHOWN]
        order = np.sort(chosen) if len(names) <= _CLASSES_SHOWN else chosen
        return content.Distribution([str(names[i]) for i in order], [float(counts[i]) for i in order], others=len(names) - len(order))
    rows = fit.rows("train")
    values, present = (part[rows] for part in fit.measured.targets[target.name])
    if not present.any():
        return None
    numbers = task.decode_values(values[present], statistics).to_numpy(zero_copy_only=False)
    counts, edges = np.histogram(numbers, _bins(len(numbers)))
    return content.Distribution(counts=counts.astype(float).tolist(), edges=edges.tolist())


def _bins(count: int) -> int:
    return int(np.clip(1.5 * np.sqrt(count), 6, 24))


def label_rows(answers: Answers) -> list[content.LabelRow]:
    """How well each of the most frequent labels is found."""
    names = list(answers.target.statistics["labels"])
    said = answers.task.predict(answers.scores[answers.present], answers.target.statistics).to_pylist()
    place = {name: k for k, name in enumerate(names)}
    answered = np.zeros((len(said), len(names)), bool)
    for row, labels in enumerate(said):
        answered[row, [place[label] for label in labels]] = True
    truth = answers.values[answers.present][:, : len(names)] > 0
    there = truth.sum(0)
    order = np.argsort(-there, kind="stable")[: 2 * _CLASSES_SHOWN]
    right = (truth & answered).sum(0)
    return [content.LabelRow(names[k], int(there[k]), int(answered[:, k].sum()), int(right[k])) for k in order]


def calibration(answers: Answers) -> content.Calibration:
    """Reliability before and after calibration."""
    task, statistics, plain = answers.task, answers.target.statistics, answers.plain_statistics
    assert isinstance(task, Category | Labels)
    given = (answers.scores, answers.values, answers.present)
    after, before = (diagnostics.reliability(task, *given, s, bins=10) for s in (statistics, plain))
    before_ece, after_ece = (task.metrics(*given, s).get("ece") for s in (plain, statistics))
    t = statistics["temperature"]
    words = (f"Temperature {t:.2f}" if isinstance(t, float) else "A temperature for each label") + ", fitted on the validation rows."
    return content.Calibration(
        [content.Bin(**_bin(b)) for b in before], [content.Bin(**_bin(b)) for b in after], before_ece, after_ece, words
    )


def _bin(found: Mapping[str, float | None]) -> dict[str, Any]:
    return dict(found)


def coverage(answers: Answers) -> list[tuple[float, float, float]]:
    """Promised level, reached share, half-width of each prediction interval."""
    widths = answers.target.statistics.get("half_widths") or {}
    kept = answers.present
    truth = answers.task.decode_values(answers.values[kept], answers.target.statistics).to_numpy(zero_copy_only=False)
    said = answers.task.predict(answers.scores[kept], answers.target.statistics).to_numpy(zero_copy_only=False)
    off = np.abs(truth - said)
    return [(float(level), float((off <= width).mean()), float(width)) for level, width in widths.items()]


def worth(fit: Fit, answers: Answers) -> tuple[list[content.SourceWorth], list[content.SubsetRow]]:
    """What each source is worth, and the metric of every evaluated subset."""
    sources, missing, name = fit.measured.schema.sources, fit.metrics["missing"], answers.target.name
    if len(sources) < 2 or not missing:
        return [], []
    key, higher = answers.task.objective_metric
    whole = fit.metrics[fit.metrics["headline"]]["targets"]
    constant = answers.constant().get(key)
    nothing = constant if constant is not None and np.isfinite(constant) else None
    found = worth_of_sources(missing, whole, sources, name, (key, higher), nothing)
    values = {frozenset(m["present"]): m["targets"][name].get(key) for m in missing}
    worths = [
        content.SourceWorth(source, w.alone, values.get(frozenset(sources) - {source}), w.drop, w.shapley) for source, w in found.items()
    ]
    subsets = [content.SubsetRow(sources, whole[name].get(key))]
    subsets += [content.SubsetRow(m["present"], m["targets"][name].get(key)) for m in missing]
    sign = -1.0 if higher else 1.0
    subsets.sort(key=lambda s: sign * s.value if s.value is not None else np.inf)
    return worths, subsets


def mistakes(fit: Fit, answers: Answers, showcase: Showcase, targets: int) -> list[content.Mistake]:
    """The rows with the largest loss among those that are wrong."""
    task, statistics, key = answers.task, answers.target.statistics, answers.target.name
    said = task.predict(answers.scores, statistics).to_pylist()
    truth = task.decode_values(answers.values, statistics).to_pylist()
    wrong = answers.present.copy()
    if not isinstance(task, Number):
        wrong &= np.array([a != b for a, b in zip(said, truth, strict=True)], bool)
    count = max(4, _MISTAKES // targets)
    chosen = task.worst(answers.scores, answers.values, wrong, statistics, count)
    p = task.probabilities(answers.scores, statistics)
    found = []
    for k in chosen.tolist():
        row = int(answers.rows[k])
        shown = fit.prepared.cache.take(np.array([row], np.int64), [key]).column(key)[0].as_py() if truth[k] is None else truth[k]
        cells, more = row_cells(fit, row, showcase)
        error = f"off by {figures.number(abs(float(said[k]) - float(truth[k])))}" if isinstance(task, Number) else ""
        chances = _chances(answers, p[k], k)
        unseen = "a class that training never saw" if truth[k] is None else error
        found.append(content.Mistake(row_name(fit, row), _said(shown), _said(said[k]), chances, unseen, cells, more))
    return found


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(v) for v in value) or "no label"
    return scalar(value) if isinstance(value, float) else str(value)


def _chances(answers: Answers, p: Array, place: int) -> list[tuple[str, float]]:
    """The likeliest classes, the truth among them."""
    statistics = answers.target.statistics
    names = statistics.get("classes") or statistics.get("labels") or []
    if not names:
        return []
    order = np.argsort(-p, kind="stable")[:_CHANCES].tolist()
    if "classes" in statistics and answers.values[place] >= 0 and int(answers.values[place]) not in order:
        order[-1] = int(answers.values[place])
    written = {k: _said(v) for k, v in zip(order, _class_words(answers, order), strict=True)}
    return [(written[k], float(p[k])) for k in order]


def _class_words(answers: Answers, places: Sequence[int]) -> list[Any]:
    if "classes" in answers.target.statistics:
        return list(answers.task.decode_values(np.array(places), answers.target.statistics).to_pylist())
    return [answers.target.statistics["labels"][k] for k in places]


def row_cells(fit: Fit, row: int, showcase: Showcase) -> tuple[list[tuple[str, content.Cell]], int]:
    """A row's inputs, media first, and how many are not shown."""
    scalars = {"number", "category", "boolean", "datetime"}
    columns = fit.measured.schema.columns
    media = [c for c in columns if c.modality not in scalars][:_MEDIA_SHOWN]
    plain = [c for c in columns if c.modality in scalars][:_SCALARS_SHOWN]
    cells = [(c.name, cell) for c in [*media, *plain] for cell in showcase.show(row, c)]
    return cells, len(columns) - len(media) - len(plain)


# -- training ----------------------------------------------------------------------------------------------------------------------


def curves(fit: Fit) -> content.Curves | None:
    """How training went."""
    records = fit.history.records
    if not records:
        return None
    validated = any(r.get("objective") is not None for r in records)
    metrics = []
    for target in fit.measured.schema.targets:
        key = fit.measured.network.tasks[target.name].objective_metric[0]
        values = [(r.get("metrics") or {}).get(f"{target.name}.{key}") for r in records]
        if any(v is not None for v in values):
            metrics.append((target.name, key, values))
    return content.Curves(
        steps=[float(r["step"]) for r in records],
        epochs=[float(r["epoch"]) for r in records],
        train=[r.get("loss") for r in records],
        validation=[r.get("objective") for r in records] if validated else [],
        metrics=metrics,
        chosen=fit.history.best_step,
    )
