"""What the norms' rows share: handwritten digits as tokens and as pictures, token metadata, and a small trunk with a head on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.names import Names
from unisono.core.tokens import Meta, concatenate
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame

TESTED = 500


@dataclass
class Digits:
    """Pictures (N, 8, 8) of mean 0 and variance 1, their digits (N,), and which rows train and test."""

    x: Tensor
    y: Tensor
    train: Tensor
    test: Tensor


def digits(seed: int) -> Digits:
    """scikit-learn's digits, 500 of them held out by seed."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    values = torch.from_numpy(((x - x.mean()) / x.std()).astype(np.float32)).view(-1, 8, 8)
    return Digits(values, torch.from_numpy(y.astype(np.int64)), order[TESTED:], order[:TESTED])


def cell_meta(column: int, places: list[tuple[int, ...]], modalities: int = 1) -> Meta:
    """The tokens of one cell at these places, in one sample; its column is its modality too."""
    place = torch.full((len(places), 3), -1)
    for k, p in enumerate(places):
        place[k, : len(p)] = torch.tensor(p)
    same = [torch.full((len(places),), v) for v in (0, column, 0, column, column, 0)]
    return Meta(*same, place, torch.full((len(places), 3), torch.nan), torch.full((len(places),), torch.nan), 1, modalities)


def batch_meta(sample: Meta, rows: int) -> Meta:
    """The tokens of a sample once for each row."""
    parts = [replace(sample, sample=torch.full_like(sample.sample, b), num_samples=rows) for b in range(rows)]
    return concatenate(parts)


def grid(*sides: int) -> list[tuple[int, ...]]:
    """All places of a grid."""
    return [tuple(int(i) for i in index) for index in np.ndindex(*sides)]


def patches(x: Tensor) -> Tensor:
    """Pictures (B, 8, 8) as 16 patches of 2 x 2, (B, 16, 4)."""
    return x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)


class Classifier(nn.Module):
    """Tokens are mapped to the width, get a vector for their place, and go through a trunk to a linear head.

    Args:
        norm: the trunk's norm.
        features: of a token.
        sample: the tokens of one sample.
        outputs: of the head.
        defaults: of the trunk besides the norm.
        names: of modalities and columns.
    """

    def __init__(self, norm: str, features: int, sample: Meta, outputs: int, defaults: dict[str, Any], names: Names | None = None) -> None:
        super().__init__()
        width = 32
        self.sample, self.made = sample, dict[int, Any]()
        self.embed = nn.Linear(features, width)
        self.place = nn.Parameter(0.02 * torch.randn(len(sample), width))
        given = {"mixer": "attention(heads=4)", "ffn": "mlp(2)", "norm": norm, **defaults}
        steps = [{"repeat": 2}, {"read": "mean"}]
        self.trunk = build_trunk(steps, given, width=width, num_modalities=sample.num_modalities, frame=Frame(names or Names()))
        self.head = nn.Linear(width, outputs)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """(B, T, F) to (B, outputs)."""
        rows = len(x_BTF)
        if rows not in self.made:
            self.made[rows] = self.trunk.plan(batch_meta(self.sample, rows))
        x = self.embed(x_BTF) + self.place
        result: Tensor = self.head(self.trunk(x.flatten(0, 1), self.made[rows]))
        return result


def fit(model: nn.Module, x: Tensor, y: Tensor, *, steps: int, batch: int, lr: float, seed: int) -> None:
    """Adam on the cross-entropy, the rate falling to zero along a cosine."""
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=draw)
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of rows that are named rightly."""
    return float((model(x).argmax(1) == y).float().mean())


def with_rate(model: Any, x: Tensor, y: Tensor, *, rates: tuple[float, ...], steps: int, batch: int, seed: int) -> nn.Module:
    """Fit once for each learning rate on four fifths of the rows, and keep the model that does best on the others.

    Args:
        model: makes a fresh model.
        x: inputs.
        y: classes.
        rates: learning rates to try.
        steps: updates of each.
        batch: rows of an update.
        seed: of weights and batches.
    """
    cut = len(x) * 4 // 5
    found: list[tuple[float, nn.Module]] = []
    for lr in rates:
        torch.manual_seed(seed)
        made = model()
        fit(made, x[:cut], y[:cut], steps=steps, batch=batch, lr=lr, seed=seed)
        found.append((accuracy(made, x[cut:], y[cut:]), made))
    return max(found, key=lambda pair: pair[0])[1]
