"""MoRE (arXiv:2410.16239; recipe ``more-xray-ecg``).

Claim: sources that are only ever compared with a text find each other. Exact (``tests/systems/test_more_xray_ecg.py``): the loss is that
of the text's pairs, whichever way the others are called. Waiting: a frozen text model with low-rank adapters, for deltas; attention by
parts of a picture, for explaining.

Digits written, spoken by a speaker held out, and named; pictures and sounds are never compared in training.
"""

from __future__ import annotations

import pyarrow as pa

from benchmarks import Goal, Measured, row
from benchmarks.align import between
from benchmarks.systems.spaces import aligned
from unisono.data import sounds

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@row("systems/more_xray_ecg", goals=[Goal("r@1", must=0.5)], arms=("ours",), seeds=(0, 1, 2))
def more_xray_ecg(*, arm: str, seed: int) -> Measured:
    """How often the first sound found by a picture is of its digit, against 0.1 by chance."""
    table = sounds.av_digits("theo", seed=seed)
    words = pa.array([f"the digit {NAMES[d]}" for d in table["digit"].to_pylist()])
    table = table.select(["key", "image", "sound", "digit", "split"]).append_column("report", words)
    settings = ("train.batch=128", "train.epochs=10", "train.lr=0.003")
    model = aligned("more-xray-ecg", table, seed, settings, item="digit", columns={"report": "text"})
    return {"r@1": (between(model, "image", "sound")["r@1"], "share")}
