"""Layer normalisation (arXiv:1607.06450; recipe ``layernorm``, and the default of every other).

Claim: training takes fewer steps, in recurrent networks above all, with nothing of the batch in it. Exact
(``tests/systems/test_layernorm.py``): a token's answer is independent of the batch, and the same in training and evaluation; scale of the
weights and a common shift are not seen; mean 0 and variance 1 before the gain; torch agrees to 1e-6.

A vanilla recurrent network of 48 units reads digits of 10 x 10 values one value at a time. Counted are the updates until the loss, smoothed
over 512 series, is below ``LOSS``; at most ``LIMIT``. With 32 series an update each arm has the best of three learning rates, with one the
same one. Losses and rates were chosen on seed 0, which is not recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.norming import digits
from unisono.nn.norm import norms
from unisono.nn.part import Frame

UNITS, CLASSES = 48, 10
#: Batch size -> the loss to reach, updates at most, and the learning rates.
LOSS = {32: 1.2, 1: 1.8}
LIMIT = {32: 600, 1: 4000}
RATES = {32: (1e-3, 3e-3, 1e-2), 1: (1e-3,)}


class Recurrent(nn.Module):
    """``h <- tanh(norm(W x + U h))`` over a series, and a linear head on the last state."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.into, self.over, self.head = nn.Linear(1, UNITS), nn.Linear(UNITS, UNITS, bias=False), nn.Linear(UNITS, CLASSES)
        self.norm = norms.build(word, width=UNITS, frame=Frame())
        nn.init.orthogonal_(self.over.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) to (B, CLASSES)."""
        h = x.new_zeros(len(x), UNITS)
        for into in self.into(x.unsqueeze(2)).unbind(1):
            h = torch.tanh(self.norm(into + self.over(h), None))
        result: Tensor = self.head(h)
        return result


def series(seed: int) -> tuple[Tensor, Tensor]:
    """The training digits as series (N, 100), and what they show (N,)."""
    data = digits(seed)
    return nn.functional.interpolate(data.x[data.train].unsqueeze(1), (10, 10), mode="bilinear").flatten(1), data.y[data.train]


def steps_to(word: str, batch: int, lr: float, seed: int) -> int:
    """Updates until the smoothed loss is low enough."""
    torch.manual_seed(seed)
    (x, y), model, draw = series(seed), Recurrent(word), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    smooth, weight, keep = 0.0, 0.0, 1 - batch / 512
    for step in range(1, LIMIT[batch] + 1):
        rows = torch.randint(len(x), (batch,), generator=draw)
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        smooth, weight = keep * smooth + (1 - keep) * float(loss.detach()), keep * weight + 1 - keep
        if step * batch >= 512 and smooth / weight < LOSS[batch]:
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
    seeds=(1, 2, 3),
    over={"batch": tuple(LIMIT)},
    derive=saved,
)
def layernorm(*, arm: str, seed: int, batch: int) -> Measured:
    """Steps of a vanilla recurrent network to a set loss on series of length 100, with layer norm and without."""
    word = "layer" if arm == "ours" else "none"
    return {"steps": (float(min(steps_to(word, batch, lr, seed) for lr in RATES[batch])), "steps")}
