"""Windows that look at surroundings of several sizes, pooled to the window's own (arXiv:2404.16573; recipe ``vwformer``).

Claim: many scales for the price of one. Exact (``tests/systems/test_vwformer.py``): ratio 1 is attention within windows; every ratio takes
the same number of operations, counted; who lies within the surroundings matters to a window and no one else. The published decoder runs
its ratios side by side and joins them; here they are layers one behind the other.

Every place of a map of 16 x 16 is named: background, or one of three shapes whose radius varies fivefold. Windows have 4 x 4 places. The
baseline's layers all have ratio 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import Goal, Measured, row
from benchmarks.systems.common import differences
from benchmarks.systems.grids import Batch, GridModel, answers, parameters, shape_masks, train

SIDE, CLASSES = 16, 4
DEFAULTS = {"mixer": "pooled_attention(heads=4, places=4)", "ffn": "mlp(2)"}


def scenes(rng: np.random.Generator, count: int) -> Batch:
    """Maps (N, 16, 16, 1) with noise, and the class of every place."""
    kind, radius = rng.integers(0, CLASSES - 1, count), np.exp(rng.uniform(np.log(0.1), np.log(0.5), count))
    centre = 0.5 + (rng.random((count, 2)) - 0.5) * np.maximum(1 - 2 * radius, 0.0)[:, None]
    mask = shape_masks(kind, centre, radius, (SIDE, SIDE))
    x = (2.0 * mask - 0.5 + 0.3 * rng.normal(size=mask.shape)).astype(np.float32)[..., None]
    return x, np.where(mask, kind[:, None, None] + 1, 0)


def mean_iou(model: GridModel, seed: int) -> float:
    """The mean over classes of the intersection over the union."""
    x, y = scenes(np.random.default_rng(9_000_000 + seed), 1000)
    found, truth = answers(model, x), y.reshape(-1)
    return float(np.mean([((found == k) & (truth == k)).sum() / ((found == k) | (truth == k)).sum() for k in range(CLASSES)]))


@row(
    "systems/vwformer",
    goals=[Goal("iou_gain", must=0.01)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("iou"),
)
def vwformer(*, arm: str, seed: int) -> Measured:
    """Masks of shapes of widely varying size: surroundings of one, two and four times the window, against the window alone."""
    torch.manual_seed(seed)
    ratios = (1, 2, 4) if arm == "ours" else (1, 1, 1)
    steps: list[Any] = [*({"scope": f"context(4, ratio={r})"} for r in ratios), {"read": "mean"}]
    model = GridModel(steps=steps, defaults=DEFAULTS, channels=1, outputs=CLASSES, dense=True)
    train(model, scenes, seed=seed, steps=200, batch=16, lr=5e-3)
    return {"iou": (mean_iou(model, seed), "share"), "parameters": (parameters(model), "numbers")}
