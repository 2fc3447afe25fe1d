"""From a report's content to one HTML page that needs no other file, no network and no script."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from unisono.report import figures, svg
from unisono.report.content import Confusion, Curves, Report, TargetReport
from unisono.report.searching import PairRow, SearchReport

_SHOWN_CLASSES = 20
_SHOWN_SUBSETS = 32


def render(report: Report) -> str:
    """The page."""
    return template("report.html.j2").render(report=report)


def render_search(report: SearchReport, *, table: str, made: str) -> str:
    """A page of what is found across sources, and nothing else."""
    return template("search_page.html.j2").render(report=report, table=table, made=made)


def template(name: str) -> jinja2.Template:
    """One of the package's templates, everything that it is given escaped unless it is markup."""
    return _environment().get_template(name)


def _load(name: str) -> str | None:
    file = importlib.resources.files("unisono.report") / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=jinja2.FunctionLoader(_load)
    )
    environment.filters.update(
        figure=figures.figure, difference=figures.difference, number=figures.number, metric=figures.metric_name, help=figures.metric_help,
        share=figures.share, clean=figures.clean,
    )  # fmt: skip
    environment.globals.update(
        interval=figures.interval, possible_errors=figures.possible_errors,
        plural=figures.plural, loss_chart=loss_chart, metric_chart=metric_chart, strip=strip,
        confusion_chart=confusion_chart, confused=confused, residual_charts=residual_charts, distribution_chart=distribution_chart,
        worth_chart=worth_chart, shapley_chart=shapley_chart, reliability_chart=reliability_chart, recall_chart=recall_chart,
        is_percent=figures.is_percent,        better_high=figures.is_better_high, most_subsets=_SHOWN_SUBSETS,
    )  # fmt: skip
    return environment


def _mark(curves: Curves) -> tuple[float, str] | None:
    return None if curves.chosen is None else (curves.chosen, "chosen")


def loss_chart(curves: Curves) -> Markup:
    """Training and validation loss over steps."""
    lines = [svg.Line("training", curves.steps, curves.train)]
    if curves.validation:
        lines.append(svg.Line("validation", curves.steps, curves.validation))
    return svg.line_chart(
        lines, title="Loss over training steps", x_label="step", y_label="loss", mark=_mark(curves), reference=(1.0, "best constant answer")
    )


def metric_chart(curves: Curves, target: str, key: str, values: list[float | None]) -> Markup:
    """A target's headline metric on validation rows over steps."""

    def show(value: float) -> str:
        return f"{100 * value:g} %" if figures.is_percent(key) else figures.number(round(value, 6))

    name = figures.metric_name(key)
    line = svg.Line(name, curves.steps, values)
    title = f"{name} of {target} on validation rows over training steps"
    return svg.line_chart([line], title=title, x_label="step", y_label=name, mark=_mark(curves), show=show)


def strip(target: TargetReport) -> Markup:
    """The headline figure on a line with its interval and the constant answer's."""
    found = target.headline
    if found is None or found.value is None:
        return Markup("")
    words = f"{figures.metric_name(found.key)} {figures.figure(found.value, found.key)}"
    if found.low is not None:
        words += f", 95 % interval {figures.interval(found.low, found.high, found.key)}"
    if found.constant is not None:
        words += f", constant answer {figures.figure(found.constant, found.key)}"
    return svg.interval_strip(found.value, found.low, found.high, found.constant, title=words, higher=target.higher)


def confusion_chart(target: TargetReport) -> Markup:
    """The confusion matrix."""
    found = target.confusion
    if found is None or not found.counts:
        return Markup("")
    return svg.heat_map(found.truths, found.answers, found.counts, title=f"Confusion matrix of {target.name}")


def confused(found: Confusion, most: int = 5) -> list[tuple[str, str, int, int]]:
    """The most frequent confusions: truth, answer, how often, of how many."""
    pairs: list[tuple[str, str, int, int]] = []
    for truth, row in zip(found.truths, found.counts, strict=True):
        pairs += [(truth, answer, n, sum(row)) for answer, n in zip(found.answers, row, strict=True) if n and answer != truth]
    return sorted(pairs, key=lambda p: -p[2])[:most]


def residual_charts(target: TargetReport) -> list[Markup]:
    """Answer against truth, and the histogram of their difference."""
    found = target.residuals
    if found is None or not found.truth:
        return []
    return [
        svg.scatter(found.truth, found.answer, title=f"Predicted against actual {target.name}", x_label="actual", y_label="predicted"),
        svg.histogram(
            found.edges, found.counts, title=f"Histogram of residuals of {target.name}", x_label="predicted − actual", zero=True, height=340
        ),
    ]


def distribution_chart(target: TargetReport) -> Markup:
    """How the target's values are distributed in training."""
    found = target.distribution
    if found is None or not len(found.counts):
        return Markup("")
    title = f"Distribution of {target.name} in the training rows"
    if len(found.edges):
        return svg.histogram(found.edges, found.counts, title=title, x_label=target.name)
    groups = [svg.Bars(label, [count]) for label, count in zip(found.labels, found.counts, strict=True)]
    return svg.bar_chart(groups, title=title, show=figures.number)


def worth_chart(target: TargetReport) -> Markup:
    """The metric with each source alone, and with each left out."""
    found, key = target.headline, target.metric
    references: list[tuple[float, str]] = []
    if found is not None and found.value is not None:
        references.append((found.value, f"all sources {figures.figure(found.value, key)}"))
    if found is not None and found.constant is not None:
        references.append((found.constant, f"constant answer {figures.figure(found.constant, key)}"))
    groups = [svg.Bars(w.source, [w.alone, w.without]) for w in target.worth]
    return svg.bar_chart(
        groups, title=f"{figures.metric_name(key)} with each source alone and with each left out", show=_shower(key), references=references
    )


def shapley_chart(target: TargetReport) -> Markup:
    """Each source's share of the gain over the constant answer."""
    groups = [svg.Bars(w.source, [w.shapley]) for w in target.worth if w.shapley is not None]
    key = target.metric

    def show(value: float) -> str:
        return figures.difference(value, key)

    return svg.bar_chart(groups, title="Shapley value of each source", show=show) if groups else Markup("")


def _shower(key: str) -> Any:
    return lambda value: figures.figure(value, key)


def reliability_chart(target: TargetReport) -> Markup:
    """Confidence against accuracy."""
    found = target.calibration
    return Markup("") if found is None else svg.reliability(found.before, found.after, title=f"Reliability diagram of {target.name}")


def recall_chart(pairs: Sequence[PairRow]) -> Markup:
    """Recall at 1 and at 10 of every ordered pair of sources."""
    groups = [svg.Bars(f"{p.a} → {p.b}", [p.recall[0].value or 0.0, p.recall[-1].value or 0.0]) for p in pairs]
    return svg.bar_chart(groups, title="Recall at 1 and at 10 of every pair of sources", show=_shower("accuracy"), top=1.0)
