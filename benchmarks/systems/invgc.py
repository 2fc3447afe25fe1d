"""Inverse graph convolution (arXiv:2310.13366; recipe ``invgc``).

Claim: moving every item of the gallery away from its neighbours opens the cone that embeddings crowd into, and raises recall. Exact
(``tests/systems/test_invgc.py``): items move as the equation says in loops, over the nearest and over a whole bank; at rate zero the
ranking is as it was; lengths are one; neighbours without similarity move nothing.

Captions and lists of things of a thousand shapes-world scenes in 24 canonical channels, blurred by noise, banks of two thousand other
scenes; ``cone`` adds one common direction to both sides. The best of three rates on half of the thousand, measured on the other half, both
ways. The mean cosine of the gallery falls as promised; on these embeddings neither recall nor hubs gain by it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.hubs import Pairs, Vectors, chosen, fitted
from unisono.data import shapes
from unisono.retrieve.hubness import Correction, InvGC, unit

RATES, BANK, WIDTH, NOISE, CONE = (0.1, 0.3, 0.6), 2000, 24, 0.12, 1.0


def counted(texts: list[str], **settings: Any) -> Vectors:
    """Which words each text has, (N, words), centred on the bank's."""
    words = CountVectorizer(binary=True, **settings).fit(texts[:BANK])
    found: Vectors = words.transform(texts).toarray().astype(np.float32)
    return found - found[:BANK].mean(0)


def whitened(x_NF: Vectors, ridge: float = 0.1) -> Vectors:
    """Features at unit variance over the bank, up to a ridge."""
    _, s, vt = np.linalg.svd(x_NF[:BANK], full_matrices=False)
    found: Vectors = x_NF @ (vt.T / np.sqrt(s**2 / BANK + ridge))
    return found


@functools.cache
def embedded(seed: int) -> tuple[Vectors, Vectors]:
    """Captions and lists of things in canonical channels, blurred."""
    table = shapes(BANK + 1000, seed=seed, columns=["boxes", "caption"], size=24, unique=True)
    things = [
        " ".join(f"{b['shape']}_{b['colour']} {b['shape']} {b['colour']} {int(b['x1'] - b['x0']) // 2}_{b['shape']}" for b in boxes)
        for boxes in table["boxes"].to_pylist()
    ]
    said = whitened(counted(table["caption"].to_pylist(), ngram_range=(1, 2), min_df=15))
    shown = whitened(counted(things, token_pattern=r"\S+", min_df=3))
    u, s, vt = np.linalg.svd(said[:BANK].T @ shown[:BANK] / BANK, full_matrices=False)
    rng = np.random.default_rng(seed)
    sides = [unit((x @ w[:, :WIDTH]) * s[:WIDTH]) for x, w in ((said, u), (shown, vt.T))]
    blurred = [unit(x + NOISE * rng.normal(size=x.shape)) for x in sides]
    return blurred[0], blurred[1]


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """What the correction changes, in the cone and without."""
    result: dict[str, tuple[float | None, str]] = {}
    for cone, name in ((True, "cone"), (False, "clean")):
        for metric in ("r@1", "skewness", "cosine"):
            a, b = found.mean(metric, "invgc", cone=cone), found.mean(metric, "none", cone=cone)
            result[f"{name}_{metric}_gain"] = (None if a is None or b is None else a - b, "share" if metric == "r@1" else metric)
    return result


@row(
    "systems/invgc",
    goals=[
        Goal("cone_r@1_gain", must=0.01), Goal("cone_cosine_gain", must=0.0, better="lower"),
        Goal("cone_skewness_gain", must=0.0, better="lower"), Goal("clean_r@1_gain", must=-0.003),
    ],
    arms=("none", "invgc"),
    seeds=(0, 1, 2),
    over={"cone": (True, False)},
    derive=gains,
)  # fmt: skip
def invgc(*, arm: str, seed: int, cone: bool) -> Measured:
    """Recall at 1, skewness of 10-occurrence and mean cosine of embeddings of shapes-world captions and things, mean of both ways."""
    said, shown = embedded(seed)
    if cone:
        side = np.random.default_rng(1000 + seed).normal(size=WIDTH)
        said, shown = (unit(x + CONE * side / np.linalg.norm(side)) for x in (said, shown))
    results = []
    for queries, gallery in ((said, shown), (shown, said)):
        pairs = Pairs(queries, gallery)
        banks, val, test = pairs.part(0, BANK), pairs.part(BANK, BANK + 500), pairs.part(BANK + 500, BANK + 1000)
        made = None
        if arm == "invgc":
            settings: dict[str, Correction] = {str(rate): InvGC(rate=rate) for rate in RATES}
            made = fitted(chosen(settings, banks, val), banks, test)
        results.append(test.measured(made))
    mean = {name: float(np.mean([r[name] for r in results])) for name in results[0]}
    return {"r@1": (mean["r@1"], "share"), "skewness": (mean["skewness"], "skewness"), "cosine": (mean["cosine"], "cosine")}
