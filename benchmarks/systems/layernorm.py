"""Layer normalisation (arXiv:1607.06450; recipe ``layernorm``, and the default of every other).

Claim: training takes fewer steps, in recurrent networks above all, with nothing of the batch in it. Exact
(``tests/systems/test_layernorm.py``): a token's answer is independent of the batch, and the same in training and evaluation; scale of the
weights and a common shift are not seen; mean 0 and variance 1 before the gain; torch agrees to 1e-6.

A vanilla recurrent network of 48 units reads noisy waves of length 100 and names which of six frequencies they have. Counted are the steps
until the loss, smoothed over 512 series, is below 1.2; at most ``LIMIT``. Each arm has the best of three learning rates, of one where an
update is of one series.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from unisono.nn.norm import norms
from unisono.nn.part import Frame

LENGTH, UNITS, CLASSES, LOSS = 100, 48, 6, 1.2
#: Batch size -> updates at most, and the learning rates.
LIMIT = {32: 250, 1: 1000}
RATES = {32: (1e-3, 3e-3, 1e-2), 1: (1e-3,)}


class Recurrent(nn.Module):
    """``h <- tanh(norm(W x + U h))`` over a series, and a linear head on the last state."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.into, self.over, self.head = nn.Linear(1, UNITS), nn.Linear(UNITS, UNITS, bias=False), nn.Linear(UNITS, CLASSES)
        self.norm = norms.build(word, width=UNITS, frame=Frame())
        nn.init.orthogonal_(self.over.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, LENGTH) to (B, CLASSES)."""
        h = x.new_zeros(len(x), UNITS)
        for into in self.into(x.unsqueeze(2)).unbind(1):
            h = torch.tanh(self.norm(into + self.over(h), None))
        result: Tensor = self.head(h)
        return result


def waves(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy waves (B, LENGTH) of a random phase, and the number of their frequency (B,)."""
    which = torch.randint(CLASSES, (count,), generator=draw)
    phase = 2 * math.pi * torch.rand(count, 1, generator=draw)
    angle = 2 * math.pi * (0.03 + 0.03 * which.unsqueeze(1)) * torch.arange(LENGTH)
    return torch.sin(angle + phase) + 0.3 * torch.randn(count, LENGTH, generator=draw), which


def steps_to(word: str, batch: int, lr: float, seed: int) -> int:
    """Updates until the smoothed loss is low enough."""
    torch.manual_seed(seed)
    model, draw = Recurrent(word), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    smooth, weight = 0.0, 0.0
    for step in range(1, LIMIT[batch] + 1):
        x, y = waves(batch, draw)
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        keep = 1 - min(1.0, batch / 512)
        smooth, weight = keep * smooth + (1 - keep) * float(loss.detach()), keep * weight + 1 - keep
        if step * batch >= 512 and smooth / weight < LOSS:
            return step
    return LIMIT[batch]


def saved(found: Values) -> dict[str, tuple[float | None, str]]:
    """The share of steps that the norm saves."""
    result: dict[str, tuple[float | None, str]] = {}
    for batch in LIMIT:
        ours, plain = found.mean("steps", "ours", batch=batch), found.mean("steps", "baseline", batch=batch)
        result[f"saved_at_{batch}"] = (None if ours is None or plain is None else 1 - ours / plain, "share")
    return result


@row(
    "systems/layernorm",
    goals=[Goal("saved_at_32", must=0.2), Goal("saved_at_1", must=0.2)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    over={"batch": tuple(LIMIT)},
    derive=saved,
)
def layernorm(*, arm: str, seed: int, batch: int) -> Measured:
    """Steps of a vanilla recurrent network to a set loss on series of length 100, with layer norm and without."""
    word = "layer" if arm == "ours" else "none"
    return {"steps": (float(min(steps_to(word, batch, lr, seed) for lr in RATES[batch])), "steps")}
