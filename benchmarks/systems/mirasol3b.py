"""Mirasol3B, snippets of sound and moving pictures as a few tokens (arXiv:2311.05698; recipe ``mirasol3b``).

Claim: combining what happens together, then a causal model over snippets, costs far fewer tokens at the same accuracy. Exact
(``tests/systems/test_mirasol3b.py``): a snippet's outputs have no gradient to later snippets; there are ``num`` tokens a snippet whatever
there was before. Waiting: generation (predicting the next snippets; text as a second autoregressive decoder).

Motion in clips with sound of the shapes world; the baseline's tokens all see each other, in as many layers. Then the time of one pass of
the trunk alone, forwards and backwards, over 8 and 16 snippets of 64 tokens each.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

import unisono
from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.common import accuracy, differences
from unisono.core.names import Names
from unisono.core.tokens import Meta
from unisono.data import shapes
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame
from unisono.recipe import load_recipe

SETTINGS = ["width=48", "train.steps=250", "train.batch=64", "train.lr=0.002"]
PLAIN = [{"scope": "sample", "repeat": 3}, {"read": "mean(by=source)"}]
ROWS, SAMPLES, SNIPPET = 700, 8, 64


def clip(snippets: int) -> Meta:
    """Tokens of sound and pictures, 32 of each in every half second."""
    t = SAMPLES * snippets * SNIPPET
    number = torch.arange(t)
    column = number % 2
    within = number // 2 % (snippets * SNIPPET // 2)
    zero = torch.zeros_like(number)
    place = torch.stack([within, -1 - zero, -1 - zero], 1)
    sample = number // (snippets * SNIPPET)
    time_ = within.float() * (0.5 / (SNIPPET // 2))
    return Meta(sample, column, zero, column, column, zero, place, torch.full((t, 3), torch.nan), time_, SAMPLES, 2)


def seconds(arm: str, snippets: int) -> tuple[float, float]:
    """The best time of five passes, and the share of tokens that are left at the end."""
    recipe = load_recipe("mirasol3b")
    torch.manual_seed(0)
    frame = Frame(Names(("video", "audio"), ("clip", "sound"), ("clip", "sound")))
    steps = recipe["trunk"] if arm == "ours" else PLAIN
    trunk = build_trunk(steps, recipe["defaults"], width=48, num_modalities=2, frame=frame)
    meta = clip(snippets)
    x, plan = torch.randn(len(meta), 48), trunk.plan(replace(meta))
    found = []
    for _ in range(5):
        begin = time.process_time()
        trunk(x, plan).sum().backward()
        found.append(time.process_time() - begin)
    return min(found), len(plan.last) / len(meta)


def compared(found: Values) -> dict[str, tuple[float | None, str]]:
    """The loss in accuracy, the saving in tokens and time, and how time goes with snippets."""
    ours, plain, longer = found.mean("pass", "ours"), found.mean("pass", "baseline"), found.mean("pass_twice", "ours")
    tokens = found.mean("tokens_left", "ours")
    return {
        **differences("accuracy")(found),
        "fewer_tokens": (None if tokens is None else 1 / tokens, "times"),
        "faster": (None if ours is None or plain is None else plain / ours, "times"),
        "twice_the_snippets": (None if ours is None or longer is None else longer / ours, "times"),
    }


@row(
    "systems/mirasol3b",
    goals=[
        Goal("accuracy_gain", must=-0.01, aim=0.0),
        Goal("fewer_tokens", must=4.0),
        Goal("faster", must=1.0),
        Goal("twice_the_snippets", must=2.5, better="lower"),
    ],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=compared,
)
def mirasol3b(*, arm: str, seed: int) -> Measured:
    """Accuracy on motion from video and sound, processor time of a pass of the trunk over 8 and 16 snippets, and tokens left."""
    table = shapes(ROWS, seed=seed, columns=["split", "video", "sound", "motion"], size=24)
    recipe, settings = ("mirasol3b", SETTINGS) if arm == "ours" else ("base", [*SETTINGS, f"trunk={PLAIN}"])
    model = unisono.fit(table, "motion=category", recipe=recipe, split="split", settings=settings, seed=seed, progress=False)
    once, left = seconds(arm, 8)
    twice, _ = seconds(arm, 16)
    return {
        "accuracy": (accuracy(model, "motion"), "share"), "pass": (once, "s"), "pass_twice": (twice, "s"), "tokens_left": (left, "share"),
    }  # fmt: skip
