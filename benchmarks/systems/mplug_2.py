"""mPLUG-2, encoders of each source's own and universal layers (arXiv:2302.00402; recipe ``mplug-2``).

Claim: own parts keep sources from interfering, shared ones let them help each other. Exact (``tests/systems/test_mplug_2.py``): universal
weights are one object whose gradient is the sum over sources; modules of sources that a task does not use get none. Waiting: generation
(the shared text decoder).

Three tasks of the shapes world at once: motion from a series, the shape from a caption, the grade from a table. Arms: own and universal
layers, all layers shared, and a separate model for each task.
"""

from __future__ import annotations

import numpy as np

import unisono
from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.common import accuracy, differences
from unisono.data import shapes

SETTINGS = ["width=32", "train.steps=250", "train.batch=64", "train.lr=0.002"]
SHARED = "trunk=[{scope: source, repeat: 2}, {scope: sample}, {read: mean(by=source)}]"
ROWS, TASKS = 1000, {"motion": ["series"], "shape": ["caption"], "grade": ["table"]}


def compared(found: Values) -> dict[str, tuple[float | None, str]]:
    """The gains over sharing all and over separate models, and the weights that one model saves."""
    ours, apart = found.mean("weights", "ours"), found.mean("weights", "separate")
    return {
        **differences("accuracy")(found),
        "separate_gain": differences("accuracy", baseline="separate")(found)["accuracy_gain"],
        "saved_weights": (None if ours is None or apart is None else 1 - ours / apart, "share"),
    }


@row(
    "systems/mplug-2",
    goals=[Goal("accuracy_gain", must=0.0, aim=0.01), Goal("separate_gain", must=-0.01), Goal("saved_weights", must=0.3)],
    arms=("ours", "baseline", "separate"),
    seeds=(0, 1, 2),
    derive=compared,
)
def mplug_2(*, arm: str, seed: int) -> Measured:
    """Mean accuracy of three tasks of three sources, and the number of weights."""
    groups = [{name: sources} for name, sources in TASKS.items()] if arm == "separate" else [TASKS]
    settings = [*SETTINGS, SHARED] if arm == "baseline" else SETTINGS
    found, weights = [], 0
    for tasks in groups:
        columns = ["split", *(s for sources in tasks.values() for s in sources), *tasks]
        table = shapes(ROWS, seed=seed, columns=columns)
        recipe = "base" if arm == "baseline" else "mplug-2"
        model = unisono.fit(
            table, dict.fromkeys(tasks, "category"), recipe=recipe, split="split", settings=settings, seed=seed, progress=False
        )
        found += [accuracy(model, name) for name in tasks]
        weights += model.metrics["training"]["parameters"]
    return {"accuracy": (float(np.mean(found)), "share"), "weights": (weights, "numbers")}
