"""UniFork, first layers for all targets and last ones for each (arXiv:2506.17202; recipe ``unifork``).

Claim: targets that want different things of the last layers do better with their own. Exact (``tests/systems/test_unifork.py``): forking
after the last layer is the fully shared model, before the first two separate ones; a target's loss gives the other branch no gradient.
Waiting: generation (captions and image tokens, with which the paper forks, and its alignment curve by layer).

In its place two targets of the shapes world that read other sources: the season (of the caption) and the grade (of the table); the
baseline shares all layers, of which as many serve a target.
"""

from __future__ import annotations

import numpy as np

import unisono
from benchmarks import Goal, Measured, row
from benchmarks.systems.common import accuracy, differences
from unisono.data import shapes

SETTINGS = ["width=32", "train.steps=250", "train.batch=64", "train.lr=0.002"]
ROWS, TARGETS = 1200, ("season", "grade", "shape")


@row(
    "systems/unifork",
    goals=[Goal("loss_gain", must=0.0), Goal("accuracy_gain", must=0.0)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=lambda found: {
        "loss_gain": differences("log_loss", ours="baseline", baseline="ours", unit="nats")(found)["log_loss_gain"],
        **differences("accuracy")(found),
    },
)
def unifork(*, arm: str, seed: int) -> Measured:
    """Mean log loss and accuracy of three targets, the last layer each target's own or all targets' together."""
    table = shapes(ROWS, seed=seed, columns=["split", "caption", "table", *TARGETS])
    recipe = "unifork" if arm == "ours" else "base"
    targets = {name: "category" for name in TARGETS}
    model = unisono.fit(table, targets, recipe=recipe, split="split", settings=SETTINGS, seed=seed, progress=False)
    measured = model.metrics["test"]["targets"]
    loss = float(np.mean([measured[name]["log_loss"] for name in TARGETS]))
    return {"log_loss": (loss, "nats"), "accuracy": (float(np.mean([accuracy(model, name) for name in TARGETS])), "share")}
