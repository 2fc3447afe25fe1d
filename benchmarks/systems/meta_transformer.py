"""Meta-Transformer, one frozen encoder for every modality (arXiv:2307.10802; recipe ``meta-transformer``).

Claim: an encoder that has learned from pictures alone serves other modalities, with nothing but their tokenisers and heads trained.
Exact (``tests/systems/test_meta_transformer.py``): cells of all fourteen column types become tokens of one width through one interface;
the frozen encoder's hash is the same after training. Waiting: starting a fit from another model's weights (adapt); here the encoder is
put in place by hand.

The encoder learns shapes from pictures; then it is frozen, and each of six other sources tells what it can. The baseline's encoder is
frozen as it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np

import unisono
from benchmarks import Goal, Measured, row
from benchmarks.systems.common import accuracy, differences, shares
from unisono.data import shapes
from unisono.model import fit as fitting
from unisono.network import Network, freeze

ROWS, STEPS = 700, 150
SETTINGS = ["width=32", f"train.steps={STEPS}", "train.batch=64", "train.lr=0.003"]
TASKS = {"caption": "shape", "points": "shape", "series": "motion", "graph": "shape", "sound": "hum", "table": "grade"}


def train(seed: int, source: str, target: str, more: Sequence[str] = ()) -> Any:
    """A fit of the recipe on one source."""
    table = shapes(ROWS, seed=seed, columns=["split", source, target], size=24)
    settings = [*SETTINGS, *more]
    columns = {source: source} if source == "points" else None
    options: dict[str, Any] = {"recipe": "meta-transformer", "split": "split", "seed": seed, "progress": False}
    return unisono.fit(table, f"{target}=category", columns=columns, settings=settings, **options)


@row(
    "systems/meta-transformer",
    goals=[Goal("accuracy_gain", must=0.0), Goal("over_majority", arm="ours", must=0.2)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("accuracy"),
)
def meta_transformer(*, arm: str, seed: int) -> Measured:
    """Accuracy of six sources through a frozen encoder that has learned from pictures, or nothing; the least gain over the majority."""
    weights = train(seed, "image", "shape").network.trunk.state_dict() if arm == "ours" else None

    def start(network: Network, names: Sequence[str]) -> None:
        if weights is not None:
            network.trunk.load_state_dict(weights)
        freeze(network, names)

    found: dict[str, float] = {}
    over: list[float] = []
    with patch.object(fitting, "freeze", start):
        for source, target in TASKS.items():
            model = train(seed, source, target, ["train.freeze=[trunk]"])
            found[source] = accuracy(model, target)
            labels = shapes(ROWS, seed=seed, columns=["split", target], size=24).to_pydict()
            tested = [v for v, s in zip(labels[target], labels["split"], strict=True) if s == "test"]
            over.append(found[source] - max(tested.count(v) for v in set(tested)) / len(tested))
    return shares({**found, "accuracy": float(np.mean(list(found.values()))), "over_majority": min(over)})
