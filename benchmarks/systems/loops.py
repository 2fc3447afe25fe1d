"""Small training loops around a recipe's trunk, for effects that no table states naturally: digits as tokens, one optimiser.

Letters: B samples, N tokens of a modality, F features of a token, D width, T tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.names import Names
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame
from unisono.nn.trunk import Result, Trunk
from unisono.recipe import load_recipe


def trunk_of(name: str, width: int, changes: Mapping[str, Any], *, modalities: int = 1, tasks: Sequence[str] = ()) -> Trunk:
    """The trunk of a recipe, with some of its keys changed."""
    recipe = load_recipe(name, changes)
    names = Names(("image", "text", "audio")[:modalities], tasks=tuple(tasks))
    return build_trunk(recipe["trunk"], recipe["defaults"], width=width, num_modalities=modalities, frame=Frame(names))


def tokens_of(samples: int, parts: Sequence[tuple[int, int]], modalities: int) -> Meta:
    """Samples that each have the same parts one behind the other: (modality, number of tokens)."""
    kinds = torch.cat([torch.full((n,), m) for m, n in parts])
    column = torch.cat([torch.full((n,), k) for k, (_, n) in enumerate(parts)])
    places = torch.cat([torch.arange(n) for _, n in parts])
    each = len(kinds)
    place = torch.full((samples * each, 3), -1)
    place[:, 0] = places.repeat(samples)
    kind, nowhere = kinds.repeat(samples), torch.full((samples * each,), torch.nan)
    zero = torch.zeros_like(kind)
    sample = torch.arange(samples).repeat_interleave(each)
    return Meta(sample, column.repeat(samples), zero, kind, kind, zero, place, nowhere[:, None].repeat(1, 3), nowhere, samples, modalities)


class Model(nn.Module):
    """A linear map and places for each modality, a trunk, and a linear head for each target.

    Args:
        trunk: mixes.
        inputs: (N, F) of each modality.
        outputs: classes of each target.
        width: D.
    """

    def __init__(self, trunk: Trunk, inputs: Sequence[tuple[int, int]], outputs: Sequence[int], width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.maps = nn.ModuleList(nn.Linear(f, width) for _, f in inputs)
        self.places = nn.ParameterList(0.1 * torch.randn(n, width) for n, _ in inputs)
        self.heads = nn.ModuleList(nn.Linear(width, k) for k in outputs)
        self._plans: dict[Any, Any] = {}

    def run(self, parts: Mapping[int, Tensor]) -> Result:
        """The trunk over (B, N, F) of some modalities."""
        embedded = [self.maps[m](x) + self.places[m][: x.shape[1]] for m, x in parts.items()]
        key = (len(embedded[0]), tuple((m, x.shape[1]) for m, x in parts.items()))
        if key not in self._plans:
            self._plans[key] = self.trunk.plan(tokens_of(key[0], key[1], len(self.maps)))
        return self.trunk.run(torch.cat(embedded, 1).flatten(0, 1), self._plans[key])

    def scores(self, parts: Mapping[int, Tensor]) -> tuple[list[Tensor], Tensor]:
        """(B, K) of each target, and what the trunk adds to the loss."""
        result = self.run(parts)
        own = result.pooled.chunk(len(self.heads)) if self.trunk.forks else [result.pooled] * len(self.heads)
        return [head(x) for head, x in zip(self.heads, own, strict=True)], sum(result.flow.extra, torch.zeros(()))


@dataclass(frozen=True)
class Split:
    """Inputs (B, N, F) and one column of classes a target, of three parts."""

    x: dict[str, Tensor]
    y: dict[str, Tensor]


def patches(pictures: np.ndarray[Any, Any]) -> Tensor:
    """(B, 8, 8) pictures as (B, 16, 4) patches of two by two."""
    x = torch.as_tensor(pictures / 8.0 - 1.0, dtype=torch.float32)
    return x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)


@functools.cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Handwritten digits (1797, 8, 8) from 0 to 16, and which they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images, found.target


def parts_of(count: int, seed: int, sizes: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Row numbers of training, validation and test, drawn anew for each seed."""
    order = np.random.default_rng(seed).permutation(count)
    return {"train": order[: sizes[0]], "val": order[sizes[0] : sum(sizes)], "test": order[sum(sizes) :]}


def digit_split(seed: int, train: int = 1000, val: int = 300) -> Split:
    """Digits as patches and classes."""
    pictures, classes = digits()
    rows = parts_of(len(pictures), seed, (train, val))
    x = patches(pictures)
    y = torch.as_tensor(classes)
    return Split({k: x[torch.as_tensor(r)] for k, r in rows.items()}, {k: y[torch.as_tensor(r)] for k, r in rows.items()})


