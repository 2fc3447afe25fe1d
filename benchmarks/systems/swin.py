"""Windows that are shifted from layer to layer (arXiv:2103.14030; recipe ``swin``).

Claim: shifted windows carry news over the borders of windows at the price of windows. Exact (``tests/systems/test_swin.py``): cutting into
windows and back is the identity; shifted windows equal attention on each region by itself, and the cyclic shift with its mask; a window
that covers the map is attention over all with its bias; patch merging maps four neighbours side by side.

Two marked tokens lie side by side at a border of windows of a map of 8 x 8; each has to name the other's symbol, of four. All other tokens
carry symbols too. Both arms have two layers of windows of 4 and the same weights; the baseline's windows stay where they are, and make a
few more products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import Goal, Measured, row
from benchmarks.systems.common import differences
from benchmarks.systems.grids import Batch, GridModel, accuracy, parameters, told_symbols, train
from unisono.core.relation import Blocks
from unisono.nn.layer import LayerPlan

SIDE, WINDOW, SYMBOLS = 8, 4, 4
NEAR, SHIFTED = "window(4)", "window(4, shift=2)"
DEFAULTS = {"mixer": "attention(heads=4, bias=table(reach=3))", "ffn": "mlp(2)"}


def pairs(rng: np.random.Generator, count: int) -> Batch:
    """Maps whose marks lie side by side at a border of windows."""
    along, upright = rng.integers(0, SIDE, count), rng.random(count) < 0.5
    ends = [(np.where(upright, along, at), np.where(upright, at, along)) for at in (WINDOW - 1, WINDOW)]
    return told_symbols(rng, ends, SIDE, SYMBOLS)


def products(model: GridModel) -> int:
    """Products of a query with a key for one picture."""
    plans = [p for p in model.plan((1, SIDE, SIDE)).steps if isinstance(p, LayerPlan)]
    return sum(r.blocks * r.queries * r.keys for p in plans for r in (p.relation.runs if isinstance(p.relation, Blocks) else ()))


@row(
    "systems/swin",
    goals=[Goal("accuracy_gain", must=0.05), Goal("accuracy", arm="ours", must=0.9)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("accuracy"),
)
def swin(*, arm: str, seed: int) -> Measured:
    """Matching two tokens over a border of windows: shifted windows against windows that stay."""
    torch.manual_seed(seed)
    steps: list[Any] = [{"scope": NEAR}, {"scope": SHIFTED if arm == "ours" else NEAR}, {"read": "mean"}]
    model = GridModel(steps=steps, defaults=DEFAULTS, channels=SYMBOLS + 1, outputs=SYMBOLS, dense=True)
    train(model, pairs, seed=seed, steps=200, batch=32, lr=5e-3)
    return {
        "accuracy": (accuracy(model, pairs, seed=seed), "share"),
        "parameters": (parameters(model), "numbers"),
        "products": (products(model), "products a picture"),
    }
