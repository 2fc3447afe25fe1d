from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from unisono.tasks.calibration import binary_temperature, decision_strength, minimise, temperature
from unisono.tasks.measures import log_softmax


def test_search_finds_the_minimum() -> None:
    assert minimise(lambda x: (x - 1.3) ** 2, -5, 5) == pytest.approx(1.3, abs=1e-6)
    assert minimise(lambda x: x, -5, 5) == pytest.approx(-5, abs=1e-6)


def test_temperature_is_the_one_the_logits_were_scaled_by() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    codes = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    assert temperature(4 * logits, codes) == pytest.approx(4, rel=0.05)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits[:, 0]))
    assert binary_temperature(logits[:, 0] / 2, truth) == pytest.approx(0.5, rel=0.05)


def test_temperature_minimises_the_penalised_likelihood() -> None:
    rng = np.random.default_rng(1)
    logits, codes = 6 * rng.normal(size=(60, 4)), rng.integers(0, 4, 60)

    def by_hand(log_t: float) -> float:
        return float(-log_softmax(logits / np.exp(log_t))[np.arange(60), codes].mean() + log_t**2 / 60)

    wanted = minimize_scalar(by_hand, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-10})
    assert np.log(temperature(logits, codes)) == pytest.approx(wanted.x, abs=1e-5)


@given(st.integers(0, 1000), st.integers(0, 30), st.floats(0.01, 1000))
@settings(max_examples=40, deadline=None)
def test_temperature_never_raises_the_loss(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, codes = scale * rng.normal(size=(n, 3)), rng.integers(0, 3, n)
    t = temperature(logits, codes)
    assert 0.05 <= t <= 20
    if n:
        before, after = (-log_softmax(logits / x)[np.arange(n), codes].mean() for x in (1.0, t))
        assert after <= before


def test_few_rows_that_are_all_right_do_not_make_certain() -> None:
    logits = 2 * np.eye(3)
    assert temperature(logits, np.arange(3)) > 0.3


def test_decisions_are_not_moved_where_answers_are_certain() -> None:
    prior = np.log([0.9, 0.1])
    certain = log_softmax(np.array([[30.0, 0.0]] * 9 + [[0.0, 30.0]]))
    assert decision_strength(certain, prior) == 0
    assert decision_strength(np.zeros((0, 2)), prior) == 0
    unsure = log_softmax(prior + np.array([[0.0, 0.0]] * 6 + [[0.0, 2.0]] * 4))
    assert decision_strength(unsure, prior) > 0
