"""Unified normalisation (arXiv:2208.01313; recipe ``unified-norm``).

Claim: smoothed statistics without a mean train as well as layer norm, and are a fixed scale in evaluation. Exact
(``tests/systems/test_unified_norm.py``): evaluation folded into the next map is the same; the geometric mean of constant batches is their
moment; with a window of 4, a batch a thousand times as large leaves the next statistic as it is when filtered, and moves it more than
tenfold when not. The variance in the test for outliers is over the batches and channels of the window before the batch; an outlier enters
neither window nor running moments.

A transformer of two layers on digits of 16 patches; each arm has the best of three learning rates on a fifth of its training rows.
"""

from __future__ import annotations

import time

import torch

from benchmarks import Goal, Measured, row
from benchmarks.systems.common import differences
from benchmarks.systems.norming import Classifier, accuracy, cell_meta, digits, grid, patches, with_rate
from unisono.compress.fold import fold

ARMS = {"ours": "unified", "baseline": "layer", "batch": "batch"}


@row(
    "systems/unified-norm",
    goals=[
        Goal("accuracy_gain", must=-0.01, aim=0.0),
        Goal("accuracy", arm="ours"),
        Goal("folded_difference", arm="ours", must=1e-4, better="lower"),
    ],
    arms=tuple(ARMS),
    seeds=(0, 1, 2),
    derive=differences("accuracy"),
)
def unified_norm(*, arm: str, seed: int) -> Measured:
    """Accuracy of a small digit transformer with unified, layer and batch norm; of unified norm also folded into the maps behind it."""
    data = digits(seed)
    x, test = patches(data.x), patches(data.x[data.test])
    sample = cell_meta(0, grid(4, 4))
    made = with_rate(
        lambda: Classifier(ARMS[arm], 4, sample, 10, {}),
        x[data.train],
        data.y[data.train],
        rates=(1e-3, 3e-3, 1e-2),
        steps=250,
        batch=64,
        seed=seed,
    )
    found = {"accuracy": (accuracy(made, test, data.y[data.test]), "share")}
    if arm != "baseline":
        assert isinstance(made, Classifier)
        with torch.no_grad():
            plain, seconds = _timed(made, test)
            for word in ("fixed", "copies"):
                fold(made.trunk, word)
            made.made = {}
            folded, fewer = _timed(made, test)
        found["folded_difference"] = (float((plain - folded).abs().max()), "")
        found["milliseconds"], found["folded_milliseconds"] = (1000 * seconds, "ms"), (1000 * fewer, "ms")
    return found


def _timed(model: Classifier, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """What the model says, and the median time of a pass."""
    result = model(x)
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        model(x)
        times.append(time.perf_counter() - begin)
    return result, sorted(times)[4]
