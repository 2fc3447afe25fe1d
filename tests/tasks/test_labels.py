from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as reference
from torch.nn import functional as F

from unisono.core.errors import SchemaError
from unisono.objectives.losses import binary_cross_entropy
from unisono.tasks.labels import Labels


def test_reads_lists_and_text() -> None:
    task = Labels()
    cells, bad = task.decode(pa.array(["a|b", " a ; c,d ", '["x, y", 3]', "", None, "[odd"]))
    assert cells.tolist() == [("a", "b"), ("a", "c", "d"), ("x, y", "3"), (), None, ("[odd",)]
    assert not bad
    assert Labels(separator=" ").decode(pa.array(["a b,c"]))[0].tolist() == [("a", "b,c")]
    assert task.decode(pa.array([["a", "a", None], [], None]))[0].tolist() == [("a",), (), None]
    assert task.decode(pa.array([[["a"]], None]))[1][0][0] == 0
    with pytest.raises(SchemaError, match="no lists"):
        task.decode(pa.array([1.5]))


def planted(n: int = 300, seed: int = 0) -> tuple[Labels, dict, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < np.array([0.5, 0.2, 0.05])
    cells = np.empty(n, object)
    for row in range(n):
        cells[row] = tuple(np.array(["a", "b", "c"])[truth[row]])
    task = Labels()
    statistics = task.fit(cells)
    values, present = task.encode(cells, statistics)
    return task, statistics, values, present, 3 * (truth - 0.5) + rng.normal(size=(n, 3)) * 2


def test_metrics_agree_with_scikit_learn() -> None:
    task, statistics, values, present, scores = planted()
    statistics = {**statistics, **task.calibrate(scores, values, present, statistics)}
    found, p, truth = task.metrics(scores, values, present, statistics), task.probabilities(scores, statistics), values[:, :3]
    said = (p >= np.array(statistics["threshold"])).astype(int)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, p, average="macro"))
    assert found["map"] == pytest.approx(reference.average_precision_score(truth, p, average="macro"))
    assert found["log_loss"] == pytest.approx(np.mean([reference.log_loss(truth[:, i], p[:, i]) for i in range(3)]))
    columns = task.columns("t", scores, statistics)
    assert list(columns) == ["t", "t.probability.a", "t.probability.b", "t.probability.c"]
    assert columns["t"].type == pa.list_(pa.string())
    assert columns["t"].to_pylist() == [[c for c, s in zip("abc", row, strict=True) if s] for row in said]


def test_calibration_lowers_loss_and_thresholds_raise_f1() -> None:
    task, statistics, values, present, scores = planted(seed=1)
    after = {**statistics, **task.calibrate(5 * scores, values, present, statistics)}
    raw, fitted = (task.metrics(5 * scores, values, present, s) for s in (statistics, after))
    assert fitted["log_loss"] < raw["log_loss"]
    assert fitted["macro_f1"] >= raw["macro_f1"]
    assert fitted["auroc"] == pytest.approx(raw["auroc"])


def test_unseen_labels_make_an_answer_wrong_and_cost_nothing() -> None:
    task = Labels()
    cells = np.empty(3, object)
    cells[:] = [("a",), ("b",), ("a", "b")]
    statistics = task.fit(cells)
    other = np.empty(2, object)
    other[:] = [("a",), ("a", "new")]
    values, present = task.encode(other, statistics)
    assert values.tolist() == [[1, 0, 0], [1, 0, 1]]
    scores = torch.tensor([[9.0, -9.0], [9.0, -9.0]])
    losses = task.loss(scores, torch.as_tensor(values), torch.as_tensor(present), statistics)
    assert losses[0] == losses[1]
    assert task.metrics(scores.numpy(), values, present, statistics)["accuracy"] == 0.5
    assert task.worst(scores.numpy(), values, present, statistics, 1).tolist() == [1]


def test_loss_agrees_with_torch_and_the_asymmetric_equation() -> None:
    torch.manual_seed(0)
    scores, truth, keep = torch.randn(20, 4), (torch.rand(20, 4) < 0.3).float(), torch.ones(20, dtype=torch.bool)
    wanted = F.binary_cross_entropy_with_logits(scores, truth, reduction="none").mean(1)
    torch.testing.assert_close(binary_cross_entropy(scores, truth, keep), wanted)
    p = torch.sigmoid(scores)
    asymmetric = -(truth * p.log() + (1 - truth) * p**2 * (1 - p).log()).mean(1)
    torch.testing.assert_close(binary_cross_entropy(scores, truth, keep, focus=2.0), asymmetric)
