"""M3ViT (arXiv:2210.14793; recipe ``m3vit``).

Claim: with routers of each target's own, targets take different paths through shared experts and conflict less. Exact
(``tests/systems/test_m3vit.py``): expert by expert equals token by token, each expert loaded at most once and one held at a time; a target
runs on the experts that it reaches alone. Nothing waits.

Handwritten digits, turned by a multiple of a right angle: one target is the digit whatever the turn, the other the turn whatever the digit.
The baseline is the same trunk with one feed-forward as wide as the two experts that a token uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.loops import Model, digits, optimise, parts_of, patches, trunk_of
from unisono.nn.experts import Experts
from unisono.nn.ffn import MLP

WIDTH, STEPS, RATES, LAYERS = 32, 200, (4e-3, 8e-3), 1
Data = dict[str, tuple[Tensor, list[Tensor]]]


def turned(seed: int) -> Data:
    """Pictures as patches, and the digit and the turn of each."""
    pictures, classes = digits()
    turns = np.random.default_rng(seed + 50).integers(0, 4, len(classes))
    x = patches(np.stack([np.rot90(p, k) for p, k in zip(pictures, turns, strict=True)]))
    rows = {k: torch.as_tensor(r) for k, r in parts_of(len(classes), seed, (1000, 300)).items()}
    return {k: (x[r], [torch.as_tensor(classes)[r], torch.as_tensor(turns)[r]]) for k, r in rows.items()}


def make(arm: str) -> Model:
    """The trunk of an arm, behind a fork by target from its second layer on."""
    experts: dict[str, Any] = {"name": "sparse", "repeat": LAYERS}
    experts |= {"ffn": "mlp(1)", "sharing": {"ffn": "experts(4, 2, by=task)"}} if arm == "ours" else {"ffn": "mlp(2)"}
    steps = [{"repeat": 1, "ffn": "mlp(2)"}, {"fork": "task"}, experts, {"read": "mean"}]
    recipe = "m3vit" if arm == "ours" else "base"
    return Model(trunk_of(recipe, WIDTH, {"trunk": steps}, tasks=("digit", "turn")), [(16, 4)], [10, 4], WIDTH)


def losses(model: Model, x: Tensor, y: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Each target's cross-entropy, and what the trunk adds."""
    scores, extra = model.scores({0: x})
    return [nn.functional.cross_entropy(s, t) for s, t in zip(scores, y, strict=True)], extra


def right(model: Model, part: tuple[Tensor, list[Tensor]]) -> list[float]:
    """Each target's accuracy."""
    model.eval()
    with torch.no_grad():
        scores, _ = model.scores({0: part[0]})
    return [float((s.argmax(1) == t).float().mean()) for s, t in zip(scores, part[1], strict=True)]


def cosine(model: Model, part: tuple[Tensor, list[Tensor]]) -> float:
    """The mean over batches of the cosine between the targets' gradients on the feed-forwards behind the fork."""
    model.eval()
    forked = list(model.trunk.steps)[2:]
    parts = [m.parts if isinstance(m, Experts) else m for s in forked for m in s.modules() if isinstance(m, Experts | MLP)]
    weights = list(dict.fromkeys(p for m in parts for p in m.parameters()))
    found = []
    for x, a, b in zip(part[0].split(100), part[1][0].split(100), part[1][1].split(100), strict=True):
        each, _ = losses(model, x, [a, b])
        grads = [torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True) for loss in each]
        flat = [torch.cat([g.flatten() for g in grad]) for grad in grads]
        found.append(float(nn.functional.cosine_similarity(flat[0], flat[1], dim=0)))
    return float(np.mean(found))


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """Differences of the mean score and of the cosine."""
    result: dict[str, tuple[float | None, str]] = {}
    for metric in ("score", "cosine"):
        a, b = found.mean(metric, "ours"), found.mean(metric, "baseline")
        result[f"{metric}_gain"] = (None if a is None or b is None else a - b, "share" if metric == "score" else "cosine")
    return result


@row(
    "systems/m3vit",
    goals=[Goal("score_gain", must=0.0), Goal("cosine_gain", must=0.0)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def m3vit(*, arm: str, seed: int) -> Measured:
    """Two targets that conflict, a digit and its turn: mean accuracy and how the targets' gradients agree, experts against dense."""
    data = turned(seed)
    best: tuple[float, Model, float] | None = None
    for rate in RATES:
        torch.manual_seed(seed)
        model = make(arm).train()

        def loss(_: int, rows: torch.Generator, model: Model = model) -> Tensor:
            some = torch.randint(len(data["train"][0]), (96,), generator=rows)
            each, extra = losses(model, data["train"][0][some], [y[some] for y in data["train"][1]])
            return each[0] + each[1] + extra

        optimise(list(model.parameters()), loss, steps=STEPS, lr=rate, seed=seed)
        score = float(np.mean(right(model, data["val"])))
        if best is None or score > best[0]:
            best = (score, model, rate)
    assert best is not None
    digit, turn = right(best[1], data["test"])
    found = {"score": ((digit + turn) / 2, "share"), "digit": (digit, "share"), "turn": (turn, "share"), "rate": (best[2], "per step")}
    return {**found, "cosine": (cosine(best[1], data["train"]), "cosine")}
