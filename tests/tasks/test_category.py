from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as reference
from torch.nn import functional as F

from unisono.core.errors import ConfigError, SchemaError
from unisono.tasks import measures
from unisono.tasks.base import decode_target, detect_task, tasks
from unisono.tasks.boolean import Boolean
from unisono.tasks.category import Category


@pytest.mark.parametrize(
    ("array", "classes"),
    [
        (pa.array([10, 2, 10, 2, 3], pa.int16()), [2, 3, 10]),
        (pa.array(["10", "2", "x"]), ["10", "2", "x"]),
        (pa.array(["10", "2", "9"]), ["2", "9", "10"]),
        (pa.array([0.5, -0.0, 0.0, float("nan"), 2.0]), [0.0, 0.5, 2.0]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([True, False]), [False, True]),
        (pa.array(["ö", "Zoë", "a b", ""]), ["", "Zoë", "a b", "ö"]),
    ],
)
def test_classes_come_back_in_their_order_and_type(array: pa.Array, classes: list[object]) -> None:
    task = Category()
    column = decode_target(task, array)
    statistics = task.fit(column.cells, column.type)
    written = task.decode_values(np.arange(len(classes)), statistics)
    assert written.to_pylist() == classes
    plain = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    assert written.type == plain
    values, present = task.encode(column.cells, statistics)
    assert [classes[v] for v, p in zip(values, present, strict=True) if p] == [x for x in array.to_pylist() if str(x) != "nan"]


def test_a_class_is_the_same_in_another_type() -> None:
    task = Category()
    statistics = task.fit(task.decode(pa.array([3, 4, 5]))[0], pa.int64())
    for array in (pa.array(["3", "5", "7"]), pa.array([3.0, 5.0, 7.0])):
        values, present = task.encode(task.decode(array)[0], statistics)
        assert values.tolist() == [0, 2, -1]
        assert present.all()


def test_an_unseen_class_is_an_error_without_loss() -> None:
    task = Category()
    statistics = task.fit(task.decode(pa.array(["a", "a", "b"]))[0])
    values, present = task.encode(task.decode(pa.array(["a", "z", None]))[0], statistics)
    assert values.tolist() == [0, -1, -1]
    assert present.tolist() == [True, True, False]
    scores = np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
    losses = task.loss(torch.tensor(scores), torch.as_tensor(values), torch.as_tensor(present), statistics)
    assert losses[1:].tolist() == [0.0, 0.0]
    found = task.metrics(scores, values, present, statistics)
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(float(losses[0]))
    assert task.worst(scores, values, present, statistics, 1).tolist() == [1]


def test_loss_is_cross_entropy_with_the_prior() -> None:
    task = Category(smoothing=0.1)
    statistics = task.fit(np.array(["a"] * 6 + ["b"] * 3 + ["c"], object))
    scores, codes = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    prior = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    wanted = F.cross_entropy(scores + prior.log(), codes, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(task.loss(scores, codes, torch.ones(5, dtype=torch.bool), statistics), wanted)


def test_metrics_agree_with_scikit_learn_on_the_written_columns() -> None:
    rng = np.random.default_rng(0)
    array = pa.array(rng.choice(["red", "green", "blue"], 120, p=[0.6, 0.3, 0.1]))
    task = Category()
    cells, _ = task.decode(array)
    statistics = task.fit(cells)
    values, present = task.encode(cells, statistics)
    scores = rng.normal(size=(120, 3)) + 2 * np.eye(3)[values]
    statistics |= task.calibrate(scores, values, present, statistics)
    columns = task.columns("t", scores, statistics)
    assert list(columns) == ["t", "t.probability", "t.probability.blue", "t.probability.green", "t.probability.red"]
    p = np.stack([columns[f"t.probability.{c}"].to_numpy() for c in ("blue", "green", "red")], 1)
    np.testing.assert_allclose(p.sum(1), 1)
    truth, said = array.to_pylist(), columns["t"].to_pylist()
    found = task.metrics(scores, values, present, statistics)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, said))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, p, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(reference.log_loss(truth, p))
    picked = p[np.arange(120), [("blue", "green", "red").index(c) for c in said]]
    assert columns["t.probability"].to_pylist() == picked.tolist()


