from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as reference
from torch.nn import functional as F

from unisono.core.errors import SchemaError
from unisono.objectives import losses
from unisono.tasks.number import Number


def test_reads_numbers_and_numbers_as_text() -> None:
    task = Number()
    cells, bad = task.decode(pa.array(["1", " 2.5 ", "", "x", None, "inf", "nan", "1e3", "1_0"]))
    np.testing.assert_array_equal(cells, [1, 2.5, np.nan, np.nan, np.nan, np.nan, np.nan, 1000, np.nan])
    assert [row for row, _ in bad] == [3, 5, 8]
    for array in (pa.array([1, None, 3], pa.int64()), pa.array([True, None, False]), pa.array([1.0, float("nan"), float("-inf")])):
        cells, bad = task.decode(array)
        assert np.isnan(cells[1])
        assert len(bad) == (1 if pa.types.is_floating(array.type) else 0)
    with pytest.raises(SchemaError, match="no numbers"):
        task.decode(pa.array([[1.0]]))


def test_scale_is_that_of_the_rows_and_hardly_that_of_an_outlier() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(50, 4, 1000)
    statistics = Number().fit(x)
    assert statistics["mean"] == pytest.approx(x.mean())
    assert statistics["scale"] == pytest.approx(x.std())
    with_outlier = Number().fit(np.append(x, 1e9))
    assert with_outlier["scale"] == pytest.approx(x.std(), rel=0.02)
    assert with_outlier["maximum"] == 1e9
    mostly_zero = Number().fit(np.append(np.zeros(90), np.arange(10.0)))
    assert mostly_zero["scale"] > 0


@pytest.mark.parametrize("cells", [np.array([1.7e308, -1.7e308]), np.array([1.0, 1.0 + 2e-16])])
def test_refuses_a_scale_that_is_no_number(cells: np.ndarray) -> None:
    with pytest.raises(SchemaError, match=r"large or too close|same target"), np.errstate(all="ignore"):
        Number().fit(cells)


def test_losses_agree_with_torch() -> None:
    torch.manual_seed(0)
    scores, values, keep = torch.randn(50, 2) * torch.tensor([3.0, 1.0]), torch.randn(50), torch.ones(50, dtype=torch.bool)
    wanted = F.huber_loss(scores[:, 0], values, reduction="none", delta=1.5)
    torch.testing.assert_close(losses.huber(scores[:, 0], values, keep, delta=1.5), wanted)
    torch.testing.assert_close(losses.squared(scores[:, 0], values, keep), 0.5 * F.mse_loss(scores[:, 0], values, reduction="none"))
    wanted = F.gaussian_nll_loss(scores[:, 0], values, scores[:, 1].exp(), reduction="none", eps=1e-12)
    torch.testing.assert_close(losses.gaussian(scores, values, keep), wanted)


def test_metrics_are_in_the_columns_units() -> None:
    rng = np.random.default_rng(0)
    task, x = Number(), rng.normal(2000, 30, 200)
    statistics = task.fit(x)
    values, present = task.encode(x, statistics)
    scores = (values + rng.normal(0, 0.2, 200))[:, None]
    said = task.columns("t", scores, statistics)["t"].to_numpy()
    found = task.metrics(scores, values, present, statistics)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(x, said))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(x, said))
    assert found["r2"] == pytest.approx(reference.r2_score(x, said))


def test_half_widths_cover_new_rows() -> None:
    rng = np.random.default_rng(0)
    task, x = Number(), rng.normal(10, 2, 4000)
    statistics = task.fit(x)
    values, present = task.encode(x, statistics)
    scores = (values + rng.normal(0, 0.5, 4000))[:, None]
    fitted = task.calibrate(scores[:2000], values[:2000], present[:2000], statistics)
    error = np.abs(task.predict(scores[2000:], statistics).to_numpy() - x[2000:])
    for level, half_width in fitted["half_widths"].items():
        assert (error <= half_width).mean() == pytest.approx(float(level), abs=0.025)
    assert fitted["spread"] == pytest.approx(1.0, rel=0.05)
