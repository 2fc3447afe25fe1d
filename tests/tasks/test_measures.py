from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from unisono.tasks import measures


def case(seed: int, n: int = 200, k: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)).round(1)
    logits[np.arange(n), truth] += 1
    return truth, logits, np.exp(measures.log_softmax(logits))


@pytest.mark.parametrize("seed", range(3))
def test_classification_agrees_with_scikit_learn(seed: int) -> None:
    truth, logits, p = case(seed)
    said = p.argmax(1)
    assert measures.accuracy(truth, said) == pytest.approx(reference.accuracy_score(truth, said))
    assert measures.balanced_accuracy(truth, said, 4) == pytest.approx(reference.balanced_accuracy_score(truth, said))
    assert measures.macro_f1(truth, said, 4) == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert measures.class_auroc(truth, p) == pytest.approx(reference.roc_auc_score(truth, p, multi_class="ovr"))
    loss = -measures.log_softmax(logits)[np.arange(len(truth)), truth].mean()
    assert loss == pytest.approx(reference.log_loss(truth, p))


def test_unseen_classes_count_as_one_more_class() -> None:
    truth, said = np.array([0, 0, 1, -1, -1]), np.array([0, 1, 1, 0, 1])
    assert measures.accuracy(truth, said) == pytest.approx(0.4)
    recall = reference.recall_score(truth, said, labels=[-1, 0, 1], average="macro")
    assert measures.balanced_accuracy(truth, said, 3) == pytest.approx(recall)
    assert measures.macro_f1(truth, said, 3) == pytest.approx(reference.f1_score(truth, said, average="macro", zero_division=0))


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_ranking_agrees_with_scikit_learn(seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(n) < 0.4, rng.integers(0, levels, n).astype(float)
    area, precision = measures.auroc(positive, scores), measures.average_precision(positive, scores)
    if positive.all() or not positive.any():
        assert math.isnan(area)
    else:
        assert area == pytest.approx(reference.roc_auc_score(positive, scores))
    if positive.any():
        assert precision == pytest.approx(reference.average_precision_score(positive, scores))
    else:
        assert math.isnan(precision)


def test_regression_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(1e6, 3, 100)
    said = truth + rng.normal(0, 1, 100)
    assert measures.mae(truth, said) == pytest.approx(reference.mean_absolute_error(truth, said))
    assert measures.rmse(truth, said) == pytest.approx(reference.root_mean_squared_error(truth, said))
    assert measures.r2(truth, said) == pytest.approx(reference.r2_score(truth, said))


def test_row_weights_equal_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    truth, _, p = case(3, 30, 3)
    times = rng.integers(0, 3, 30)
    again, w = np.repeat(np.arange(30), times), times[None].astype(float)
    said, number = p.argmax(1), rng.normal(size=30)
    pairs = [
        (measures.accuracy(truth, said, w), measures.accuracy(truth[again], said[again])),
        (measures.balanced_accuracy(truth, said, 3, w), measures.balanced_accuracy(truth[again], said[again], 3)),
        (measures.macro_f1(truth, said, 3, w), measures.macro_f1(truth[again], said[again], 3)),
        (measures.auroc(truth == 0, p[:, 0].round(1), w), measures.auroc(truth[again] == 0, p[again, 0].round(1))),
        (measures.average_precision(truth == 0, p[:, 0].round(1), w), measures.average_precision(truth[again] == 0, p[again, 0].round(1))),
        (measures.r2(truth, number, w), measures.r2(truth[again], number[again])),
        (measures.rmse(truth, number, w), measures.rmse(truth[again], number[again])),
    ]
    for weighted, repeated in pairs:
        assert weighted[0] == pytest.approx(repeated)


def test_calibration_error_by_hand() -> None:
    sure, right = np.array([0.95, 0.95, 0.55, 1.0, 0.0]), np.array([1, 0, 1, 1, 0])
    # Bins of a fifteenth: (0.55), (0.95, 0.95, 1.0), (0.0).
    wanted = (1 * abs(0.55 - 1) + 3 * abs(2.9 / 3 - 2 / 3) + 0) / 5
    assert measures.ece(sure, right) == pytest.approx(wanted)


@pytest.mark.filterwarnings("error")
def test_nothing_defined_is_nan() -> None:
    none, one = np.zeros(0, np.int64), np.zeros(1, np.int64)
    for value in (
        measures.accuracy(none, none),
        measures.balanced_accuracy(none, none, 2),
        measures.macro_f1(none, none, 2),
        measures.auroc(none, none),
        measures.auroc(one == 0, one),
        measures.average_precision(none, none),
        measures.ece(none, none),
        measures.r2(none, none),
        measures.r2(one, one + 1),
        measures.rmse(none, none),
        measures.class_auroc(one, np.ones((1, 3)) / 3),
    ):
        assert math.isnan(value)


def test_softmax_of_huge_scores() -> None:
    assert measures.log_softmax(np.array([[1e300, 0.0]])).tolist() == [[0.0, -1e300]]
    assert measures.log_sigmoid(np.array([1e300, -1e300])).tolist() == [0.0, -1e300]