def imbalanced(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A normal a class, centres 1.5 apart, shares 0.9, 0.08, 0.02; the scores are the exact log-likelihoods."""
    codes = rng.choice(3, n, p=[0.9, 0.08, 0.02])
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    x = centres[codes] + rng.normal(size=(n, 2))
    return -0.5 * ((x[:, None] - centres) ** 2).sum(-1), codes


def test_moving_the_decision_helps_rare_classes_and_leaves_probabilities_alone() -> None:
    rng = np.random.default_rng(0)
    scores, codes = imbalanced(rng, 4000)
    valid, test = slice(0, 2000), slice(2000, 4000)
    cells, present = np.array(["a", "b", "c"], object)[codes], np.ones(4000, bool)
    task, still = Category(balance="adjust"), Category()
    statistics = task.fit(cells[valid])
    moved = {**statistics, **task.calibrate(scores[valid], codes[valid], present[valid], statistics)}
    fixed = {**statistics, **still.calibrate(scores[valid], codes[valid], present[valid], statistics)}
    assert moved["strength"] > 0
    assert fixed["strength"] == 0
    a = task.metrics(scores[test], codes[test], present[test], moved)
    b = task.metrics(scores[test], codes[test], present[test], fixed)
    assert a["balanced_accuracy"] > b["balanced_accuracy"] + 0.1
    assert a["log_loss"] == b["log_loss"]
    assert a["ece"] < 0.03
    assert a["balanced_accuracy"] + 2 * a["accuracy"] > b["balanced_accuracy"] + 2 * b["accuracy"]
    assert a["macro_f1"] > b["macro_f1"]


def test_balanced_classes_are_never_moved() -> None:
    rng = np.random.default_rng(1)
    codes = rng.permutation(np.arange(600) % 3)
    task = Category()
    statistics = task.fit(np.array(["a", "b", "c"], object)[codes])
    assert task.calibrate(rng.normal(size=(600, 3)), codes, np.ones(600, bool), statistics)["strength"] == 0


def test_calibration_lowers_validation_loss_and_never_changes_the_most_probable_class() -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 4, 400)
    task, present = Category(), np.ones(400, bool)
    statistics = task.fit(np.array(list("abcd"), object)[codes])
    for scale in (0.2, 1.0, 8.0):
        scores = scale * (rng.normal(size=(400, 4)) + 1.5 * np.eye(4)[codes])
        after = {**statistics, **task.calibrate(scores, codes, present, statistics)}
        loss = [task.metrics(scores, codes, present, s)["log_loss"] for s in (statistics, after)]
        assert loss[1] <= loss[0]
        assert (task.codes(scores, statistics) == task.codes(scores, after)).all()
        if scale == 8.0:
            assert loss[1] < 0.5 * loss[0]
            assert task.metrics(scores, codes, present, after)["ece"] < 0.5 * task.metrics(scores, codes, present, statistics)["ece"]


def test_weights_have_mean_one_over_rows_and_favour_rare_classes() -> None:
    statistics = Category(balance="weights").fit(np.array(["a"] * 90 + ["b"] * 10, object))
    weights, counts = np.array(statistics["weights"]), np.array(statistics["counts"])
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] > 5 * weights[0]


def test_refusals() -> None:
    with pytest.raises(SchemaError, match="identifier"):
        Category().fit(np.array([f"id{i}" for i in range(50)], object))
    with pytest.raises(SchemaError, match="no classes"):
        Category().decode(pa.array([[1], [2]]))
    with pytest.raises(ConfigError, match="balance"):
        tasks.build("category(balance=most)")
    cells, bad = Category().decode(pa.array([1.0, float("inf"), float("nan"), None]))
    assert cells.tolist() == ["1", None, None, None]
    assert [row for row, _ in bad] == [1]


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (pa.array([1, 2, 3] * 20), "category"),
        (pa.array([1.0, 2.0, 3.0] * 20), "number"),
        (pa.array(list(range(60))), "number"),
        (pa.array([f"{i}.5" for i in range(60)]), "number"),
        (pa.array(["yes", "No", None, "no"]), "boolean"),
        (pa.array([0, 1, 1, 0]), "boolean"),
        (pa.array(["a", "b"]), "category"),
        (pa.array(["a|b", "b", "a|c", "c|b"]), "labels"),
        (pa.array(['["a"]', '["a", "b"]', "[]", '["b"]']), "labels"),
        (pa.array(["one, two", "three"]), "category"),
        (pa.chunked_array([["a"], ["b"]]), "category"),
    ],
)
def test_detection(array: pa.Array, word: str) -> None:
    assert detect_task(array, "t")[0] == word


def test_boolean_answers_in_the_words_of_the_column() -> None:
    task = Boolean()
    cells, bad = task.decode(pa.array(["Yes", "no", "NO", "yes", "Yes", None, "maybe", " no "]))
    assert [row for row, _ in bad] == [6]
    statistics = task.fit(cells)
    assert statistics["classes"] == [" no ", "Yes"] or statistics["classes"] == ["NO", "Yes"]
    values, present = task.encode(task.decode(pa.array([True, False, None]))[0], statistics)
    assert values.tolist() == [1, 0, -1]
    assert present.tolist() == [True, True, False]
    assert task.predict(np.array([[0.0, 5.0]]), statistics).to_pylist() == ["Yes"]
    whole = task.fit(task.decode(pa.array([0, 1, 1]))[0], pa.int64())
    assert task.columns("t", np.array([[5.0, 0.0]]), whole)["t"].type == pa.int64()
    assert list(task.columns("t", np.array([[5.0, 0.0]]), whole)) == ["t", "t.probability", "t.probability.0", "t.probability.1"]


def test_boolean_area_is_that_of_true() -> None:
    rng = np.random.default_rng(0)
    task = Boolean()
    truth = rng.random(80) < 0.3
    cells, _ = task.decode(pa.array(truth))
    statistics = task.fit(cells, pa.bool_())
    values, present = task.encode(cells, statistics)
    scores = rng.normal(size=(80, 2))
    area = task.metrics(scores, values, present, statistics)["auroc"]
    assert area == pytest.approx(reference.roc_auc_score(truth, scores[:, 1] - scores[:, 0]))
    assert measures.auroc(~truth, scores[:, 0] - scores[:, 1]) == pytest.approx(area)
