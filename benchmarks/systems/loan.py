"""Location-aware adaptive normalisation (arXiv:2212.08208; recipe ``loan``), and other conditional norms (recipe ``conditional-norm``).

Claim: a static map that says how each place's changing features are to be normalised beats the map repeated as further features. Exact
(``tests/systems/test_loan.py``): without convolution weights it is batch norm; gamma and beta are a convolution of the static features, the
same at all times; shifting the map shifts them. Waiting: the day of year's code on a seasonal variant.

Weather on a grid of 3 x 3 places over two days, and a map of land with four kinds; heat is a danger on two kinds of land and a relief on
the others, wind likewise by another division. The event at the middle is drawn from the middle's weather of the last day. Both arms have
two token-wise layers and a head on the middle's last token, and the best of three learning rates on a fifth of the training rows. The
baseline gets the kind of land as further features of every token, batch norm, and a wider feed-forward of more weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks import Goal, Measured, row
from benchmarks.systems.common import differences
from benchmarks.systems.norming import batch_meta, cell_meta, fit, grid
from unisono.core.names import Names
from unisono.core.tokens import concatenate
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame

SIDE, TIMES, KINDS, WIDTH = 3, 2, 4, 12
TRAINED, TESTED, STEPS, RATES = 1500, 2000, 250, (3e-3, 1e-2, 3e-2)
NAMES = Names(("video", "image"), ("weather", "land"), ("weather", "land"))


def world(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weather (N, TIMES, SIDE, SIDE, 2), land (N, SIDE, SIDE, KINDS) and events (N,)."""
    rng = np.random.default_rng(seed)
    weather = rng.normal(size=(rows, TIMES, SIDE, SIDE, 2))
    land = rng.integers(0, KINDS, (rows, SIDE, SIDE))
    middle, kind = weather[:, -1, SIDE // 2, SIDE // 2], land[:, SIDE // 2, SIDE // 2]
    heat, wind = np.where(kind < 2, 1.5, -1.5), np.where(kind % 2 == 0, 1.5, -1.5)
    chance = 1 / (1 + np.exp(-(heat * middle[:, 0] + wind * middle[:, 1])))
    event = rng.random(rows) < chance
    return torch.from_numpy(weather).float(), torch.eye(KINDS)[torch.from_numpy(land)], torch.from_numpy(event.astype(np.int64))


class Watch(nn.Module):
    """Weather and land to the scores of the event."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        self.arm = arm
        clip, picture = cell_meta(0, grid(TIMES, SIDE, SIDE), 2), cell_meta(1, grid(SIDE, SIDE), 2)
        self.sample = concatenate([clip, picture]) if arm == "ours" else clip
        self.weather = nn.Linear(2 if arm == "ours" else 2 + KINDS, WIDTH)
        self.land = nn.Linear(KINDS, WIDTH)
        defaults: dict[str, Any] = {"mixer": "none", "ffn": "mlp(2)" if arm == "ours" else "mlp(60)"}
        defaults["norm"] = "loan(static=land)" if arm == "ours" else "batch"
        trunk = build_trunk([{"repeat": 2}, {"read": "mean"}], defaults, width=WIDTH, num_modalities=2, frame=Frame(NAMES))
        self.trunk, self.head = trunk, nn.Linear(WIDTH, 2)
        self.plans: dict[int, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, TIMES + KINDS / 2 features ...) as ``pack`` lays them out, to (B, 2)."""
        weather, land = unpack(x)
        b = len(x)
        if b not in self.plans:
            self.plans[b] = self.trunk.plan(batch_meta(self.sample, b))
        if self.arm == "ours":
            tokens = torch.cat([self.weather(weather).flatten(1, 3), self.land(land).flatten(1, 2)], 1)
        else:
            repeated = land.unsqueeze(1).expand(-1, TIMES, -1, -1, -1)
            tokens = self.weather(torch.cat([weather, repeated], -1)).flatten(1, 3)
        out = self.trunk.run(tokens.flatten(0, 1), self.plans[b]).tokens.view(b, -1, WIDTH)
        middle = (TIMES - 1) * SIDE * SIDE + (SIDE * SIDE) // 2
        result: Tensor = self.head(out[:, middle])
        return result


def pack(weather: Tensor, land: Tensor) -> Tensor:
    """Both side by side, (N, ...)."""
    return torch.cat([weather.flatten(1), land.flatten(1)], 1)


def unpack(x: Tensor) -> tuple[Tensor, Tensor]:
    """What ``pack`` put together."""
    cut = TIMES * SIDE * SIDE * 2
    return x[:, :cut].view(-1, TIMES, SIDE, SIDE, 2), x[:, cut:].view(-1, SIDE, SIDE, KINDS)


@row(
    "systems/loan",
    goals=[Goal("auc_gain", must=0.02), Goal("auc", arm="ours"), Goal("auc", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=differences("auc"),
)
def loan(*, arm: str, seed: int) -> Measured:
    """Area under the curve where the same weather is a danger on one land and a relief on another, against repeated static features."""
    weather, land, event = world(TRAINED, seed)
    x, cut = pack(weather, land), TRAINED * 4 // 5
    found: list[tuple[float, nn.Module]] = []
    for lr in RATES:
        torch.manual_seed(seed)
        model = Watch(arm)
        fit(model, x[:cut], event[:cut], steps=STEPS, batch=64, lr=lr, seed=seed)
        found.append((area(model, x[cut:], event[cut:]), model))
    best = max(found, key=lambda pair: pair[0])[1]
    weather, land, event = world(TESTED, 100 + seed)
    weights = sum(p.numel() for p in best.parameters())
    return {"auc": (area(best, pack(weather, land), event), "share"), "parameters": (float(weights), "")}


@torch.no_grad()
def area(model: nn.Module, x: Tensor, event: Tensor) -> float:
    """The area under the curve of a model's scores."""
    scores = torch.cat([model(part) for part in x.split(100)]).softmax(1)[:, 1]
    return float(roc_auc_score(event, scores))
