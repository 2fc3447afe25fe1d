"""Six small sets of time series, given split, default settings; the mean is over the sets."""

from __future__ import annotations

from benchmarks import Goal, Measured, Values, row
from benchmarks.given_splits import fit_once, measured
from unisono.data import ucr as load

SETS = ("BasicMotions", "JapaneseVowels", "ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf")


def each(found: Values) -> dict[str, tuple[float | None, str]]:
    """The accuracy on each set."""
    return {name: (found.mean("accuracy", table=name), "share") for name in SETS}


@row(
    "ucr",
    goals=[Goal("accuracy", must=0.83, aim=0.92), *(Goal(name) for name in SETS), Goal("seconds", better="lower")],
    seeds=(0, 1, 2),
    over={"table": SETS},
    derive=each,
)
def ucr(*, arm: str, seed: int, table: str) -> Measured:
    """Test accuracy on small sets of time series, the mean over six of them and each by itself."""
    loaded = load(table)
    series = next(c for c in loaded.column_names if c not in {"label", "split"})
    return measured(fit_once(loaded, "label", seed, columns={series: "series"})[1])
