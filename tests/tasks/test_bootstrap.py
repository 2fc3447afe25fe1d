from __future__ import annotations

import numpy as np
import pytest

from unisono.tasks.bootstrap import paired_bootstrap, percentile_intervals


def test_interval_is_near_the_normal_one() -> None:
    x = np.random.default_rng(0).normal(3, 2, 400)
    low, high = percentile_intervals(lambda w: {"mean": w @ x / w.sum(1)}, 400, ["mean"], seed=1, replicates=2000)["mean"]
    error = 1.96 * x.std() / 20
    assert low == pytest.approx(x.mean() - error, abs=0.03)
    assert high == pytest.approx(x.mean() + error, abs=0.03)


def test_many_rows_are_drawn_in_chunks_that_do_not_change_their_number() -> None:
    sizes = []

    def statistic(rows: np.ndarray) -> dict[str, np.ndarray]:
        assert (rows.sum(1) == 300_000).all()
        sizes.append(len(rows))
        return {"x": np.zeros(len(rows))}

    percentile_intervals(statistic, 300_000, ["x"], replicates=20)
    assert sum(sizes) == 20
    assert max(sizes) < 10


def test_paired_comparison() -> None:
    rng = np.random.default_rng(0)
    b = rng.random(500) < 0.8
    better = b | (rng.random(500) < 0.3)
    found = paired_bootstrap(better, b)
    assert found.difference == pytest.approx(better.mean() - b.mean())
    assert 0 < found.low < found.difference < found.high
    assert found.p_value < 0.01
    assert found == paired_bootstrap(better, b)
    same = paired_bootstrap(b, b)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="same rows"):
        paired_bootstrap(b, b[1:])
