"""What a model answers when sources are missing, and what each source is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Any

from numpy.typing import NDArray

from unisono.tasks.base import Statistics, Task, to_json

Array = NDArray[Any]
Subset = tuple[str, ...]
#: Up to this many sources every subset is evaluated.
ALL_SUBSETS = 5


def subsets(sources: Sequence[str]) -> list[Subset]:
    """The sets of present sources that are evaluated besides the whole.

    At most five sources: every non-empty proper subset, by size, then in table order. More: every source alone, then every source
    left out. One source or none: nothing.

    Args:
        sources: source names in table order.

    Returns:
        Subsets, each in table order.
    """
    n = len(sources)
    sizes = range(1, n) if n <= ALL_SUBSETS else (1, n - 1)
    found = [subset for size in sizes for subset in combinations(sources, size)]
    if n > ALL_SUBSETS:
        found[n:] = [tuple(s for s in sources if s != left_out) for left_out in sources]
    return found


@dataclass(frozen=True)
class Truth:
    """One target's task and encoded values of the evaluated rows.

    Attributes:
        task: the task.
        statistics: what it fitted.
        values: encoded targets.
        present: (N,) bool.
    """

    task: Task
    statistics: Statistics
    values: Array
    present: Array


def evaluate_subsets(
    predict_scores: Callable[[Subset], Mapping[str, Array]], sources: Sequence[str], truths: Mapping[str, Truth]
) -> list[dict[str, Any]]:
    """The ``missing`` list of an evaluation.

    Args:
        predict_scores: present sources -> target -> raw scores (N, K) of the evaluated rows, read as if all other sources were absent.
        sources: source names in table order.
        truths: target -> its truth.

    Returns:
        ``[{"present": [...], "targets": {target: {metric: value or None}}}, ...]`` in the order of ``subsets``.
    """
    found = []
    for present in subsets(sources):
        scores = predict_scores(present)
        targets = {name: to_json(t.task.metrics(scores[name], t.values, t.present, t.statistics)) for name, t in truths.items()}
        found.append({"present": list(present), "targets": targets})
    return found


@dataclass(frozen=True)
class Worth:
    """What one source is worth to one target, in units of the metric; positive is good whatever the metric's direction.

    Attributes:
        alone: the metric with this source alone.
        drop: how much worse the metric gets when only this source is left out.
        shapley: its share of the gain over no source at all; None where not every subset was evaluated.
    """

    alone: float | None
    drop: float | None
    shapley: float | None


def worth_of_sources(
    missing: Sequence[Mapping[str, Any]],
    whole: Mapping[str, Any],
    sources: Sequence[str],
    target: str,
    metric: tuple[str, bool],
    nothing: float | None = None,
) -> dict[str, Worth]:
    """What each source is worth (Shapley 1953; the players are sources, the game's value is the metric).

    ``phi_i = sum_S |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))`` over the subsets S without i.

    Args:
        missing: the list that ``evaluate_subsets`` gives.
        whole: target -> metrics with all sources.
        sources: source names in table order.
        target: the target.
        metric: its name and whether more is better (``Task.objective_metric``).
        nothing: the metric without any source; without it there are no Shapley values.

    Returns:
        Source -> its worth. Shapley values of all sources sum to ``whole - nothing``.
    """
    name, higher = metric
    sign = 1.0 if higher else -1.0
    values: dict[frozenset[str], float | None] = {frozenset(m["present"]): m["targets"][target].get(name) for m in missing}
    values[frozenset(sources)] = whole[target].get(name)
    values[frozenset()] = nothing
    complete = len(values) == 2 ** len(sources) and all(v is not None for v in values.values())
    everything = frozenset(sources)
    found = {}
    for source in sources:
        with_all, without = values[everything], values.get(everything - {source})
        drop = sign * (with_all - without) if with_all is not None and without is not None else None
        shapley = sign * _shapley(source, sources, {s: float(v) for s, v in values.items() if v is not None}) if complete else None
        found[source] = Worth(values.get(frozenset([source])), drop, shapley)
    return found


def _shapley(source: str, sources: Sequence[str], values: Mapping[frozenset[str], float]) -> float:
    others, n = [s for s in sources if s != source], len(sources)
    total = 0.0
    for size in range(n):
        weight = factorial(size) * factorial(n - size - 1) / factorial(n)
        total += weight * sum(values[frozenset(s) | {source}] - values[frozenset(s)] for s in combinations(others, size))
    return total
