"""One model for many resolutions (arXiv:2212.00776; recipe ``resformer``).

Claim: replicas at several resolutions whose states agree, and positions made by convolution, let one model read resolutions that it never
saw. Exact (``tests/systems/test_resformer.py``): identical replicas have no consistency loss; the position code is defined at any size
without a table; the local part commutes with translation away from the border. Waiting: an objective over replicas in ``fit``; here
replicas are trained by a loop of this row.

One of four shapes, drawn at 16, 24 and 32 pixels for training and at 12, 40 and 48 for the test, patches of 4. The baseline is a plain
trunk with a learned table of positions for 24 pixels, interpolated elsewhere, trained at 24 alone on three times as many pictures: as
many tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.grids import GridModel, accuracy, parameters, shape_masks, train
from unisono.objectives.replicas import scale_consistency

WIDTH, PATCH, BATCH, STEPS = 32, 4, 48, 150
SEEN, UNSEEN, FIXED = (32, 24, 16), (12, 40, 48), 24
DEFAULTS = {"mixer": "attention(heads=4)", "ffn": "mlp(2)"}
CONVOLVED: list[Any] = [
    {"mixer": "convolution(3)", "ffn": "none"}, {"mixer": "convolution(3)", "ffn": "none"}, {"scope": "sample"},
    {"mixer": "convolution(3)", "ffn": "none"}, {"scope": "sample"}, {"read": "mean"},
]  # fmt: skip
PLAIN: list[Any] = [{"scope": "sample"}, {"scope": "sample"}, {"read": "mean"}]


class Patches(nn.Module):
    """Patches of 4 x 4 pixels, with a table of positions that is interpolated where there is one."""

    def __init__(self, *, table: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH), nn.LayerNorm(WIDTH)
        self.table = nn.Parameter(torch.randn(1, WIDTH, FIXED // PATCH, FIXED // PATCH) * 0.3) if table else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, 1) -> (N, h, w, D)."""
        tokens: Tensor = self.norm(self.stem(x.movedim(-1, 1)).movedim(1, -1))
        if self.table is None:
            return tokens
        at = nn.functional.interpolate(self.table, size=tokens.shape[1:3], mode="bicubic", align_corners=False)
        return tokens + at.movedim(1, -1)


def drawn(rng: np.random.Generator, count: int, sides: tuple[int, ...]) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """The same shapes at several resolutions, each (N, side, side, 1), and what they are."""
    kind, radius = rng.integers(0, 4, count), rng.uniform(0.25, 0.45, count)
    centre = 0.5 + (rng.random((count, 2)) - 0.5) * (1 - 2 * radius)[:, None]
    pictures = []
    for side in sides:
        mask = shape_masks(kind, centre, radius, (side, side))
        pictures.append((2.0 * mask - 0.5 + 0.1 * rng.normal(size=mask.shape)).astype(np.float32)[..., None])
    return pictures, kind


def replicas_loss(model: GridModel, x: Any, wanted: Tensor) -> Tensor:
    """The sum of the replicas' cross-entropies, and how far their states lie apart."""
    states = torch.stack([model.pooled(torch.from_numpy(part)) for part in x])
    scores = model.head(model.norm(states))
    each = torch.stack([nn.functional.cross_entropy(s, wanted) for s in scores])
    return each.sum() + scale_consistency(states).mean()


def ratio(found: Values) -> dict[str, tuple[float | None, str]]:
    """Our drop as a share of the baseline's."""
    ours, base = found.mean("drop", "ours"), found.mean("drop", "baseline")
    return {"drop_ratio": (None if ours is None or not base else ours / base, "of the baseline's drop")}


@row(
    "systems/resformer",
    goals=[Goal("drop_ratio", must=0.5, better="lower")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=ratio,
)
def resformer(*, arm: str, seed: int) -> Measured:
    """How much accuracy at 24 pixels is lost on average at 12, 40 and 48."""
    torch.manual_seed(seed)
    ours = arm == "ours"
    model = GridModel(
        steps=CONVOLVED if ours else PLAIN, defaults=DEFAULTS, channels=1, outputs=4, width=WIDTH, position=ours,
        embed=Patches(table=not ours),
    )  # fmt: skip
    if ours:
        train(model, lambda rng, n: drawn(rng, n, SEEN), seed=seed, steps=STEPS, batch=BATCH, lr=5e-3, loss=replicas_loss)  # type: ignore[arg-type, return-value]
    else:

        def fixed(rng: np.random.Generator, n: int) -> Any:
            pictures, kind = drawn(rng, n, (FIXED,))
            return pictures[0], kind

        train(model, fixed, seed=seed, steps=STEPS, batch=3 * BATCH, lr=5e-3)

    def at(side: int) -> float:
        def one(rng: np.random.Generator, n: int) -> Any:
            pictures, kind = drawn(rng, n, (side,))
            return pictures[0], kind

        return accuracy(model, one, seed=seed, pictures=600)

    known, new = at(FIXED), {side: at(side) for side in UNSEEN}
    found = {"known": known, **{f"at_{side}": value for side, value in new.items()}, "drop": known - float(np.mean(list(new.values())))}
    return {**{k: (v, "share") for k, v in found.items()}, "parameters": (parameters(model), "numbers")}
