"""Plans are arithmetic: how many steps, of how many rows, in what time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.core.errors import BudgetError, ConfigError, ModelFolderError
from unisono.train.budget import Budget, Timing, TrainPlan, choose_batch, default_batch, plan_budget, plan_free, read_plan, say_seconds
from unisono.train.settings import TrainSettings

FIXED = {"precision": "float32", "seed": 0, "rows": 640}


@given(st.floats(0.001, 5.0), st.floats(0.0, 20.0), st.floats(1.0, 4000.0), st.floats(0.0, 30.0), st.floats(0.0, 50.0))
def test_what_is_planned_fits_or_is_refused_with_a_budget_that_would_do(
    step: float, validation: float, total: float, spent: float, reserve: float
) -> None:
    def plan(seconds: float) -> TrainPlan:
        return plan_budget(TrainSettings(), Timing(64, step), validation, Budget(seconds, 0.0, reserve), spent, 10, **FIXED)

    try:
        made = plan(total)
    except BudgetError as error:
        found = re.search(r"--budget (\d+)s", str(error))
        assert found is not None and float(found[1]) > total
        assert plan(float(found[1])).steps >= 20
        return
    validations = -(-made.steps // made.validate_every)
    assert spent + made.steps * step + validations * validation + reserve <= total + 1e-6


@given(st.integers(1, 100_000))
def test_without_a_budget_the_epochs_are_sensible(rows: int) -> None:
    batch = default_batch(rows)
    plan = plan_free(TrainSettings(), -(-rows // batch), batch=batch, **FIXED)
    assert 16 <= batch <= 128 and plan.epochs >= 15 and (plan.epochs <= 60 or plan.steps < 500 + plan.steps_per_epoch)
    assert plan.steps >= 500 and plan.steps / plan.validate_every <= 100


def test_small_tables_are_learned_more_slowly() -> None:
    assert TrainSettings().highest_lr(100_000) == TrainSettings().highest_lr(1200) == 1e-3
    assert TrainSettings().highest_lr(300) == pytest.approx(5e-4)
    assert TrainSettings().highest_lr(1) == pytest.approx(3e-4)
    assert TrainSettings(lr=0.02).highest_lr(10) == 0.02


def test_what_is_asked_for_is_done() -> None:
    plan = plan_free(TrainSettings(epochs=3, validate_every=7, patience=2), 10, batch=64, **FIXED)
    assert (plan.steps, plan.validate_every, plan.patience) == (30, 7, 2)
    assert plan_free(TrainSettings(epochs=3, steps=8), 10, batch=64, **FIXED).steps == 8
    bounded = plan_budget(TrainSettings(epochs=3), Timing(64, 0.01), 0.1, Budget(1000, 0), 0.0, 10, **FIXED)
    assert (bounded.steps, bounded.patience) == (30, 0)
    every = plan_budget(TrainSettings(validate_every=1), Timing(64, 0.01), 0.1, Budget(100, 0), 0.0, 10, **FIXED)
    assert every.validate_every == 1 and every.steps * 0.11 <= 88


def test_the_larger_batch_is_taken_only_when_the_smaller_leaves_too_few_epochs() -> None:
    timings = [Timing(32, 0.1), Timing(64, 0.15)]
    assert choose_batch(timings, 320, 100.0).batch == 32
    assert choose_batch(timings, 3200, 100.0).batch == 64


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    for text in ("{", "{}", '{"plan": {"steps": 3}}', "[]"):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(ModelFolderError, match="damaged"):
            read_plan(tmp_path)


def test_times_are_said_as_people_say_them() -> None:
    assert [say_seconds(s) for s in (2.25, 45, 60, 125, 3785)] == ["2.2 s", "45 s", "1 min", "2 min 5 s", "1 h 3 min"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"ephocs": 3}, "did you mean 'epochs'"),
        ({"lr": -1}, "train.lr"),
        ({"betas": [0.9, 1.5]}, "train.betas"),
        ({"schedule": "step"}, "train.schedule"),
        ({"precision": "fp8"}, "train.precision"),
        ({"steps": 0}, "train.steps"),
        ([1], "mapping"),
    ],
)
def test_wrong_settings_are_refused_by_name(section: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings.read(section)  # type: ignore[arg-type]


def test_settings_read_back_to_the_same() -> None:
    made = TrainSettings.read({"lr": "1e-3", "epochs": 4, "betas": [0.9, 0.95], "optimiser": {"type": "sgd", "momentum": 0.8}})
    assert made.lr == 1e-3 and made.betas == (0.9, 0.95) and TrainSettings.read(made.as_dict()) == made
