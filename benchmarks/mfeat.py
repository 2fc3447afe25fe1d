"""Six views of handwritten digits as vector columns, given split, default settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from given_splits import as_records, fit_once, run
from unisono.data import mfeat


def records(seeds: Sequence[int], settings: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Fit once for each seed.

    Yields:
        Records of test accuracy, seconds and steps.
    """
    table = mfeat().drop_columns(["key"])
    for seed in seeds:
        yield from as_records("mfeat", seed, fit_once(table, "y", seed, settings)[1])


if __name__ == "__main__":
    run(records, __doc__)
