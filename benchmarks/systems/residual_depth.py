"""On the depth of residual networks: branches scaled by the depth need no norm (arXiv:2510.03470; recipe ``residual-depth``).

Claim: a residual network is a sum over all its sub-networks that explodes with depth; a factor of 1/L or 1/sqrt(L) tames it without norms.
Exact (``tests/systems/test_residual_depth.py``): linear blocks are the sum over all 2^L subsets; the first-order error goes with the square
of the scale; the output at the start grows exponentially without the factor and is bounded with it.

Sixty-four feed-forward blocks of ordinary initialisation, without norms, on the handwritten digits. The factor is 1/sqrt(L), 1/L, or one,
each at its best of three learning rates, chosen on validation rows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from benchmarks import Goal, Measured, row
from benchmarks.systems.common import differences, shares
from unisono.core.tokens import Meta
from unisono.nn.ffn import MLP
from unisono.nn.grammar import build_trunk

DEPTH, WIDTH, STEPS, BATCH = 64, 64, 300, 128
POWERS = {"ours": 0.5, "linear": 1.0, "baseline": 0.0}


def rows(count: int) -> Meta:
    """One token a row."""
    number, zero = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    nowhere = torch.full((count, 3), -1)
    nan = torch.full((count, 3), torch.nan)
    return Meta(number, zero, zero, zero, zero, zero, nowhere, nan, nan[:, 0], count, 1)


def network(power: float) -> nn.ModuleList:
    """First map, trunk, last map."""
    steps = [{"repeat": DEPTH, "mixer": "none", "ffn": "mlp(1, act=relu)"}, {"read": "mean"}]
    trunk = build_trunk(steps, {"norm": "none", "residual": f"pre(per_depth={power})"}, width=WIDTH)
    for part in trunk.modules():
        if isinstance(part, MLP):
            nn.init.kaiming_normal_(part.down.weight, nonlinearity="linear")
            nn.init.kaiming_normal_(part.up.weight, nonlinearity="relu")
    return nn.ModuleList([nn.Linear(64, WIDTH), trunk, nn.Linear(WIDTH, 10)])


def run(power: float, lr: float, seed: int) -> tuple[float, float]:
    """Accuracy on validation and test rows after training; chance where the weights are no longer finite."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    test, val, train = order[:400], order[400:600], order[600:]
    torch.manual_seed(seed)
    first, trunk, last = parts = network(power)
    optimiser = torch.optim.AdamW(parts.parameters(), lr=lr)
    plan = trunk.plan(rows(BATCH))
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / STEPS))
        picked = train[torch.randint(len(train), (BATCH,))]
        loss = nn.functional.cross_entropy(last(trunk(first(x[picked]), plan)), y[picked])
        if not bool(torch.isfinite(loss)):
            return 0.1, 0.1
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def accuracy(part: torch.Tensor) -> float:
        with torch.no_grad():
            scores = last(trunk(first(x[part]), trunk.plan(rows(len(part)))))
        return float((scores.argmax(1) == y[part]).float().mean())

    return accuracy(val), accuracy(test)


@row(
    "systems/residual-depth",
    goals=[Goal("accuracy", arm="ours", must=0.95), Goal("accuracy", arm="linear", must=0.95), Goal("accuracy_gain", must=0.05)],
    arms=tuple(POWERS),
    seeds=(0, 1, 2),
    derive=differences("accuracy"),
)
def residual_depth(*, arm: str, seed: int) -> Measured:
    """Accuracy of 64 blocks without norms on digits, branches scaled by the depth or not."""
    tried = [run(POWERS[arm], lr, seed) for lr in (3e-4, 1e-3, 3e-3)]
    return shares({"accuracy": max(tried)[1], "validation": max(tried)[0]})
