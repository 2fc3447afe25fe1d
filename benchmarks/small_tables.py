"""Four small tables of numbers against boosted trees and a linear model, each on the same shuffled folds.

Breast cancer, wine and digits by accuracy, diabetes by R2. The network gets the training folds as they are and sets its own validation
rows apart; the peers get all of the training folds. Settings are the package's defaults.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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


def peer(arm: str, name: str, train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> float:
    """The score of histogram gradient boosting (``trees``), or of a scaled logistic or ridge regression (``linear``)."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets, metric = load(name)
    if arm == "trees":
        model = (HistGradientBoostingRegressor if metric == "r2" else HistGradientBoostingClassifier)(random_state=seed)
    else:
        model = make_pipeline(StandardScaler(), Ridge() if metric == "r2" else LogisticRegression(max_iter=2000))
    return float(model.fit(features[train], targets[train]).score(features[test], targets[test]))


def fold(name: str, train: NDArray[np.int64], test: NDArray[np.int64], seed: int, settings: Sequence[str] = ()) -> dict[str, float]:
    """The network's score on one fold, the whole call's ``seconds``, and ``steps``."""
    features, targets, metric = load(name)
    rows = np.concatenate([train, test])
    columns = {f"x{k}": pa.array(features[rows, k]) for k in range(features.shape[1])}
    table = pa.table({**columns, "target": pa.array(targets[rows]), "part": ["train"] * len(train) + ["test"] * len(test)})
    begin = time.monotonic()
    task = "number" if metric == "r2" else "category"
    kept = dict.fromkeys(columns, "number")
    model = unisono.fit(table, {"target": task}, split="part", columns=kept, seed=seed, settings=list(settings), progress=False)
    seconds = time.monotonic() - begin
    found = model.metrics
    return {metric: found["test"]["targets"]["target"][metric], "seconds": round(seconds, 1), "steps": found["training"]["steps"]}


def less_peers(found: Values) -> dict[str, tuple[float | None, str]]:
    """The network's score on each table less the better peer's."""
    result: dict[str, tuple[float | None, str]] = {}
    for name in TABLES:
        ours, theirs = found.mean("score", "unisono", table=name), [found.mean("score", arm, table=name) for arm in PEERS]
        known = [score for score in theirs if score is not None]
        result[name] = (None if ours is None or len(known) < len(PEERS) else ours - max(known), "share")
    return result


@row(
    "small_tables",
    goals=[
        *(Goal(name, must=-0.02 if name == "diabetes" else -0.005, aim=0.0) for name in TABLES),
        Goal("seconds", arm="unisono", better="lower"),
    ],
    arms=("unisono", *PEERS),
    seeds=(0, 1, 2),
    over={"table": TABLES, "number": tuple(range(FOLDS))},
    derive=less_peers,
)
def small_tables(*, arm: str, seed: int, table: str, number: int) -> Measured:
    """Accuracy (diabetes: R2) over shuffled folds less that of the better of boosted trees and a linear model."""
    train, test = folds(len(load(table)[0]), seed)[number]
    if arm != "unisono":
        return {"score": (peer(arm, table, train, test, seed), "share")}
    found = fold(table, train, test, FOLDS * seed + number)
    seconds, steps = found.pop("seconds"), found.pop("steps")
    return {"score": (next(iter(found.values())), "share"), "seconds": (seconds, "s"), "steps": (steps, "updates")}
