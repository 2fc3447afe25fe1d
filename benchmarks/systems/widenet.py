"""WideNet (arXiv:2107.11817; recipe ``widenet``).

Claim: weights shared over depth lose quality, a mixture of experts in place of the one shared feed-forward wins it back, and norms of each
depth's own let the one router tell depths apart. Exact (``tests/systems/test_widenet.py``): the number of weights; one expert and tied
norms are plain sharing over depth; tied norms route the same input alike at every depth. Nothing waits.

Handwritten digits as sixteen patches through four layers. The baseline shares one plain layer over depth, ``unshared`` shares nothing.
"""

from __future__ import annotations

from typing import Any

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.loops import Model, accuracy, classify, digit_split, trunk_of, weights

WIDTH, DEPTH, STEPS, RATES = 32, 4, 200, (4e-3, 8e-3)
SHARINGS: dict[str, Any] = {"baseline": "depth", "unshared": "all"}


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """What experts add to plain sharing, and the weights next to no sharing."""
    ours, shared = found.mean("accuracy", "ours"), found.mean("accuracy", "baseline")
    few, many = found.mean("weights", "ours"), found.mean("weights", "unshared")
    return {
        "gain": (None if ours is None or shared is None else ours - shared, "share"),
        "weights_ratio": (None if few is None or many is None else few / many, "ratio"),
    }


@row(
    "systems/widenet",
    goals=[Goal("gain", must=0.0, aim=0.01), Goal("weights_ratio", must=1.0, better="lower")],
    arms=("ours", "baseline", "unshared"),
    seeds=(0, 1, 2),
    derive=gains,
)
def widenet(*, arm: str, seed: int) -> Measured:
    """Accuracy on handwritten digits with one layer for all depths: a shared mixture of experts against a shared plain feed-forward."""
    recipe = "widenet" if arm == "ours" else "base"
    changes: dict[str, Any] = {"steps": {"mix": {"repeat": DEPTH}}}
    if arm != "ours":
        changes["defaults"] = {"sharing": SHARINGS[arm]}
    data = digit_split(seed)
    model, rate = classify(
        lambda: Model(trunk_of(recipe, WIDTH, changes), [(16, 4)], [10], WIDTH), data, steps=STEPS, rates=RATES, seed=seed
    )
    return {"accuracy": (accuracy(model, data), "share"), "weights": (weights(model.trunk), "weights"), "rate": (rate, "per step")}
