"""Four small tables of numbers against boosted trees and a linear model, each on the same shuffled folds.

Breast cancer, wine and digits by accuracy, diabetes by R2. The network gets the training folds as they are and sets its own validation
rows apart; the peers get all of the training folds. Settings are the package's defaults.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import unisono
from benchmarks import Goal, Measured, Values, row

TABLES = ("breast_cancer", "wine", "diabetes", "digits")
FOLDS = 5
PEERS = ("trees", "linear")


def load(name: str) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Features, targets, and the metric of one table."""
    from sklearn import datasets

    features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(features, np.float64), targets, "r2" if name == "diabetes" else "accuracy"


def folds(rows: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and test rows of each fold."""
    from sklearn.model_selection import KFold

    return list(KFold(FOLDS, shuffle=True, random_state=seed).split(np.arange(rows)))


def peer_score(peer: str, name: str, train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> float:
    """The score of histogram gradient boosting, or of a scaled logistic or ridge regression."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets, metric = load(name)
    if peer == "trees":
        model = (HistGradientBoostingRegressor if metric == "r2" else HistGradientBoostingClassifier)(random_state=seed)
    else:
        model = make_pipeline(StandardScaler(), Ridge() if metric == "r2" else LogisticRegression(max_iter=2000))
    return float(model.fit(features[train], targets[train]).score(features[test], targets[test]))


def our_score(name: str, train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> float:
    """The network's score on one fold."""
    features, targets, metric = load(name)
    rows = np.concatenate([train, test])
    columns = {f"x{k}": pa.array(features[rows, k]) for k in range(features.shape[1])}
    table = pa.table({**columns, "target": pa.array(targets[rows]), "part": ["train"] * len(train) + ["test"] * len(test)})
    task = "number" if metric == "r2" else "category"
    model = unisono.fit(table, {"target": task}, split="part", columns=dict.fromkeys(columns, "number"), seed=seed, progress=False)
    return float(model.metrics["test"]["targets"]["target"][metric])


def against_peers(found: Values) -> dict[str, tuple[float | None, str]]:
    """The network's mean less the better peer's, table by table."""
    result: dict[str, tuple[float | None, str]] = {}
    for name in TABLES:
        scores = {arm: found.mean("score", arm, table=name) for arm in ("unisono", *PEERS)}
        known = [scores[peer] for peer in PEERS if scores[peer] is not None]
        ours = scores["unisono"]
        result[f"{name}_less_peer"] = (None if ours is None or len(known) < len(PEERS) else ours - max(known), "share")
    return result


@row(
    "small_tables",
    goals=[
        *(Goal(f"{name}_less_peer", must=-0.02 if name == "diabetes" else -0.005, aim=0.0) for name in TABLES),
        Goal("slowest_fit", must=60.0, better="lower", arm="unisono"),
    ],
    arms=("unisono", *PEERS),
    seeds=(0, 1, 2),
    over={"table": TABLES},
    derive=against_peers,
)
def small_tables(*, arm: str, seed: int, table: str) -> Measured:
    """The mean score over five shuffled folds, and the slowest fit."""
    scores, seconds = [], []
    for k, (train, test) in enumerate(folds(len(load(table)[0]), seed)):
        begin = time.monotonic()
        scores.append(our_score(table, train, test, FOLDS * seed + k) if arm == "unisono" else peer_score(arm, table, train, test, seed))
        seconds.append(time.monotonic() - begin)
    return {"score": (float(np.mean(scores)), "share"), "slowest_fit": (max(seconds), "s")}
