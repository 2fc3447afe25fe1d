"""Rows a second of a training epoch on audio-visual digits: the packed system against the same stem and trunk over padded batches.

The padded arm is plain PyTorch: pictures as (B, 1, 28, 28), spectra as (B, 1, frames of the longest, bands) with a mask applied after
every convolution, one (B, tokens, D) tensor with a key mask through the same transformer, attention as batched products (in bfloat16 the
fused kernel's backward is slower on a CPU). Both arms have the same rows in the same order, augmentation, source dropout, dropout rate,
optimiser, clipping, precision and a thread that makes batches in advance. Epochs alternate; the median of the ratios counts.

Letters: B rows, F frames, M bands, L tokens of a row, D width, H heads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

import unisono
from benchmarks import Goal, Measured, row
from unisono.core.draw import Draw
from unisono.data import sounds
from unisono.modalities import pixels
from unisono.modalities.base import Items
from unisono.model import fit as fitting
from unisono.model import learner as learning
from unisono.train.calibrate import make_stepper
from unisono.train.devices import autocast, choose_precision
from unisono.train.distribute import join


class Block(nn.Module):
    """A pre-norm transformer layer over padded tokens."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(B, L, D); ``hidden`` (B, 1, 1, L) marks what is no token."""
        b, length, width = x.shape
        q, k, v = self.project(self.norm1(x)).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
        weights = torch.softmax(scores.masked_fill(hidden, -1e9), -1, dtype=torch.float32).to(v.dtype)
        x = x + self.dropout(self.out((weights @ v).transpose(1, 2).reshape(b, length, width)))
        return x + self.down(self.dropout(fn.gelu(self.up(self.norm2(x)))))


