"""A toy learner with dropout, a buffer, an embedding and rows without targets; run as a script it trains in a folder."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unisono.core.errors import UnisonoError
from unisono.train.loop import train
from unisono.train.protocols import Losses, Validation
from unisono.train.settings import TrainSettings

ROWS, WIDTH = 96, 6


class ToyNet(nn.Module):
    """Two layers, dropout, an embedding, an unused parameter and a counting buffer."""

    counter: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 16), nn.Linear(16, 1)
        self.kinds, self.norm, self.drop = nn.Embedding(3, 16), nn.LayerNorm(16), nn.Dropout(0.2)
        self.unused = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("counter", torch.zeros(()))

    def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        """(B, WIDTH), (B,) -> (B,)."""
        if self.training:
            self.counter += 1
        return self.second(self.drop(torch.tanh(self.norm(self.first(x) + self.kinds(kind))))).squeeze(-1)


class Toy:
    """A regression whose last third of rows has half of its targets missing."""

    def __init__(self, seed: int = 0, dropout: bool = True, delay: float = 0.0) -> None:
        draw = torch.Generator().manual_seed(7)
        self.x = torch.randn(ROWS + 32, WIDTH, generator=draw)
        self.kind = torch.randint(0, 3, (ROWS + 32,), generator=draw)
        self.y = self.x[:, 0] * self.x[:, 1] + self.kind + 0.3 * torch.randn(ROWS + 32, generator=draw)
        self.known = torch.ones(ROWS + 32)
        self.known[64:96:2] = 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = ToyNet()
        if not dropout:
            self.module.drop.p = 0.0
        self.delay, self.objectives = delay, iter(())
        self.validations = 0

    def loss(self, rows: torch.Tensor) -> Losses:
        if self.delay:
            time.sleep(self.delay)
        error = (self.module(self.x[rows], self.kind[rows]).float() - self.y[rows]).square() * self.known[rows]
        total, count = error.sum(), self.known[rows].sum()
        return Losses(total, count, {"error": (float(total.detach()), float(count))})

    def validate(self) -> Validation:
        assert not self.module.training
        self.validations += 1
        rows = torch.arange(ROWS, ROWS + 32)
        mse = float((self.module(self.x[rows], self.kind[rows]).float() - self.y[rows]).square().mean().detach())
        return Validation({"mse": mse}, next(self.objectives, mse), ("mse", mse))

    def move(self, batch: torch.Tensor, device: torch.device) -> torch.Tensor:
        return batch.to(device)

    def describe_rows(self, batch: torch.Tensor) -> list[str]:
        return [f"r{i}" for i in batch.tolist()]

    def split(self, batch: torch.Tensor, max_tokens: int) -> list[torch.Tensor]:
        return list(batch.split(max_tokens))


class ToyBatches:
    """Row numbers in an order of (seed, epoch)."""

    num_rows = ROWS

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def batches_per_epoch(self, batch_rows: int) -> int:
        return -(-ROWS // batch_rows)

    def epoch(self, epoch: int, *, skip: int, rank: int, world: int, batch_rows: int) -> Iterator[torch.Tensor]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        for batch in order.split(batch_rows)[skip:]:
            yield batch[rank::world]


def main() -> int:
    """Train as the arguments say; the final loss goes to stdout as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="{}")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-dropout", action="store_true")
    args: Any = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainSettings.read(json.loads(args.set))
    try:
        history = train(
            Toy(dropout=not args.no_dropout, delay=args.delay),
            ToyBatches(),
            settings,
            folder=args.folder,
            resume=args.resume,
            progress=False,
        )
    except UnisonoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(history.records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
