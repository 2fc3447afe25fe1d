"""Self-normalising networks (arXiv:1706.02515; recipe ``selu-snn``).

Claim: with selu and weights of variance 1 / fan-in, mean 0 and variance 1 attract the activations, so that deep plain networks train
without norms or residuals. Exact (``tests/systems/test_selu_snn.py``): a standard normal input stays one; means within 0.1 and variances
from 0.8 to 1.5 converge to it; alpha dropout keeps both within a hundredth; at depth 32 the variance stays between 0.5 and 2 where that of
ReLU and tanh with the same weights falls more than tenfold.

A plain network of 32 layers on the 64 numbers of a digit. The baselines are ReLU with the weights that suit it (variance 2 / fan-in),
without anything and with batch norm; each arm has the best of three learning rates on a fifth of its training rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, row
from benchmarks.systems.common import differences
from benchmarks.systems.norming import accuracy, digits, with_rate
from unisono.nn.ffn_selu import SelfNormalisingMLP

LAYERS = 32
#: Learning rates: the best of each on another split, and those half a decade around it.
RATES = {"ours": (3e-4, 1e-3, 3e-3), "baseline": (3e-4, 1e-3, 3e-3), "batch": (3e-3, 1e-2, 3e-2)}


class Block(nn.Module):
    """Two maps with ReLU, with batch norm or without."""

    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(64) if normed else nn.Identity() for _ in range(2))
        for part in self.maps:
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 64) to (B, 64)."""
        for part, norm in zip(self.maps, self.norms, strict=True):
            x = torch.relu(norm(part(x)))
        return x


def network(arm: str) -> nn.Module:
    """A plain network of 32 layers and a head."""
    kinds = {"ours": lambda: SelfNormalisingMLP(width=64), "baseline": lambda: Block(False), "batch": lambda: Block(True)}
    return nn.Sequential(nn.Flatten(), *(kinds[arm]() for _ in range(LAYERS // 2)), nn.Linear(64, 10))


@row(
    "systems/selu-snn",
    goals=[Goal("accuracy", arm="ours", must=0.9, aim=0.95), Goal("accuracy", arm="batch"), Goal("accuracy_gain", must=0.0)],
    arms=("ours", "baseline", "batch"),
    seeds=(0, 1, 2),
    derive=differences("accuracy"),
)
def selu_snn(*, arm: str, seed: int) -> Measured:
    """Accuracy of a plain network of 32 layers on digits, with selu, with ReLU, and with ReLU and batch norm."""
    data = digits(seed)
    made = with_rate(lambda: network(arm), data.x[data.train], data.y[data.train], rates=RATES[arm], steps=500, batch=64, seed=seed)
    return {"accuracy": (accuracy(made, data.x[data.test], data.y[data.test]), "share")}
