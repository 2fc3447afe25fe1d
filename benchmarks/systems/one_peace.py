"""ONE-PEACE (arXiv:2305.11172; recipe ``one-peace``).

Claim: with attention shared and a feed-forward for each modality, another modality is added by an adapter and a feed-forward, the rest
frozen; denoising contrast beside the contrast of modalities betters what each modality is read as. Exact
(``tests/systems/test_one_peace.py``): another modality changes no bit of the earlier ones; rows of one modality give the others'
feed-forwards no gradient; a layer is the paper's. Waiting: both contrasts as a recipe's objective, and adding a column to a fitted model;
here they are loops around the trunk.

Written digits and their names with wrong letters, 200 pairs, are aligned by contrast; in ours, denoising contrast adds half-hidden
pictures of all 1000: a hidden patch has to match what the whole picture says of it among those of other patches. Then spoken digits learn
to match names, all but their own adapter and feed-forwards frozen. Retrieval is right if the first picture that a sound finds is of its
digit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.loops import INPUTS, Model, Split, optimise, spelled, three_ways, trunk_of

WIDTH, STEPS, LATER, RATES, PAIRS, CHANCE, WEIGHT = 32, 200, 250, (4e-3, 8e-3), 200, 0.1, 0.5


class Aligned(Model):
    """Pooled tokens as unit vectors, and a vector in place of hidden tokens."""

    def __init__(self) -> None:
        super().__init__(trunk_of("one-peace", WIDTH, {}, modalities=3), INPUTS, [WIDTH] * 3, WIDTH)
        self.mask = nn.Parameter(torch.zeros(4))

    def vector(self, parts: Mapping[int, Tensor]) -> Tensor:
        """(B, D) of one modality."""
        scores, _ = self.scores(parts)
        return nn.functional.normalize(scores[next(iter(parts))], dim=1)


def contrast(a: Tensor, b: Tensor, heat: float = 0.1) -> Tensor:
    """The mean of both directions' cross-entropy of the pairs."""
    logits, same = a @ b.T / heat, torch.arange(len(a))
    return (nn.functional.cross_entropy(logits, same) + nn.functional.cross_entropy(logits.T, same)) / 2


def denoising(model: Aligned, x: Tensor, rows: torch.Generator) -> Tensor:
    """Hidden patches against what the whole picture says of the same and of other patches."""
    hidden = torch.rand(x.shape[:2], generator=rows) < 0.5
    with torch.no_grad():
        whole = model.run({0: x}).tokens[hidden.flatten()]
    seen = model.run({0: torch.where(hidden[:, :, None], model.mask, x)}).tokens[hidden.flatten()]
    logits = nn.functional.normalize(seen, dim=1) @ nn.functional.normalize(whole, dim=1).T / 0.1
    return nn.functional.cross_entropy(logits, torch.arange(len(logits)))


def aligned(ways: list[Split], weight: float, rate: float, seed: int) -> Aligned:
    """Pictures and names by contrast, pictures by denoising contrast besides."""
    torch.manual_seed(seed)
    model = Aligned().train()
    pictures, classes = ways[0].x["train"], ways[0].y["train"]
    names = spelled(classes[:PAIRS], 77 + seed)

    def loss(_: int, rows: torch.Generator) -> Tensor:
        some = torch.randint(PAIRS, (64,), generator=rows)
        total = contrast(model.vector({0: pictures[some]}), model.vector({1: names[some]}))
        if weight:
            total = total + weight * denoising(model, pictures[torch.randint(len(pictures), (32,), generator=rows)], rows)
        return total

    optimise(list(model.parameters()), loss, steps=STEPS, lr=rate, seed=seed)
    return model


def add_sounds(model: Aligned, way: Split, seed: int) -> None:
    """Sounds learn to match names; everything but their adapter, feed-forwards and head stays."""
    own = [p for n, p in model.named_parameters() if "ffn.parts.2." in n or n.startswith(("maps.2.", "places.2", "heads.2."))]
    for p in model.parameters():
        p.requires_grad_(False)
    for p in own:
        p.requires_grad_(True)
    names = spelled(way.y["train"], 99 + seed)
    model.train()

    def loss(_: int, rows: torch.Generator) -> Tensor:
        some = torch.randint(len(names), (64,), generator=rows)
        return contrast(model.vector({2: way.x["train"][some]}), model.vector({1: names[some]}))

    optimise(own, loss, steps=LATER, lr=RATES[0], seed=seed)


def probe(model: Aligned, way: Split, part: str) -> float:
    """The accuracy of logistic regression on the pooled pictures."""
    from sklearn.linear_model import LogisticRegression

    model.eval()
    with torch.no_grad():
        known, asked = (model.run({0: way.x[p]}).pooled.numpy() for p in ("train", part))
    mean, spread = known.mean(0), known.std(0) + 1e-6
    found = LogisticRegression(max_iter=2000).fit((known - mean) / spread, way.y["train"].numpy())
    return float(found.score((asked - mean) / spread, way.y[part].numpy()))


def found_by_sound(model: Aligned, ways: list[Split]) -> float:
    """The share of sounds whose nearest picture is of their digit; pictures of each digit are equally many, so that chance is a tenth."""
    model.eval()
    classes = ways[0].y["test"]
    few = int(torch.bincount(classes).min())
    rows = torch.cat([(classes == k).nonzero().flatten()[:few] for k in range(10)])
    with torch.no_grad():
        near = (model.vector({2: ways[2].x["test"]}) @ model.vector({0: ways[0].x["test"][rows]}).T).argmax(1)
    return float((classes[rows][near] == ways[2].y["test"]).float().mean())


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """What denoising adds to the probe."""
    ours, plain = found.mean("probe", "ours"), found.mean("probe", "baseline")
    return {"probe_gain": (None if ours is None or plain is None else ours - plain, "share")}


@row(
    "systems/one-peace",
    goals=[Goal("found_by_chance", arm="ours", must=5.0), Goal("probe_gain", must=0.0, aim=0.01)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def one_peace(*, arm: str, seed: int) -> Measured:
    """Sounds that find pictures through names alone, as a multiple of chance; and a linear probe with denoising contrast and without."""
    ways = three_ways(seed)
    models = [aligned(ways, WEIGHT if arm == "ours" else 0.0, rate, seed) for rate in RATES]
    model = max(models, key=lambda m: probe(m, ways[0], "val"))
    found = probe(model, ways[0], "test")
    with torch.no_grad():
        before = model.eval().run({0: ways[0].x["test"]}).pooled
    add_sounds(model, ways[2], seed)
    with torch.no_grad():
        after = model.eval().run({0: ways[0].x["test"]}).pooled
    if not np.array_equal(before.numpy(), after.numpy()):
        raise ValueError("pictures are read differently after sounds were added")
    precision = found_by_sound(model, ways)
    return {"probe": (found, "share"), "precision": (precision, "share"), "found_by_chance": (precision / CHANCE, "times")}
