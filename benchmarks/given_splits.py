"""Data sets with a split of their own: emoji groups, six views of digits, six sets of time series. Default settings throughout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import unisono
from benchmarks import Goal, Measured, row
from unisono import data

SERIES = ("BasicMotions", "JapaneseVowels", "ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf")
SEEDS = (0, 1, 2)
TIMED = Goal("seconds", must=60.0, better="lower", arm="unisono", statistic="median")


def fit_once(table: pa.Table, target: str, seed: int, columns: Mapping[str, str] | None = None) -> tuple[Any, Measured]:
    """Fit with default settings on the table's column ``split``.

    Returns:
        The model, and its test ``accuracy``, the whole call's ``seconds``, and ``steps``.
    """
    begin = time.monotonic()
    model = unisono.fit(table, {target: "category"}, split="split", columns=dict(columns or {}), seed=seed, progress=False)
    seconds = time.monotonic() - begin
    accuracy = model.metrics["test"]["targets"][target]["accuracy"]
    steps = model.metrics["training"]["steps"]
    return model, {"accuracy": (accuracy, "share"), "seconds": (seconds, "s"), "steps": (steps, "updates")}


def tfidf_right(table: pa.Table) -> NDArray[np.bool_]:
    """Whether logistic regression on TF-IDF of name and keywords is right about each test row."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    names, lists = table.column("name").to_pylist(), table.column("keywords").to_pylist()
    texts = np.array([f"{name} {' '.join(words or [])}" for name, words in zip(names, lists, strict=True)], object)
    split, truth = np.array(table.column("split").to_pylist()), np.array(table.column("group").to_pylist())
    weigh = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    model = LogisticRegression(C=30, max_iter=3000).fit(weigh.fit_transform(texts[split == "train"]), truth[split == "train"])
    right: NDArray[np.bool_] = model.predict(weigh.transform(texts[split == "test"])) == truth[split == "test"]
    return right


@row(
    "emoji",
    goals=[Goal("accuracy", must=0.93, aim=0.95), Goal("less_tfidf_low", must=0.0), Goal("less_tfidf"), Goal("tfidf"), TIMED],
    arms=("unisono",),
    seeds=SEEDS,
)
def emoji(*, arm: str, seed: int) -> Measured:
    """The group of an emoji from picture, name and keywords, and the paired bootstrap interval of the difference to TF-IDF."""
    from unisono.tasks.bootstrap import paired_bootstrap

    table = data.emoji().select(["image", "name", "keywords", "group", "split"])
    theirs = tfidf_right(table)
    test = table.filter(pa.array(np.array(table.column("split").to_pylist()) == "test"))
    truth = np.array(test.column("group").to_pylist())
    model, found = fit_once(table, "group", seed)
    ours = np.array(model.predict(test.drop_columns(["group"])).column("group").to_pylist()) == truth
    paired = paired_bootstrap(ours, theirs, seed=seed)
    differences = {"less_tfidf": paired.difference, "less_tfidf_low": paired.low, "less_tfidf_high": paired.high}
    return {**found, "tfidf": (float(theirs.mean()), "share"), **{name: (float(v), "share") for name, v in differences.items()}}


@row("mfeat", goals=[Goal("accuracy", must=0.987, aim=0.995), TIMED], arms=("unisono",), seeds=SEEDS)
def mfeat(*, arm: str, seed: int) -> Measured:
    """Six views of handwritten digits as vector columns."""
    return fit_once(data.mfeat().drop_columns(["key"]), "y", seed)[1]


@row("ucr", goals=[Goal("accuracy", must=0.83, aim=0.92), TIMED], arms=("unisono",), seeds=SEEDS, over={"table": SERIES})
def ucr(*, arm: str, seed: int, table: str) -> Measured:
    """Six small sets of time series; the mean is over the sets."""
    return fit_once(data.ucr(table).drop_columns(["key"]), "label", seed, {"series": "series"})[1]