class Padded(nn.Module):
    """The same network, written by hand: its stems are copies of the system's own layers, its trunk is ``Block``."""

    def __init__(self, picture: nn.Module, sound: nn.Module, *, width: int, layers: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.picture, self.sound = picture, sound
        self.column = nn.Parameter(torch.randn(2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, inner, dropout) for _ in range(layers))
        self.norm, self.nothing, self.head = nn.LayerNorm(width), nn.Parameter(torch.zeros(width)), nn.Linear(width, 10)
        high = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1).reshape(-1, 2)
        self.register_buffer("places", high)

    def _pictures(self, batch: dict[str, Tensor]) -> Tensor:
        p: Any = self.picture
        x = ((batch["pixels"].float() - p.mean) * p.scale).movedim(-1, 1)
        x = pixels.augment(x, batch["affine"], batch["tone"], batch["erase"])
        grid = p.stem(x).flatten(2).transpose(1, 2)
        found: Tensor = p.norm(grid) + p.position(self.places)
        return found

    def _sounds(self, batch: dict[str, Tensor]) -> Tensor:
        s: Any = self.sound
        x, keep = batch["spectra"][:, None].contiguous(memory_format=torch.channels_last), batch["frames"][:, None, :, None]
        for conv, norm in zip(s.stem.convs, s.stem.norms, strict=True):
            x = fn.gelu(norm(conv(x)))
            keep = keep[:, :, ::2] if x.shape[2] < keep.shape[2] else keep
            x = x * keep.to(x.dtype)
        values = s.stem.out(x.permute(0, 2, 1, 3).flatten(2))
        angle = batch["phase"][..., None] * (torch.arange(1, 9) * (torch.pi / 2))
        found: Tensor = s.norm(values) + s.place(torch.cat([angle.sin(), angle.cos()], -1))
        return found

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (B, 10)."""
        seen, heard = batch["seen"], batch["heard"]
        x = torch.cat([self._pictures(batch) + self.column[0], self._sounds(batch) + self.column[1]], 1)
        there = torch.cat([seen[:, None].expand(-1, 16), heard], 1)
        for block in self.blocks:
            x = block(x, ~there[:, None, None])
        x = self.norm(x).float()
        weight = there.float()
        parts = [(x[:, s] * weight[:, s, None]).sum(1) / weight[:, s].sum(1).clamp(min=1)[:, None] for s in (slice(16), slice(16, None))]
        present = torch.stack([seen, heard.any(1)], 1).float()
        found: Tensor = self.head((parts[0] * present[:, :1] + parts[1] * present[:, 1:]) / present.sum(1, keepdim=True).clamp(min=1))
        return found


class PaddedBatches:
    """The rows of the packed arm as padded batches."""

    def __init__(self, rows: learning.TrainingRows, drop: bool) -> None:
        self.rows, self.drop = rows, drop
        self.picture, self.sound = (next(g for g in rows.assembler.groups if g.columns[0].name == n) for n in ("image", "sound"))

    def batch(self, rows: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """One batch."""
        cells, draw, n = self.rows.store.cells(rows), Draw(self.rows.seed, epoch, rows), len(rows)
        keep = np.ones((n, 2), np.bool_)
        if self.drop and self.rows.assembler.dropout is not None:
            keep = self.rows.assembler.dropout.keep(keep, draw)
        sources = self.rows.assembler.sources
        picture, every = self.picture.columns[0], np.arange(n)
        made = {"pixels": pixels.stack(cells["image"], picture.statistics), "seen": torch.from_numpy(keep[:, sources.index("image")])}
        made |= pixels.augmentation(draw, every, self.picture.tokeniser.augment, self.picture.tokeniser.flips)
        made |= self._spectra(Items.of(self.sound.columns[0], cells["sound"]).arrays, draw)
        made["heard"] &= torch.from_numpy(keep[:, sources.index("sound")])[:, None]
        values, _ = self.rows.targets["digit"]
        return made | {"digit": torch.from_numpy(values[rows])}

    def _spectra(self, signals: list[Any], draw: Draw) -> dict[str, Tensor]:
        tokeniser, column = self.sound.tokeniser, self.sound.columns[0]
        found = tokeniser.spectra(signals, column, draw.uniform("audio.sound", 16))
        values, counts = found.values, found.counts
        longest = -(-int(counts.max()) // 4) * 4
        spectra, frames = np.zeros((len(counts), longest, tokeniser.bands), np.float32), np.arange(longest) < counts[:, None]
        spectra[frames] = values
        tokens = -(-counts // 4)
        heard = np.arange(longest // 4) < tokens[:, None]
        phase = (np.arange(longest // 4) / tokens[:, None]).astype(np.float32)
        arrays = {"spectra": spectra, "frames": frames, "heard": heard, "phase": phase}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def epoch(self, epoch: int, batch_rows: int) -> Iterator[dict[str, Tensor]]:
        """The epoch's batches, in the packed arm's order."""
        order = np.random.Generator(np.random.Philox([self.rows.seed, epoch])).permutation(self.rows.rows)
        parts = np.array_split(order, self.rows.batches_per_epoch(batch_rows))
        return learning.prefetch(self.batch(rows, epoch) for rows in parts)


def compare(learner: Any, rows: learning.TrainingRows, settings: Any, *, rounds: int, batch_rows: int, drop: bool) -> dict[str, Any]:
    """Alternate epochs of both arms; rows a second of each, and the median of their ratios."""
    device, network = torch.device("cpu"), learner.network
    if not drop:
        rows.assembler.dropout = None
    lr = settings.highest_lr(rows.num_rows)
    precision = choose_precision(settings.precision, device)
    stepper = make_stepper(learner, settings, join(device), device, precision, 0)
    modules = dict(zip((g.name for g in network.groups), network.tokenisers, strict=True))
    stems = [g.tokeniser.module(g.columns, network.width) for g in network.groups]
    by_column = {g.columns[0].name: stem for g, stem in zip(network.groups, stems, strict=True)}
    for group, stem in zip(network.groups, stems, strict=True):
        stem.load_state_dict(modules[group.name].state_dict())
    padded = Padded(by_column["image"], by_column["sound"], width=network.width, layers=2, heads=4, inner=2 * network.width, dropout=0.1)
    decayed = [p for p in padded.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [p for p in padded.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=settings.betas, fused=True)
    parameters, batches = list(padded.parameters()), PaddedBatches(rows, drop)

    def packed_epoch(epoch: int) -> None:
        network.train()
        for step, batch in enumerate(rows.epoch(epoch, skip=0, rank=0, world=1, batch_rows=batch_rows)):
            stepper(batch, step, lr)

    def padded_epoch(epoch: int) -> None:
        padded.train()
        for batch in batches.epoch(epoch, batch_rows):
            with autocast(precision, device):
                scores = padded(batch)
            loss = fn.cross_entropy(scores.float(), batch["digit"])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
            loss.item()
            optimiser.step()

    rates: dict[str, list[float]] = {"packed": [], "padded": []}
    for epoch in range(rounds + 1):
        arms = (("packed", packed_epoch), ("padded", padded_epoch))
        for name, run in arms if epoch % 2 else arms[::-1]:
            begin = time.perf_counter()
            run(epoch)
            rates[name].append(rows.num_rows / (time.perf_counter() - begin))
    ours, theirs = (np.array(rates[name][1:]) for name in ("packed", "padded"))
    weights = {"packed": sum(p.numel() for p in network.parameters()), "padded": sum(p.numel() for p in parameters)}
    return {
        "precision": precision, "drop": drop, "packed": round(float(np.median(ours)), 1), "padded": round(float(np.median(theirs)), 1),
        "ratio": round(float(np.median(ours / theirs)), 3), "ratios": (ours / theirs).round(3).tolist(), "parameters": weights,
    }  # fmt: skip


def measure(*, rounds: int = 5, batch_rows: int = 64, drop: bool = True, seed: int = 0) -> dict[str, Any]:
    """Prepare the table as ``fit`` does, and compare the arms in place of training."""
    found: dict[str, Any] = {}

    class Done(Exception):  # noqa: N818 - no error: it leaves the fit
        """The comparison is over."""

    def instead(learner: Any, rows: learning.TrainingRows, train: Any, **_: Any) -> None:
        found.update(compare(learner, rows, train, rounds=rounds, batch_rows=batch_rows, drop=drop))
        raise Done

    table = sounds.av_digits("theo").select(["image", "sound", "digit", "split"])
    with mock.patch.object(fitting, "train", instead), suppress(Done):
        unisono.fit(table, "digit=category", split="split", seed=seed)
    return found


@row(
    "av_epoch",
    goals=[Goal("ratio", arm="dropout", must=0.95, aim=1.5), Goal("ratio", arm="full"), Goal("packed")],
    arms=("dropout", "full"),
)
def av_epoch(*, arm: str, seed: int) -> Measured:
    """Rows a second of a training epoch on audio-visual digits over the padded batches' rate, with and without source dropout."""
    found = measure(drop=arm == "dropout", seed=seed)
    rates = {name: (found[name], "rows/s") for name in ("packed", "padded")}
    extremes = {"ratio_low": (min(found["ratios"]), "ratio"), "ratio_high": (max(found["ratios"]), "ratio")}
    return {"ratio": (found["ratio"], "ratio"), **extremes, **rates, "parameters": (found["parameters"]["packed"], "weights")}
