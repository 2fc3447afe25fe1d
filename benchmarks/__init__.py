"""Speed, memory and quality, measured and recorded: ``python -m benchmarks``. Nothing of the package imports this.

A row is a function of a case, registered by ``row``::

    from benchmarks import Goal, row

    @row("digits", goals=[Goal("accuracy", must=0.97, aim=0.99)], arms=("ours", "peer"), seeds=(0, 1, 2), over={"table": ("a", "b")})
    def digits(*, arm: str, seed: int, table: str) -> Measured:
        return {"accuracy": (0.98, "share")}

Its cases are the product of arms, seeds and whatever ``over`` names; each is run and recorded on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

#: Metric -> its value and unit.
Measured = Mapping[str, tuple[float, str]]

#: A row's whole time, in seconds, above which the summary says that it is over its budget.
ROW_SECONDS = 1800.0


@dataclass(frozen=True)
class Goal:
    """What a row must reach and aims at.

    Attributes:
        metric: a metric of the row's cases, or one that its ``derive`` makes.
        must: the value it must reach; None where a row only records.
        aim: the value beyond it that is hoped for.
        better: whether higher or lower values are better.
        arm: the arm it is about; None for a derived metric, or for all arms together.
        statistic: how cases become one value: the mean over seeds of the mean over a seed's cases, or the median of all cases.
    """

    metric: str
    must: float | None = None
    aim: float | None = None
    better: Literal["higher", "lower"] = "higher"
    arm: str | None = None
    statistic: Literal["mean", "median"] = "mean"


@dataclass(frozen=True)
class Case:
    """One run: what is compared, the seed, and further inputs by name."""

    arm: str
    seed: int
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [self.arm, *(f"{k}={v}" for k, v in self.inputs.items()), f"seed {self.seed}"]
        return ", ".join(words)


class Values(Protocol):
    """The recorded values of a row, as ``derive`` sees them."""

    def mean(self, metric: str, arm: str | None = None, **inputs: Any) -> float | None:
        """The mean over the cases that match; None where there is none."""
        ...


Derive = Callable[[Values], Mapping[str, tuple[float | None, str]]]


@dataclass(frozen=True)
class Row:
    """A registered row.

    Attributes:
        name: by which it is asked for, and the name of its results file.
        run: measures one case, called with ``arm``, ``seed`` and the case's inputs by name.
        cases: what is run.
        goals: what it must reach.
        derive: makes metrics of several cases together, such as the difference of two arms; a value of None says that cases are missing.
        title: what is measured, in one sentence.
        module: where it is written.
    """

    name: str
    run: Callable[..., Measured]
    cases: tuple[Case, ...]
    goals: tuple[Goal, ...]
    derive: Derive | None
    title: str
    module: str


#: Every row by name, in the order of registration.
ROWS: dict[str, Row] = {}


def row(
    name: str,
    *,
    goals: Iterable[Goal] = (),
    arms: Sequence[str] = ("unisono",),
    seeds: Sequence[int] = (0,),
    over: Mapping[str, Sequence[Any]] | None = None,
    derive: Derive | None = None,
) -> Callable[[Callable[..., Measured]], Callable[..., Measured]]:
    """Register a function that measures one case.

    Args:
        name: of the row.
        goals: what it must reach.
        arms: what is compared.
        seeds: every arm is run with each.
        over: further inputs, name -> its values (plain JSON values).
        derive: see ``Row``.

    Raises:
        ValueError: there is another row of this name.
    """
    grid = over or {}
    cases = tuple(
        Case(arm, seed, dict(zip(grid, values, strict=True)))
        for seed in seeds
        for values in itertools.product(*grid.values())
        for arm in arms
    )

    def register(function: Callable[..., Measured]) -> Callable[..., Measured]:
        if name in ROWS and ROWS[name].module != function.__module__:
            raise ValueError(f"there is already a row {name!r}, in {ROWS[name].module}")
        title = " ".join((function.__doc__ or name).strip().split("\n\n")[0].split())
        ROWS[name] = Row(name, function, cases, tuple(goals), derive, title, function.__module__)
        return function

    return register
