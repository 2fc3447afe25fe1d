"""Patches of several sizes, and short and long distances in turn (arXiv:2108.00154; recipe ``crossformer``).

Claim: an embedding that sees several scales at one stride, with layers for short and long distances, reads things of mixed size. Exact
(``tests/systems/test_crossformer.py``): grouping and back is the identity; over a long distance a token changes those at whole intervals
alone; the biases of a table of offsets are those computed pair by pair; sizes that were never seen run unchanged.

One of four shapes, from a third of the side to all of it, on pictures of 32 x 32 pixels with noise, strided by 4. ``one_kernel`` embeds
with one kernel of 16 pixels, which has more weights than the four kernels together; ``short`` has windows in place of long distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.grids import Batch, GridModel, accuracy, parameters, shape_masks, train
from unisono.nn.stem import ScalesStem

SIDE, WIDTH = 32, 32
DEFAULTS = {"mixer": "attention(heads=4, bias=mlp(16))", "ffn": "mlp(2)"}


class Embed(nn.Module):
    """A stem for pictures whose channels lie last."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = stem, nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, h, w, D)."""
        done: Tensor = self.norm(self.stem(x.movedim(-1, 1)).movedim(1, -1))
        return done


def shapes(rng: np.random.Generator, count: int) -> Batch:
    """Pictures (N, 32, 32, 1) and the shape of each."""
    kind, radius = rng.integers(0, 4, count), np.exp(rng.uniform(np.log(0.15), np.log(0.5), count))
    centre = 0.5 + (rng.random((count, 2)) - 0.5) * np.maximum(1 - 2 * radius, 0.0)[:, None]
    mask = shape_masks(kind, centre, radius, (SIDE, SIDE))
    contrast = rng.uniform(1.0, 2.0, (count, 1, 1))
    return (mask * contrast + 0.1 * rng.normal(size=mask.shape)).astype(np.float32)[..., None], kind


def against(found: Values) -> dict[str, tuple[float | None, str]]:
    """Accuracy less that of each simpler arm."""
    ours = found.mean("accuracy", "ours")
    others = {arm: found.mean("accuracy", arm) for arm in ("one_kernel", "short")}
    return {f"less_{arm}": (None if ours is None or other is None else ours - other, "share") for arm, other in others.items()}


@row(
    "systems/crossformer",
    goals=[Goal("less_one_kernel", must=0.0), Goal("less_short", must=0.0)],
    arms=("ours", "one_kernel", "short"),
    seeds=(0, 1, 2),
    derive=against,
)
def crossformer(*, arm: str, seed: int) -> Measured:
    """Naming shapes of very different sizes."""
    torch.manual_seed(seed)
    stem: nn.Module = ScalesStem(1, WIDTH, halvings=2)
    if arm == "one_kernel":
        stem = nn.Conv2d(1, WIDTH, 16, stride=4, padding=6)
    scopes = ["window(4)", "window(4)" if arm == "short" else "dilated(2)"]
    steps: list[Any] = [*({"scope": s} for s in scopes), {"read": "mean"}]
    model = GridModel(steps=steps, defaults=DEFAULTS, channels=1, outputs=4, width=WIDTH, embed=Embed(stem))
    train(model, shapes, seed=seed, steps=220, batch=48, lr=5e-3)
    return {"accuracy": (accuracy(model, shapes, seed=seed), "share"), "parameters": (parameters(model), "numbers")}
