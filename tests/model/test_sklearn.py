"""The habits of scikit-learn: clone, cross-validation, pipelines, parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import unisono
from tests.model.tables import SMALL
from unisono.core.errors import UserError

SETTINGS = (*SMALL, "train.steps=30")


def blobs(n: int = 120, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return rng.normal(size=(n, 4)) + 3 * np.eye(classes, 4)[y], y


def model(**params: object) -> unisono.Model:
    return unisono.Model(**{"settings": SETTINGS, "task": "category", **params})  # type: ignore[arg-type]


def test_arrays_in_arrays_out_in_the_order_of_classes() -> None:
    x, y = blobs()
    labels = np.array(["zebra", "ant", "mouse"])[y]
    fitted = model().fit(x, labels)
    assert fitted.classes_.tolist() == sorted(set(labels))
    p = fitted.predict_proba(x)
    assert p.shape == (120, 3)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    answer = fitted.predict(x)
    assert isinstance(answer, np.ndarray)
    assert (answer == fitted.classes_[p.argmax(1)]).mean() > 0.95
    assert (answer == labels).mean() > 0.9
    assert fitted.score(x, labels) == pytest.approx((answer == labels).mean())
    assert fitted.n_features_in_ == 4


def test_integer_and_boolean_labels_come_back_in_kind() -> None:
    x, y = blobs(classes=2)
    fitted = model().fit(x, y)
    answer = fitted.predict(x)
    assert answer.dtype.kind in "iu"
    assert set(answer) <= {0, 1}
    assert (answer == y).mean() > 0.9
    truths = model(task=None).fit(x, y.astype(bool)).predict(x)
    assert truths.dtype == bool
    assert (truths == y.astype(bool)).mean() > 0.9


def test_a_data_frame_of_any_columns() -> None:
    x, y = blobs(classes=2)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(note=np.where(y == 1, "sun", "rain"))
    fitted = model().fit(frame, pd.Series(np.where(y == 1, "yes", "no"), index=np.arange(120) + 7))
    assert (fitted.predict(frame) == np.where(y == 1, "yes", "no")).mean() > 0.95
    assert len(fitted.predict(frame.iloc[5:9])) == 4


def test_clone_and_parameters() -> None:
    first = model(seed=3)
    copied = clone(first)
    assert copied is not first
    assert copied.get_params() == first.get_params()
    assert set(first.get_params()) >= {"recipe", "settings", "seed", "budget", "target", "task", "columns", "options"}
    assert copied.set_params(seed=5) is copied
    assert copied.seed == 5
    assert first.seed == 3
    with pytest.raises(UserError, match="no parameter"):
        first.set_params(depth=3)


def test_cross_validation_grid_search_and_pipelines() -> None:
    x, y = blobs(90)
    assert cross_val_score(model(), x, y, cv=3).mean() > 0.8
    pipe = make_pipeline(StandardScaler(), model())
    assert pipe.fit(x, y).score(x, y) > 0.85
    assert pipe.predict_proba(x).shape == (90, 3)
    assert cross_val_score(model(), x, y, cv=2, scoring="neg_log_loss").mean() > -1.0
    search = GridSearchCV(model(), {"seed": [0, 1]}, cv=2, refit=False).fit(x, y)
    assert search.best_params_["seed"] in {0, 1}


def test_numbers_are_regressed() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 3))
    y = 5 + 2 * x[:, 0] + 0.2 * rng.normal(size=160)
    fitted = model(task="number", settings=(*SMALL, "train.steps=120")).fit(x, y)
    assert fitted.predict(x).shape == (160,)
    assert fitted.score(x, y) > 0.8
    assert is_regressor(fitted)
    assert not is_classifier(fitted)
    with pytest.raises(UserError, match="predict_proba"):
        fitted.predict_proba(x)


def test_kinds_are_known_and_unfitted_models_say_so() -> None:
    assert is_classifier(model())
    assert not is_classifier(model(task="number"))
    with pytest.raises((UserError, NotFittedError), match="not fitted"):
        model().predict(np.zeros((2, 3)))


def test_features_and_targets_are_left_as_they_are() -> None:
    x, y = blobs(60)
    kept_x, kept_y = x.copy(), y.copy()
    model().fit(x, y).predict(x)
    np.testing.assert_array_equal(x, kept_x)
    np.testing.assert_array_equal(y, kept_y)


def test_what_does_not_fit_together_is_refused() -> None:
    x, y = blobs(60)
    with pytest.raises(UserError, match="60 rows of features, but 59 targets"):
        model().fit(x, y[:-1])
    with pytest.raises(UserError, match="shape"):
        model().fit(x[:, 0], y)
