"""Attention within windows and over a dilated grid in turn (arXiv:2204.01697; recipe ``maxvit``).

Claim: two layers connect every two places of a map, at a cost linear in its size. Exact (``tests/systems/test_maxvit.py``): grid attention
is block attention of the reshaped map; cutting and putting back is the identity; a block alone stays within windows, a block and a grid
together reach every place; products are linear in the places. The squeeze-and-excitation of the convolution's block is left out: no
clause needs it.

Two marked tokens lie anywhere on a map of 4 x 4, in different windows of 2; each has to name the other's symbol, of four. Both arms have a
convolution and two layers of attention with the same weights; the baseline's grid is a window too.
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

SIDE, WINDOW, SYMBOLS = 4, 2, 4
DEFAULTS = {"mixer": "attention(heads=4, bias=mlp(16))", "ffn": "mlp(2)"}


def far_pairs(rng: np.random.Generator, count: int) -> Batch:
    """Maps whose marks lie in different windows."""
    blocks = SIDE // WINDOW
    first = rng.integers(0, blocks**2, count)
    ends = []
    for block in (first, (first + rng.integers(1, blocks**2, count)) % blocks**2):
        within = rng.integers(0, WINDOW, (2, count))
        ends.append((block // blocks * WINDOW + within[0], block % blocks * WINDOW + within[1]))
    return told_symbols(rng, ends, SIDE, SYMBOLS)


def products_per_token(model: GridModel, side: int) -> float:
    """Products of a query with a key for one token of a map."""
    plans = [p for p in model.plan((1, side, side)).steps if isinstance(p, LayerPlan)][1:]
    return sum(r.blocks * r.queries * r.keys for p in plans for r in (p.relation.runs if isinstance(p.relation, Blocks) else ())) / side**2


@row(
    "systems/maxvit",
    goals=[Goal("accuracy_gain", must=0.08), Goal("growth", arm="ours", must=1.0, better="lower")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("accuracy"),
)
def maxvit(*, arm: str, seed: int) -> Measured:
    """Matching two tokens far apart: windows and grids in turn against windows alone."""
    torch.manual_seed(seed)
    scopes = ["window(2)", "grid(2)" if arm == "ours" else "window(2)"]
    steps: list[Any] = [{"mixer": "convolution(3)"}, *({"scope": s} for s in scopes), {"read": "mean"}]
    model = GridModel(steps=steps, defaults=DEFAULTS, channels=SYMBOLS + 1, outputs=SYMBOLS, dense=True)
    train(model, far_pairs, seed=seed, steps=300, batch=64, lr=5e-3)
    return {
        "accuracy": (accuracy(model, far_pairs, seed=seed), "share"),
        "parameters": (parameters(model), "numbers"),
        "growth": (products_per_token(model, 32) / products_per_token(model, 8), "times the products a token at 16 times the places"),
    }
