"""A small training loop for trunks over grids of tokens, for the rows of systems that read pictures.

Letters: N pictures, h and w grid height and width, C channels of a token, D width, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.plan import Plan
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.position import Position

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]
Draw = Callable[[np.random.Generator, int], Batch]


def grid_meta(sizes: Sequence[tuple[int, int]]) -> Meta:
    """The tokens of one picture a sample, each of its own (h, w)."""
    counts = [h * w for h, w in sizes]
    t = sum(counts)
    place = torch.full((t, 3), -1)
    corners = [np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1).reshape(-1, 2) for h, w in sizes]
    place[:, :2] = torch.from_numpy(np.concatenate(corners))
    sample, zero = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(counts)), torch.zeros(t, dtype=torch.int64)
    return Meta(sample, zero, zero, zero, zero, zero, place, torch.full((t, 3), torch.nan), torch.full((t,), torch.nan), len(sizes), 1)


class GridModel(nn.Module):
    """``head(read(trunk(embed(x) + position)))``, or the head on every token.

    Args:
        steps: of the trunk.
        defaults: of its layers.
        channels: C.
        outputs: of the head.
        width: D.
        position: whether Fourier features of the places are added.
        dense: whether the head answers for every token.
        embed: (N, h, w, C) -> (N, h', w', D); a linear map where it is None.
    """

    def __init__(
        self, *, steps: Any, defaults: Any, channels: int, outputs: int, width: int = 32, position: bool = True, dense: bool = False,
        embed: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Linear(channels, width) if embed is None else embed
        self.position = Position(2, width, gain=0.3) if position else None
        self.trunk = build_trunk(steps, defaults, width=width, num_modalities=1)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        self.dense = dense
        self._plans: dict[tuple[int, ...], Plan] = {}

    def plan(self, shape: tuple[int, ...]) -> Plan:
        """The plan of N grids of one size, made once."""
        if shape not in self._plans:
            self._plans[shape] = self.trunk.plan(grid_meta([(shape[1], shape[2])] * shape[0]))
        return self._plans[shape]

    def pooled(self, x: Tensor) -> Tensor:
        """(N, D), or (T, D) where the head answers for every token."""
        tokens = self.embed(x)
        plan = self.plan(tuple(tokens.shape[:3]))
        values = tokens.flatten(0, 2)
        if self.position is not None:
            values = values + self.position(plan.meta.place[:, :2])
        result = self.trunk.run(values, plan)
        return result.tokens if self.dense else result.pooled

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K), or (T, K)."""
        scores: Tensor = self.head(self.norm(self.pooled(x)))
        return scores


def parameters(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(p.numel() for p in model.parameters())


def train(model: nn.Module, draw: Draw, *, seed: int, steps: int, batch: int = 64, lr: float = 3e-3, loss: Any = None) -> None:
    """Fresh batches from a source that never repeats itself; AdamW with warm-up and cosine decay."""
    rng = np.random.default_rng(1000 + seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    warm = max(steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min((k + 1) / warm, 0.5 * (1 + np.cos(np.pi * max(k - warm, 0) / max(steps - warm, 1))))
    )
    model.train()
    for _ in range(steps):
        x, y = draw(rng, batch)
        wanted = torch.from_numpy(y).flatten()
        value = nn.functional.cross_entropy(model(torch.from_numpy(x)), wanted) if loss is None else loss(model, x, wanted)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def answers(model: nn.Module, x: NDArray[np.float32], batch: int = 250) -> NDArray[np.int64]:
    """The most likely class of each picture or token."""
    with torch.no_grad():
        found = [model(torch.from_numpy(part)).argmax(1) for part in np.array_split(x, max(len(x) // batch, 1))]
    return torch.cat(found).numpy()


def accuracy(model: nn.Module, draw: Draw, *, seed: int, pictures: int = 1000) -> float:
    """The share of right answers on pictures that training never saw; classes below 0 are not asked for."""
    x, y = draw(np.random.default_rng(9_000_000 + seed), pictures)
    wanted = y.reshape(-1)
    return float((answers(model, x) == wanted)[wanted >= 0].mean())


def told_symbols(rng: np.random.Generator, ends: Sequence[tuple[NDArray[Any], NDArray[Any]]], side: int, symbols: int) -> Batch:
    """Maps of random symbols with two marks, (N, side, side, symbols + 1); each marked token has to name the other's symbol.

    The classes of all other tokens are -100, which the loss passes over.
    """
    count = len(ends[0][0])
    number, symbol = np.arange(count), rng.integers(0, symbols, (count, side, side))
    marks, wanted = np.zeros((count, side, side, 1), np.float32), np.full((count, side, side), -100)
    for here, there in (ends, ends[::-1]):
        marks[number, here[0], here[1]] = 1.0
        wanted[number, here[0], here[1]] = symbol[number, there[0], there[1]]
    return np.concatenate([np.eye(symbols, dtype=np.float32)[symbol], marks], -1), wanted


def shape_masks(
    kind: NDArray[np.int64], centre: NDArray[np.float64], radius: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Discs, squares, diamonds and crosses, (N, H, W); centre (N, 2) and radius (N,) or (N, 2) in the unit of the sides (0 to 1)."""
    rows, columns = ((np.arange(n) + 0.5) / n for n in size)
    span = np.broadcast_to(radius.reshape(len(radius), -1), (len(radius), 2))
    y = (rows[None, :, None] - centre[:, 0, None, None]) / span[:, 0, None, None]
    x = (columns[None, None, :] - centre[:, 1, None, None]) / span[:, 1, None, None]
    a, b = np.abs(y), np.abs(x)
    inside = [y**2 + x**2 < 1, np.maximum(a, b) < 0.89, a + b < 1.25, (np.maximum(a, b) < 1) & (np.minimum(a, b) < 0.4)]
    return np.select([(kind == k)[:, None, None] & m for k, m in enumerate(inside)], [True] * 4, False)
