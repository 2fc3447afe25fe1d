"""MetaFormer for fine-grained recognition: fields beside a picture as tokens (arXiv:2203.02751; recipe ``metaformer-fgvc``).

Claim: where classes look alike, fields beside the picture decide, and may be missing. Exact (``tests/systems/test_metaformer_fgvc.py``):
cyclic fields are the same to the bit a whole number of periods apart; the year's first day is the one after its last.

Handwritten digits, each of two kinds that look the same and that an angle decides (which half of the circle, with one in ten wrong).
Arms: with the angle, with the angle shuffled over rows, and pictures alone.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

import unisono
from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.common import accuracy, alone, differences, shares

SETTINGS = ["width=32", "train.steps=800", "train.batch=64", "train.lr=0.001", "tokens.angle=cyclic(360)"]


def table(seed: int, arm: str) -> pa.Table:
    """Digits with an angle; kind is the digit and a side of the circle."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    digits = load_digits()
    angle = rng.uniform(-180, 180, len(digits.target))
    side = (np.cos(np.deg2rad(angle - 170)) > 0) ^ (rng.random(len(angle)) < 0.1)
    kind = [f"{d}{'ab'[int(s)]}" for d, s in zip(digits.target, side, strict=True)]
    order = rng.permutation(len(kind))
    split = np.where(np.argsort(order) < 0.3 * len(kind), "test", "train")
    shown = rng.permutation(angle) if arm == "shuffled" else angle
    columns = {"image": (digits.images * 15).astype(np.uint8).tolist(), "kind": kind, "split": split}
    return pa.table(columns if arm == "baseline" else {**columns, "angle": shown})


def against_pictures(found: Values) -> dict[str, tuple[float | None, str]]:
    """What the angle gains, what missing costs, and what a shuffled one gains."""
    plain, missing = found.mean("accuracy", "baseline"), found.mean("image", "ours")
    return {
        **differences("accuracy")(found),
        "missing_gain": (None if plain is None or missing is None else missing - plain, "share"),
        "shuffled_gain": differences("accuracy", ours="shuffled")(found)["accuracy_gain"],
    }


@row(
    "systems/metaformer-fgvc",
    goals=[Goal("accuracy_gain", must=0.05), Goal("missing_gain", must=-0.01), Goal("shuffled_gain", must=0.01, better="lower")],
    arms=("ours", "shuffled", "baseline"),
    seeds=(0, 1, 2),
    derive=against_pictures,
)
def metaformer_fgvc(*, arm: str, seed: int) -> Measured:
    """Accuracy on twenty kinds of digits, with the field that decides, with it missing, and without it."""
    kinds = {"image": "image"} if arm == "baseline" else {"image": "image", "angle": "number"}
    settings = SETTINGS[:-1] if arm == "baseline" else SETTINGS
    model = unisono.fit(
        table(seed, arm), "kind=category", recipe="metaformer-fgvc", split="split", columns=kinds, settings=settings, seed=seed,
        progress=False,
    )  # fmt: skip
    found = {"accuracy": accuracy(model, "kind")}
    return shares(found if arm == "baseline" else {**found, "image": alone(model, "image", "kind")})
