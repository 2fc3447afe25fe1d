"""BridgeTower, sources' own states in every layer where they meet (arXiv:2206.08657; recipe ``bridgetower``).

Claim: layers in which sources meet gain from the sources' states of matching depth. Exact (``tests/systems/test_bridgetower.py``): with
nothing over the bridges it is the encoder without them with the same norms; gradient reaches each bridged layer without passing through
later ones. The stream begins with the last of the sources' own states; a bridge goes over each source's tokens with weights of its own.

Questions about the largest thing in pictures of the shapes world, two a scene, at equal steps; the baseline is the same trunk without
bridges.
"""

from __future__ import annotations

import time

import pyarrow as pa

import unisono
from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.common import accuracy, differences
from unisono.data import shapes

SETTINGS = ["width=48", "train.steps=400", "train.batch=64", "train.lr=0.003"]
PLAIN = "trunk=[{scope: source, repeat: 2}, {scope: sample, repeat: 2}, {read: mean(by=source)}]"
SCENES = 1200
KINDS = ("colour", "shape")


def questions(seed: int) -> pa.Table:
    """A row for each of the questions about colour and shape: picture, question, answer."""
    world = shapes(SCENES, seed=seed, columns=["split", "image", "questions"], size=24)
    rows = [
        {"image": image, "question": q["question"], "answer": q["answer"], "split": split}
        for image, asked, split in zip(*(world[n].to_pylist() for n in ("image", "questions", "split")), strict=True)
        for q in asked
        if q["kind"] in KINDS
    ]
    return pa.Table.from_pylist(rows)


def costs(found: Values) -> dict[str, tuple[float | None, str]]:
    """The gain, and the extra time."""
    ours, plain = found.mean("seconds", "ours"), found.mean("seconds", "baseline")
    extra = None if ours is None or plain is None else ours / plain - 1
    return {**differences("accuracy")(found), "extra_time": (extra, "share")}


@row(
    "systems/bridgetower",
    goals=[Goal("accuracy_gain", must=0.0, aim=0.01), Goal("extra_time", must=0.05, better="lower")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=costs,
)
def bridgetower(*, arm: str, seed: int) -> Measured:
    """Accuracy of answers to questions about pictures, and the processor time of the fit."""
    table = questions(seed)
    recipe, settings = ("bridgetower", SETTINGS) if arm == "ours" else ("base", [*SETTINGS, PLAIN])
    begin = time.process_time()
    kinds = {"image": "image", "question": "text"}
    model = unisono.fit(table, "answer=category", recipe=recipe, split="split", columns=kinds, settings=settings, seed=seed, progress=False)
    return {"accuracy": (accuracy(model, "answer"), "share"), "seconds": (time.process_time() - begin, "s")}
