"""Mixture of transformers (arXiv:2411.04996; recipe ``mixture-of-transformers``).

Claim: weights of each modality's own, with attention over all, learn faster than a dense transformer that costs the same for each token.
Exact (``tests/systems/test_mixture_of_transformers.py``): identical copies are the dense transformer; an absent modality's copies get no
gradient; counted operations are equal. Nothing waits.

A caption of six words about a handwritten digit, then sixteen image tokens (two-by-two patches, quantised to 32 codes); every token is
predicted from those ahead of it. Words are drawn among synonyms, so that no caption is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.loops import digits, optimise, parts_of, patches, tokens_of, trunk_of

WIDTH, CODES, WORDS, LENGTH, STEPS, EVERY, RATES = 48, 32, 40, 6, 240, 12, (4e-3, 8e-3)
POINTS = STEPS // EVERY


def captions(classes: np.ndarray[Any, Any], pictures: np.ndarray[Any, Any], seed: int) -> Tensor:
    """(B, 6) words: an article, how dark, how high, the digit, and two that hang on the digit; each of several spellings."""
    rng = np.random.default_rng(seed)
    dark = (pictures.mean((1, 2)) > np.median(pictures.mean((1, 2)))).astype(int)
    top = (pictures[:, :4].mean((1, 2)) > pictures[:, 4:].mean((1, 2))).astype(int)
    spelling = rng.integers(0, 2, (len(classes), 4))
    words = [spelling[:, 0], 2 + 2 * dark + spelling[:, 1], 6 + 2 * top + spelling[:, 2], 10 + 2 * classes + spelling[:, 3]]
    words += [30 + classes % 2 + 2 * (rng.random(len(classes)) < 0.2), 34 + classes // 4]
    return torch.as_tensor(np.stack(words, 1))


def sequences(seed: int) -> dict[str, Tensor]:
    """(B, 22) tokens of training, validation: words, then codes."""
    from sklearn.cluster import KMeans

    pictures, classes = digits()
    found = patches(pictures).numpy()
    rows = parts_of(len(pictures), seed, (1200, 597))
    quantiser = KMeans(CODES, n_init=1, random_state=seed).fit(found[rows["train"]].reshape(-1, 4))
    codes = torch.as_tensor(quantiser.predict(found.reshape(-1, 4)).reshape(-1, 16).astype(np.int64))
    whole = torch.cat([captions(classes, pictures, seed), codes], 1)
    return {k: whole[torch.as_tensor(r)] for k, r in rows.items() if k != "test"}


class Writer(nn.Module):
    """Predicts the next token from those so far; the embeddings and the last maps are each modality's own in both arms."""

    def __init__(self, recipe: str) -> None:
        super().__init__()
        changes = {"trunk": [{"repeat": 2, "scope": "sample & causal(sequence)"}, {"read": "mean"}]}
        changes["defaults"] = {"mixer": "attention(heads=4)", "ffn": "mlp(2)"}  # type: ignore[assignment]
        self.trunk = trunk_of(recipe, WIDTH, changes, modalities=2)
        self.words, self.codes = nn.Embedding(WORDS, WIDTH), nn.Embedding(CODES, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(LENGTH + 16, WIDTH))
        self.norm = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.last = nn.ModuleList(nn.Linear(WIDTH, k) for k in (WORDS, CODES))
        self._plans: dict[int, Any] = {}

    def losses(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropies of words and of codes."""
        b = len(sequence)
        if b not in self._plans:
            self._plans[b] = self.trunk.plan(tokens_of(b, [(1, LENGTH), (0, 16)], 2))
        x = torch.cat([self.words(sequence[:, :LENGTH]), self.codes(sequence[:, LENGTH:])], 1) + self.places
        y = self.trunk.run(x.flatten(0, 1), self._plans[b]).tokens.view(b, LENGTH + 16, WIDTH)
        words = self.last[0](self.norm[0](y[:, : LENGTH - 1]))
        codes = self.last[1](self.norm[1](y[:, LENGTH - 1 : -1]))
        entropy = nn.functional.cross_entropy
        return entropy(words.transpose(1, 2), sequence[:, 1:LENGTH]), entropy(codes.transpose(1, 2), sequence[:, LENGTH:])


def curves(recipe: str, rate: float, seed: int, data: dict[str, Tensor]) -> list[tuple[float, float]]:
    """Validation losses of words and of codes, every ``EVERY`` steps."""
    torch.manual_seed(seed)
    model = Writer(recipe)
    found: list[tuple[float, float]] = []

    def loss(_: int, rows: torch.Generator) -> Tensor:
        words, codes = model.losses(data["train"][torch.randint(len(data["train"]), (64,), generator=rows)])
        return (5 * words + 16 * codes) / 21

    def look(step: int) -> None:
        if step % EVERY == 0:
            model.eval()
            with torch.no_grad():
                words, codes = model.losses(data["val"])
            found.append((float(words), float(codes)))
            model.train()

    optimise(list(model.parameters()), loss, steps=STEPS, lr=rate, seed=seed, every=look)
    return found


def reached(curve: Sequence[float], level: float) -> float:
    """The share of all steps after which a falling curve is first at a level, between two looks by a straight line; 2 if never."""
    for k, value in enumerate(curve):
        if value <= level:
            if k == 0:
                return 1 / len(curve)
            return (k + (curve[k - 1] - level) / (curve[k - 1] - value)) / len(curve)
    return 2.0


def compare(found: Values) -> dict[str, tuple[float | None, str]]:
    """When the mean curve of image losses is at the dense one's last value, and how the last text losses differ."""
    mean = {(a, m): [found.mean(f"{m}_{k}", a) for k in range(POINTS)] for a in ("ours", "baseline") for m in ("image", "text")}
    if any(v is None for curve in mean.values() for v in curve):
        return {"steps_ratio": (None, "ratio"), "text_gain": (None, "nats")}
    full: dict[Any, list[float]] = {k: [float(v) for v in c if v is not None] for k, c in mean.items()}
    return {
        "steps_ratio": (reached(full["ours", "image"], full["baseline", "image"][-1]), "ratio"),
        "text_gain": (full["baseline", "text"][-1] - full["ours", "text"][-1], "nats"),
    }


@row(
    "systems/mixture-of-transformers",
    goals=[Goal("steps_ratio", must=0.85, better="lower"), Goal("text_gain", must=0.0)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=compare,
)
def mixture_of_transformers(*, arm: str, seed: int) -> Measured:
    """Losses on captions and image tokens over the steps of training, weights by modality against dense ones of equal cost."""
    data = sequences(seed)
    runs = {rate: curves("mixture-of-transformers" if arm == "ours" else "base", rate, seed, data) for rate in RATES}
    rate = min(runs, key=lambda r: 5 * runs[r][-1][0] + 16 * runs[r][-1][1])
    found = {"rate": (rate, "per step")}
    for k, (words, codes) in enumerate(runs[rate]):
        found[f"text_{k}"], found[f"image_{k}"] = (words, "nats"), (codes, "nats")
    return found
