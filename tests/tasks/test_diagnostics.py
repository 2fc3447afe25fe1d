from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as reference

from unisono.tasks import diagnostics
from unisono.tasks.category import Category
from unisono.tasks.labels import Labels
from unisono.tasks.number import Number


def test_confusion() -> None:
    rng = np.random.default_rng(0)
    task, codes = Category(), rng.integers(0, 5, 200)
    statistics = task.fit(np.array(list("abcde"), object)[codes])
    scores, present = rng.normal(size=(200, 5)), rng.random(200) < 0.8
    found = diagnostics.confusion(task, scores, codes, present, statistics)
    said = task.codes(scores, statistics)
    assert found["counts"] == reference.confusion_matrix(codes[present], said[present]).tolist()
    few = diagnostics.confusion(task, scores, np.where(codes == 4, -1, codes), present, statistics, limit=2)
    assert few["truths"][-2:] == ["(other)", "(unseen)"]
    assert np.sum(few["counts"]) == present.sum()
    assert np.sum(few["counts"][-1]) == (present & (codes == 4)).sum()
    json.dumps(found)


def test_reliability_counts_every_row() -> None:
    rng = np.random.default_rng(0)
    task, codes = Category(), rng.integers(0, 2, 90)
    statistics = task.fit(np.array(["n", "y"], object)[codes])
    scores, present = rng.normal(size=(90, 2)), np.ones(90, bool)
    table = diagnostics.reliability(task, scores, codes, present, statistics, bins=10)
    assert sum(b["count"] or 0 for b in table) == 90
    assert all(b["count"] == 0 for b in table[:4])
    right = sum((b["count"] or 0) * (b["accuracy"] or 0) for b in table)
    assert right / 90 == pytest.approx(task.metrics(scores, codes, present, statistics)["accuracy"])
    labels = Labels()
    cells, _ = labels.decode(pa.array([["a"], ["b"], ["a", "b"], []]))
    fitted = labels.fit(cells)
    values, given = labels.encode(cells, fitted)
    assert sum(b["count"] or 0 for b in diagnostics.reliability(labels, np.zeros((4, 2)), values, given, fitted)) == 8


def test_residuals() -> None:
    task, x = Number(), np.append(np.arange(50.0), np.nan)
    statistics = task.fit(x)
    values, present = task.encode(x, statistics)
    scores = ((x + 1 - statistics["mean"]) / statistics["scale"])[:, None]
    found = diagnostics.residuals(task, scores, values, present, statistics, points=10)
    assert len(found["rows"]) == 10
    assert found["rows"] == sorted(found["rows"])
    assert found["truth"] == pytest.approx([float(r) for r in found["rows"]])
    assert np.array(found["answer"]) - found["truth"] == pytest.approx(np.ones(10))
    assert sum(found["counts"]) == 50
    json.dumps(found)
