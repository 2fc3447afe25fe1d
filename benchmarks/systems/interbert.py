"""InterBERT, common layers and then layers of each source's own (arXiv:2003.13198; recipe ``interbert``).

Claim: independent streams behind the common layers let a source serve alone. Exact (``tests/systems/test_interbert.py``): with pictures
absent texts do not depend on the pictures' weights. Waiting: masked segments and regions, and matching with hard negatives (objectives).

Captions alone tell the shape: trained with pictures beside them, or by themselves.
"""

from __future__ import annotations

import unisono
from benchmarks import Goal, Measured, row
from benchmarks.systems.common import accuracy, alone, differences, shares
from unisono.data import shapes

SETTINGS = ["width=48", "train.steps=250", "train.batch=64", "train.lr=0.002"]
ROWS = 900


@row(
    "systems/interbert",
    goals=[Goal("caption_gain", must=-0.01, aim=0.0)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("caption"),
)
def interbert(*, arm: str, seed: int) -> Measured:
    """Accuracy on shapes from the caption alone, of the model of both sources and of one that has only ever seen captions."""
    ours = arm == "ours"
    columns = ["split", "image", "caption", "shape"] if ours else ["split", "caption", "shape"]
    table = shapes(ROWS, seed=seed, columns=columns, size=24)
    recipe = "interbert" if ours else "early-fusion"
    model = unisono.fit(table, "shape=category", recipe=recipe, split="split", settings=SETTINGS, seed=seed, progress=False)
    if not ours:
        return shares({"caption": accuracy(model, "shape")})
    return shares({"caption": alone(model, "caption", "shape"), "both": accuracy(model, "shape")})
