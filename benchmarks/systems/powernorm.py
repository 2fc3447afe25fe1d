"""Power normalisation (arXiv:2003.07845; recipe ``powernorm``).

Claim: running quadratic means with an approximate gradient make statistics over the batch usable in transformers, where batch norm is not.
Exact (``tests/systems/test_powernorm.py``): one batch again and again converges to the exact gradient of dividing by its root mean square;
in evaluation a batch of one token equals any; every step follows the equations of psi2 and nu.

A transformer of two layers guesses the next character of English prose (the reference texts that come with Python) from four pieces of 48
characters an update. Each arm has the best of three learning rates on held-out pieces; the loss reported is on other pieces.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.norming import batch_meta, cell_meta, grid
from unisono.core.names import Names
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame

LENGTH, BATCH, STEPS, WIDTH, RATES = 48, 4, 300, 48, (1e-3, 3e-3, 1e-2)
ARMS = {"power": "power", "batch": "batch", "layer": "layer"}


def prose() -> tuple[Tensor, int]:
    """The text as numbers of characters, and how many characters there are."""
    from pydoc_data.topics import topics

    text = "".join(topics[name] for name in sorted(topics))
    known = sorted(set(text))
    return torch.tensor([known.index(c) for c in text[:200_000]]), len(known)


class Reader(nn.Module):
    """Characters to the scores of the ones after them."""

    def __init__(self, norm: str, characters: int) -> None:
        super().__init__()
        self.sample = cell_meta(0, grid(LENGTH))
        self.embed = nn.Embedding(characters, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layers = {"norm": norm, "mixer": "attention(heads=4)", "ffn": "mlp(2)", "scope": "sample & causal(sequence)"}
        self.trunk = build_trunk([{"repeat": 2}, {"read": "mean"}], layers, width=WIDTH, num_modalities=1, frame=Frame(Names(("text",))))
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters)
        self.plans = {b: self.trunk.plan(batch_meta(self.sample, b)) for b in (BATCH, 32)}

    def forward(self, text: Tensor) -> Tensor:
        """(B, LENGTH) to (B LENGTH, characters)."""
        x = (self.embed(text) + self.place).flatten(0, 1)
        result: Tensor = self.head(self.last(self.trunk.run(x, self.plans[len(text)]).tokens))
        return result


def pieces(text: Tensor, low: float, high: float, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pieces of a part of the text, and the characters behind each of theirs."""
    start = torch.randint(int(low * len(text)), int(high * len(text)) - LENGTH - 1, (count,), generator=draw)
    index = start.unsqueeze(1) + torch.arange(LENGTH)
    return text[index], text[index + 1]


def gaps(found: Values) -> dict[str, tuple[float | None, str]]:
    """How much lower the loss is, as a share of the other's."""
    result: dict[str, tuple[float | None, str]] = {}
    ours = found.mean("loss", "power")
    for other in ("batch", "layer"):
        theirs = found.mean("loss", other)
        result[f"below_{other}"] = (None if ours is None or theirs is None else 1 - ours / theirs, "share")
    return result


@torch.no_grad()
def loss_on(model: Reader, text: Tensor, low: float, high: float) -> float:
    """The mean cross-entropy on pieces of a part of the text, one running evaluation."""
    model.eval()
    draw = torch.Generator().manual_seed(1000)
    losses = []
    for _ in range(6):
        x, y = pieces(text, low, high, 32, draw)
        losses.append(nn.functional.cross_entropy(model(x), y.flatten()))
    model.train()
    return float(torch.stack(losses).mean())


@row(
    "systems/powernorm",
    goals=[Goal("below_batch", must=0.02), Goal("below_layer"), Goal("loss", arm="power", better="lower")],
    arms=tuple(ARMS),
    seeds=(0, 1, 2),
    derive=gaps,
)
def powernorm(*, arm: str, seed: int) -> Measured:
    """Held-out loss of a small character transformer at four pieces an update with power, batch and layer norm."""
    text, characters = prose()
    best = (math.inf, math.inf)
    worst = 0.0
    for lr in RATES:
        torch.manual_seed(seed)
        model, draw = Reader(ARMS[arm], characters), torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=STEPS, pct_start=0.1)
        for _ in range(STEPS):
            x, y = pieces(text, 0.0, 0.8, BATCH, draw)
            loss = nn.functional.cross_entropy(model(x), y.flatten())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        found = loss_on(model, text, 0.8, 0.9)
        worst = max(worst, found)
        best = min(best, (found, loss_on(model, text, 0.9, 1.0)))
    return {"loss": (best[1], "nat"), "worst_rate_loss": (worst, "nat")}
