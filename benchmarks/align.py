"""Spaces without labels: what finds what on rows that training never saw, from scratch, with the recipe ``align``.

Every model trains on the training part alone; validation rows decide when it stops, and the gallery is the test part alone. Settings that
differ from the recipe's are given for each row and were chosen on validation rows.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import unisono
from benchmarks import Goal, Measured, row
from unisono import data
from unisono.data import sounds
from unisono.retrieve import measures

SEEDS = (0, 1, 2)
#: A fit takes at most so long.
TIMED = Goal("seconds", must=60.0, better="lower", statistic="median")
EMOJI: tuple[str, ...] = (
    "train.batch=128", "train.epochs=30", "train.lr=0.0015", "objective=align(loss=softmax(temperature=0.15, lowest=0.1))",
)  # fmt: skip
DIGITS: tuple[str, ...] = ("train.batch=64", "train.epochs=12", "train.lr=0.003", "train.ema=0.99")
SHAPES: tuple[str, ...] = ("train.batch=128", "train.epochs=5", "train.lr=0.001")


def aligned(table: pa.Table, settings: tuple[str, ...], seed: int, **options: Any) -> tuple[Any, float]:
    """An aligned model, and how long the whole fit took."""
    begin = time.monotonic()
    model = unisono.fit(table, align=True, split="split", key="key", settings=settings, seed=seed, progress=False, **options)
    return model, time.monotonic() - begin


def between(model: Any, a: str, b: str) -> dict[str, float]:
    """The figures of one search."""
    return next(found for found in model.metrics["retrieval"] if (found["from"], found["to"]) == (a, b))


def named_emoji() -> pa.Table:
    """Emoji with one text: name and keywords."""
    table = data.emoji()
    texts = zip(table["name"].to_pylist(), table["keywords"].to_pylist(), strict=True)
    return table.select(["key", "image", "split"]).append_column("text", pa.array([f"{n}: {', '.join(k or [])}" for n, k in texts]))


def pixels_and_ngrams(table: pa.Table) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pictures as pixels of 24 x 24 on white, texts as TF-IDF of their n-grams of characters: each (N, features)."""
    import io

    from PIL import Image
    from sklearn.feature_extraction.text import TfidfVectorizer

    pictures = []
    for cell in table["image"].to_pylist():
        given = Image.open(io.BytesIO(cell)).convert("RGBA")
        ground = Image.new("RGBA", given.size, "white")
        ground.alpha_composite(given)
        pictures.append(np.asarray(ground.convert("RGB").resize((24, 24)), np.float64).reshape(-1) / 255)
    texts, train = table["text"].to_pylist(), np.array(table["split"].to_pylist()) == "train"
    weigh = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2)
    weigh.fit([t for t, here in zip(texts, train, strict=True) if here])
    return np.stack(pictures), weigh.transform(texts)


def canonical(table: pa.Table, seed: int, ridge: float, parts: int = 200, kept: int = 100) -> tuple[NDArray[Any], NDArray[Any]]:
    """Regularised canonical correlation of both sides' principal parts, fitted on training rows: unit vectors (N, kept) of all rows."""
    from sklearn.decomposition import TruncatedSVD

    train = np.array(table["split"].to_pylist()) == "train"
    sides = []
    for side in pixels_and_ngrams(table):
        centred = side - side[train].mean(0) if isinstance(side, np.ndarray) else side
        reduce = TruncatedSVD(parts, random_state=seed).fit(centred[train])
        z = reduce.transform(centred)
        z = z - z[train].mean(0)
        values, turn = np.linalg.eigh(z[train].T @ z[train] / train.sum())
        sides.append(z @ turn / np.sqrt(values + ridge * values.max()))
    u, s, v = np.linalg.svd(sides[0][train].T @ sides[1][train] / train.sum())
    made = [side @ turn[:, :kept] * np.sqrt(s[:kept]) for side, turn in zip(sides, (u, v.T), strict=True)]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in made)
    return a, b


def found_by(a: NDArray[Any], b: NDArray[Any]) -> dict[str, float]:
    """Figures of the search for row i of b by row i of a."""
    rows = np.arange(len(a))
    return measures.retrieval_figures(measures.rank(a, b, measures.Positives.of(rows, rows)))


@row(
    "align_emoji",
    goals=[Goal("r@10", arm="unisono", must=0.55, aim=0.75), Goal("r@1", arm="unisono"), Goal("r@10", arm="canonical"), TIMED],
    arms=("unisono", "canonical"),
    seeds=SEEDS,
)
def align_emoji(*, arm: str, seed: int) -> Measured:
    """Emoji: from the picture to its name and keywords among those of the test part."""
    table = named_emoji()
    begin = time.monotonic()
    if arm == "unisono":
        model, seconds = aligned(table, EMOJI, seed, columns={"text": "text"})
        found: dict[str, float] = between(model, "image", "text")
    else:
        part = np.array(table["split"].to_pylist())
        ranked = []
        for ridge in (0.01, 0.1, 1.0):
            a, b = canonical(table, seed, ridge)
            ranked.append((found_by(a[part == "val"], b[part == "val"])["r@10"], found_by(a[part == "test"], b[part == "test"])))
        found, seconds = max(ranked, key=lambda pair: pair[0])[1], time.monotonic() - begin
    return {"r@1": (found["r@1"], "share"), "r@10": (found["r@10"], "share"), "seconds": (seconds, "s")}


@row(
    "align_digits",
    goals=[Goal("map", must=0.90, aim=0.97), TIMED],
    arms=("unisono",),
    seeds=SEEDS,
    over={"speaker": sounds.SPEAKERS},
)
def align_digits(*, arm: str, seed: int, speaker: str) -> Measured:
    """Spoken and written digits, those of one digit one item: what finds what for a speaker held out, the mean of both directions."""
    table = sounds.av_digits(speaker, seed=seed).select(["key", "image", "sound", "digit", "split"])
    model, seconds = aligned(table, DIGITS, seed, item="digit")
    there, back = between(model, "sound", "image")["map"], between(model, "image", "sound")["map"]
    return {"map": ((there + back) / 2, "share"), "seconds": (seconds, "s")}


@row("align_shapes", goals=[Goal("least r@1", must=0.80, aim=0.95), Goal("mean r@1"), TIMED], arms=("unisono",), seeds=SEEDS)
def align_shapes(*, arm: str, seed: int) -> Measured:
    """Scenes as picture, caption, sound and cloud of points: every one to every other among 1,000 scenes, no two of them alike."""
    rows = 7000
    table = data.shapes(rows, seed=seed, columns=["key", "image", "caption", "sound", "points"], unique=True)
    split = np.where(np.arange(rows) < 1000, "test", np.where(np.arange(rows) < 1300, "val", "train"))
    model, seconds = aligned(table.append_column("split", pa.array(split)), SHAPES, seed, columns={"points": "points"})
    found = [f["r@1"] for f in model.metrics["retrieval"]]
    assert len(found) == 12
    return {"least r@1": (min(found), "share"), "mean r@1": (float(np.mean(found)), "share"), "seconds": (seconds, "s")}
