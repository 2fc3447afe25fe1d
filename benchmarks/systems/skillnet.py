"""SkillNet (arXiv:2205.06126; recipe ``skillnet``).

Claim: one model with a block for each skill, of which a task uses those that it declares, is as good as a model for each modality. Exact
(``tests/systems/test_skillnet.py``): inactive blocks get no gradient and can be deleted; one active skill is a dense transformer; a model
says how many weights each modality uses. Waiting: self-supervised pretraining that activates in the same way, for objectives.

Digits written, named with wrong letters, and spoken; no row has two of them. The baseline is three models of the active size, each trained
on its own rows for as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.loops import INPUTS, Model, Split, optimise, three_ways, trunk_of
from unisono.nn.skills import Skills

WIDTH, STEPS, RATES, NAMES = 32, 200, (4e-3, 8e-3), ("written", "named", "spoken")


def right(model: Model, ways: Sequence[Split], which: Sequence[int], part: str) -> list[float]:
    """The accuracy of each way, by the head of its own."""
    model.eval()
    with torch.no_grad():
        scores = {m: model.scores({m: ways[m].x[part]})[0][m] for m in which}
    return [float((scores[m].argmax(1) == ways[m].y[part]).float().mean()) for m in which]


def trained(recipe: str, ways: Sequence[Split], which: Sequence[int], seed: int) -> Model:
    """A model of some of the ways, at the rate that is best on validation."""
    best: tuple[float, Model] | None = None
    for rate in RATES:
        torch.manual_seed(seed)
        model = Model(trunk_of(recipe, WIDTH, {}, modalities=3), INPUTS, [10] * 3, WIDTH).train()

        def loss(_: int, rows: torch.Generator, model: Model = model) -> Tensor:
            total = torch.zeros(())
            for m in which:
                some = torch.randint(len(ways[m].x["train"]), (64,), generator=rows)
                scores, _ = model.scores({m: ways[m].x["train"][some]})
                total = total + nn.functional.cross_entropy(scores[m], ways[m].y["train"][some])
            return total

        optimise(list(model.parameters()), loss, steps=STEPS, lr=rate, seed=seed)
        score = sum(right(model, ways, which, "val"))
        if best is None or score > best[0]:
            best = (score, model)
    assert best is not None
    return best[1]


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """The difference of mean accuracies."""
    ours, apart = found.mean("accuracy", "ours"), found.mean("accuracy", "baseline")
    return {"gain": (None if ours is None or apart is None else ours - apart, "share")}


@row(
    "systems/skillnet",
    goals=[Goal("gain", must=-0.01, aim=0.0)],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def skillnet(*, arm: str, seed: int) -> Measured:
    """Mean accuracy on digits written, named and spoken: one model with a skill for each against three models of the active size."""
    ways = three_ways(seed)
    found: dict[str, tuple[float, str]] = {}
    if arm == "ours":
        model = trained("skillnet", ways, (0, 1, 2), seed)
        each = right(model, ways, (0, 1, 2), "test")
        blocks = next(m for m in model.modules() if isinstance(m, Skills))
        active, total = blocks.sizes()["image"]
        found = {"active_weights": (active, "weights"), "block_weights": (total, "weights")}
    else:
        each = [right(trained("base", ways, (m,), seed), ways, (m,), "test")[0] for m in range(3)]
    return {**found, "accuracy": (sum(each) / 3, "share"), **{n: (v, "share") for n, v in zip(NAMES, each, strict=True)}}