def optimise(
    parameters: Sequence[nn.Parameter], loss: Callable[[int, torch.Generator], Tensor], *, steps: int, lr: float, seed: int,
    every: Callable[[int], None] | None = None,
) -> None:  # fmt: skip
    """AdamW with a tenth of warm-up and a cosine down to nothing; ``loss`` takes the step and a generator for its rows."""
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps, pct_start=0.1)
    rows = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimiser.zero_grad()
        loss(step, rows).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if every is not None:
            every(step + 1)


def classify(
    make: Callable[[], Model], data: Split, *, steps: int, rates: Sequence[float], seed: int, batch: int = 128
) -> tuple[Model, float]:  # fmt: skip
    """Train at each rate; the model that is best on validation, and its rate."""
    best: tuple[float, Model, float] | None = None
    for rate in rates:
        torch.manual_seed(seed)
        model = make().train()

        def loss(_: int, rows: torch.Generator, model: Model = model) -> Tensor:
            some = torch.randint(len(data.x["train"]), (batch,), generator=rows)
            scores, extra = model.scores({0: data.x["train"][some]})
            return nn.functional.cross_entropy(scores[0], data.y["train"][some]) + extra

        optimise(list(model.parameters()), loss, steps=steps, lr=rate, seed=seed)
        right = float((predicted(model, data.x["val"]) == data.y["val"]).float().mean())
        if best is None or right > best[0]:
            best = (right, model, rate)
    assert best is not None
    return best[1], best[2]


def predicted(model: Model, x: Tensor, modality: int = 0) -> Tensor:
    """The first target's class of each row, in evaluation."""
    model.eval()
    with torch.no_grad():
        return model.scores({modality: x})[0][0].argmax(1)


def accuracy(model: Model, data: Split, part: str = "test") -> float:
    """The share of rows whose class is right."""
    return float((predicted(model, data.x[part]) == data.y[part]).float().mean())


def weights(module: nn.Module) -> int:
    """How many weights there are, shared ones counted once."""
    return sum(p.numel() for p in module.parameters())


@functools.cache
def spoken() -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
    """Spoken digits as sixteen frames of twenty bands (3000, 16, 20), which they are, and which are the first four speakers'."""
    import io

    import soundfile

    from unisono.data import fsdd

    table = fsdd()
    window = torch.hann_window(256)
    found = []
    for wav in table["sound"].to_pylist():
        wave = torch.as_tensor(soundfile.read(io.BytesIO(wav), dtype="float32")[0])
        power = (
            torch.stft(nn.functional.pad(wave, (0, max(0, 512 - len(wave)))), 256, 128, window=window, return_complex=True).abs().square()
        )
        found.append(nn.functional.adaptive_avg_pool2d((power + 1e-6).log()[None], (20, 16))[0].T)
    x = torch.stack(found)
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    known = np.isin(table["speaker"].to_pylist(), ["george", "jackson", "lucas", "nicolas"])
    return x, torch.tensor(table["digit"].to_pylist()), known


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = " abcdefghijklmnopqrstuvwxyz"


def spelled(classes: Tensor, seed: int, wrong: float = 0.35) -> Tensor:
    """The digits' names (B, 5, 27), one letter a token, some letters replaced at random."""
    rng = np.random.default_rng(seed)
    letters = np.array([[LETTERS.index(c) for c in f"{WORDS[k]:5}"] for k in classes.tolist()])
    letters = np.where(rng.random(letters.shape) < wrong, rng.integers(1, 27, letters.shape), letters)
    return nn.functional.one_hot(torch.as_tensor(letters), 27).float()


def three_ways(seed: int) -> list[Split]:
    """Digits written (as patches), named (as letters) and spoken (as bands), each with its classes; no row has two of them."""
    written = digit_split(seed)
    rng = np.random.default_rng(seed)
    named = {k: torch.as_tensor(rng.integers(0, 10, n)) for k, n in (("train", 1000), ("val", 300), ("test", 1000))}
    letters = {k: spelled(y, 10 * seed + i) for i, (k, y) in enumerate(named.items())}
    x, y, _ = spoken()
    rows = {k: torch.as_tensor(r) for k, r in parts_of(len(x), seed, (1500, 500)).items()}
    return [written, Split(letters, named), Split({k: x[r] for k, r in rows.items()}, {k: y[r] for k, r in rows.items()})]


#: Tokens and features of written, named and spoken digits.
INPUTS = ((16, 4), (5, 27), (16, 20))
