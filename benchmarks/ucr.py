"""Six small sets of time series, given split, default settings; the mean is over the sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from given_splits import as_records, fit_once, run
from unisono.data import ucr

SETS = ("BasicMotions", "JapaneseVowels", "ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf")


def records(seeds: Sequence[int], settings: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Fit once for each seed and set.

    Yields:
        Records of test accuracy, seconds and steps.
    """
    for name in SETS:
        table = ucr(name).drop_columns(["key"])
        for seed in seeds:
            found = fit_once(table, "label", seed, settings, {"series": "series"})[1]
            yield from as_records("ucr", seed, found, table=name)


if __name__ == "__main__":
    run(records, __doc__)
