"""Four small tables of numbers against boosted trees and a linear model, each on the same shuffled folds.

Breast cancer, wine and digits by accuracy, diabetes by R2. The network gets the training folds as they are and sets its own validation
rows apart; the peers get all of the training folds. Settings are the package's defaults.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import unisono

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


def peers(name: str, train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> dict[str, float]:
    """Scores of histogram gradient boosting and of a scaled logistic or ridge regression."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets, metric = load(name)
    trees = (HistGradientBoostingRegressor if metric == "r2" else HistGradientBoostingClassifier)(random_state=seed)
    linear = make_pipeline(StandardScaler(), Ridge() if metric == "r2" else LogisticRegression(max_iter=2000))
    return {
        peer: float(model.fit(features[train], targets[train]).score(features[test], targets[test]))
        for peer, model in zip(PEERS, (trees, linear), strict=True)
    }


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


def records(tables: Sequence[str], seeds: Sequence[int], settings: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Make one record for each table, seed and arm: the mean over its folds.

    Yields:
        Records with the arms ``unisono``, ``trees`` and ``linear``.
    """
    for name in tables:
        metric = load(name)[2]
        for seed in seeds:
            ours, theirs = [], []
            for k, (train, test) in enumerate(folds(len(load(name)[0]), seed)):
                ours.append(fold(name, train, test, FOLDS * seed + k, settings))
                theirs.append(peers(name, train, test, seed))
            common = {"bench": "small_tables", "table": name, "seed": seed}
            for arm, part in [("unisono", ours), *((peer, theirs) for peer in PEERS)]:
                value = float(np.mean([p[metric if arm == "unisono" else arm] for p in part]))
                yield {**common, "arm": arm, "metric": metric, "value": round(value, 5), "unit": "share"}
            worst = max(p["seconds"] for p in ours)
            yield {**common, "arm": "unisono", "metric": "slowest_fit", "value": worst, "unit": "s"}


def verdicts(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Table -> the network's mean over seeds, its spread, the better peer's mean, and the difference."""
    result: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(r["table"] for r in found):
        scores = {
            arm: [r["value"] for r in found if r["table"] == name and r["arm"] == arm and r["metric"] != "slowest_fit"]
            for arm in ("unisono", *PEERS)
        }
        ours, best = float(np.mean(scores["unisono"])), max(float(np.mean(scores[p])) for p in PEERS)
        spread = float(np.ptp(scores["unisono"]))
        result[name] = {k: round(v, 4) for k, v in (("mean", ours), ("spread", spread), ("peer", best), ("less", ours - best))}
    return result


def main() -> None:
    """Print one JSON object a line, then the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    asked = parser.parse_args()
    found = []
    for record in records(asked.tables, asked.seeds, asked.settings):
        found.append(record)
        print(json.dumps(record), flush=True)
    print(json.dumps(verdicts(found)))


if __name__ == "__main__":
    main()
