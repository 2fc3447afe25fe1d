"""The group of an emoji from its picture, name and keywords, given split, default settings, against TF-IDF and logistic regression.

The difference to TF-IDF comes with a paired bootstrap interval over test rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import Goal, Measured, row
from benchmarks.given_splits import fit_once, measured
from unisono.data import emoji as load

RESAMPLES = 2000


def peer(table: pa.Table) -> NDArray[np.bool_]:
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


def paired(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], seed: int) -> dict[str, float]:
    """The difference of two accuracies on the same rows and its 95 % bootstrap interval."""
    difference = ours.astype(np.float64) - theirs
    rows = np.random.default_rng(seed).integers(0, len(difference), (RESAMPLES, len(difference)))
    low, high = np.quantile(difference[rows].mean(1), [0.025, 0.975])
    return {"less_tfidf": float(difference.mean()), "less_tfidf_low": float(low), "less_tfidf_high": float(high)}


@row(
    "emoji",
    goals=[
        Goal("accuracy", must=0.93, aim=0.95),
        Goal("tfidf"),
        Goal("less_tfidf"),
        Goal("less_tfidf_low"),
        Goal("less_tfidf_high"),
        Goal("seconds", better="lower"),
    ],
    seeds=(0, 1, 2),
)
def emoji(*, arm: str, seed: int) -> Measured:
    """Test accuracy of an emoji's group from picture, name and keywords, and by how much it is above TF-IDF (95 % interval)."""
    table = load()
    picture = next(c for c in ("png", "picture", "image") if c in table.column_names)
    table = table.select([picture, "name", "keywords", "group", "split"])
    theirs = peer(table)
    test = table.filter(pa.array(np.array(table.column("split").to_pylist()) == "test"))
    truth = np.array(test.column("group").to_pylist())
    model, found = fit_once(table, "group", seed)
    ours = np.array(model.predict(test.drop_columns(["group"])).column("group").to_pylist()) == truth
    return measured({**found, "tfidf": float(theirs.mean()), **paired(ours, theirs, seed)})
