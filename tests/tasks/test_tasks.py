"""What holds for every registered task."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import SchemaError
from unisono.core.schema import Target
from unisono.tasks.base import METRICS, build_task, decode_target, detect_task, tasks, to_json

COLUMNS: dict[str, pa.Array] = {
    "category": pa.array([["a", "b", "c", None][i % 4] for i in range(40)]),
    "boolean": pa.array([[True, False, None][i % 3] for i in range(40)]),
    "number": pa.array([None if i % 5 == 0 else i * 1.5 for i in range(40)]),
    "labels": pa.array([[["x", "y"], ["y"], None, [], ["x", "z"]][i % 5] for i in range(40)]),
}
WORDS = sorted(COLUMNS)


def fitted(word: str, **settings: Any) -> tuple[Any, dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
    task = tasks.build({"type": word, **settings})
    column = decode_target(task, COLUMNS[word])
    statistics = task.fit(column.cells, column.type)
    values, present = task.encode(column.cells, statistics)
    width = task.head(8, statistics)(torch.zeros(1, 8)).shape[1]
    scores = np.random.default_rng(0).normal(size=(len(values), width))
    return task, statistics, values, present, scores


def test_every_task_is_here() -> None:
    assert sorted(tasks.entries) == WORDS


@pytest.mark.parametrize("word", WORDS)
def test_detected_by_its_own_column(word: str) -> None:
    found, reason = detect_task(COLUMNS[word], "t")
    assert found == word
    assert reason


@pytest.mark.parametrize("word", WORDS)
def test_statistics_are_json_and_rebuild_the_task(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    statistics |= task.calibrate(scores, values, present, statistics)
    again = json.loads(json.dumps(statistics, allow_nan=False))
    other = build_task(Target("t", word, statistics=again))
    assert other.metrics(scores, values, present, again) == task.metrics(scores, values, present, statistics)
    assert {k: v.to_pylist() for k, v in other.columns("t", scores, again).items()} == {
        k: v.to_pylist() for k, v in task.columns("t", scores, statistics).items()
    }


@pytest.mark.parametrize("word", WORDS)
def test_decoding_values_gives_the_cells_back(word: str) -> None:
    task, statistics, values, present, _ = fitted(word)
    back, given_ = task.decode_values(values, statistics).to_pylist(), COLUMNS[word].to_pylist()
    rows = np.flatnonzero(present)
    assert present.tolist() == [x is not None for x in given_]
    for row in rows:
        assert back[row] == (pytest.approx(given_[row]) if word == "number" else given_[row])


@pytest.mark.parametrize("word", WORDS)
def test_rows_without_a_target_change_nothing(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    kept = present
    assert task.metrics(scores, values, present, statistics) == task.metrics(scores[kept], values[kept], present[kept], statistics)
    assert task.calibrate(scores, values, present, statistics) == task.calibrate(scores[kept], values[kept], present[kept], statistics)
    assert task.intervals(scores, values, present, statistics, replicates=20) == task.intervals(
        scores[kept], values[kept], present[kept], statistics, replicates=20
    )
    cells = decode_target(task, COLUMNS[word]).cells
    assert task.fit(cells[kept], COLUMNS[word].type) == task.fit(cells, COLUMNS[word].type)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("junk", [0.0, float("inf"), float("nan"), 1e30])
def test_a_row_without_a_target_has_no_loss_and_no_gradient(word: str, junk: float) -> None:
    task, statistics, values, present, scores = fitted(word)
    s = torch.tensor(np.where(present[:, None], scores, junk), dtype=torch.float32, requires_grad=True)
    losses = task.loss(s, torch.as_tensor(values), torch.as_tensor(present), statistics)
    assert losses.shape == (len(values),)
    assert losses.dtype == torch.float32
    assert not losses[~torch.as_tensor(present)].any()
    losses.sum().backward()
    assert s.grad is not None
    assert torch.isfinite(s.grad).all()
    assert not s.grad[~torch.as_tensor(present)].any()
    assert s.grad[torch.as_tensor(present)].any(1).all()


@pytest.mark.parametrize("word", WORDS)
def test_losses_of_half_and_huge_scores_are_finite_float32(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    for s in (torch.tensor(scores).bfloat16(), torch.tensor(scores).float() * 1e6):
        losses = task.loss(s, torch.as_tensor(values), torch.as_tensor(present), statistics)
        assert losses.dtype == torch.float32
        assert torch.isfinite(losses).all()


@pytest.mark.parametrize(
    ("word", "chosen"),
    [
        *((word, {}) for word in WORDS),
        ("category", {"smoothing": 0.1, "balance": "weights"}),
        ("number", {"loss": "squared"}),
        ("number", {"loss": "gaussian"}),
        ("labels", {"focus": 2.0, "smoothing": 0.1}),
    ],
)
def test_gradients(word: str, chosen: dict[str, Any]) -> None:
    task, statistics, values, present, scores = fitted(word, **chosen)
    s = torch.tensor(scores[:6], requires_grad=True)
    v, p = torch.as_tensor(values[:6]), torch.as_tensor(present[:6])
    assert torch.autograd.gradcheck(lambda x: task.loss(x, v, p, statistics), (s,))


@pytest.mark.parametrize("word", WORDS)
def test_a_new_head_answers_the_constant(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    zero = torch.zeros(scores.shape)
    loss = task.loss(zero, torch.as_tensor(values), torch.as_tensor(present), statistics).sum() / int(present.sum())
    assert float(loss) == pytest.approx(task.constant_loss(statistics), rel=0.02)
    torch.manual_seed(0)
    head = task.head(64, statistics)
    assert head(torch.randn(100, 64)).abs().max() < 1
    head(torch.randn(4, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


@pytest.mark.parametrize("word", WORDS)
def test_metrics_have_known_names_in_order_and_intervals_hold_them(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    found = task.metrics(scores, values, present, statistics)
    assert list(found) == [m for m in METRICS if m in found]
    assert task.objective_metric[0] in found
    intervals = task.intervals(scores, values, present, statistics, replicates=300)
    assert tuple(intervals) == task.interval_metrics
    assert intervals == task.intervals(scores, values, present, statistics, replicates=300)
    for name, (low, high) in intervals.items():
        assert low <= found[name] <= high


@pytest.mark.parametrize("word", WORDS)
def test_resampling_each_row_once_gives_the_metrics(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    s, v = scores[present], values[present]
    found, once = task.metrics(scores, values, present, statistics), task.resampled(s, v, statistics, np.ones((2, len(s))))
    for name in task.interval_metrics:
        assert once[name].tolist() == pytest.approx([found[name]] * 2)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.filterwarnings("error")
@given(n=st.integers(0, 3), seed=st.integers(0, 1000), absent=st.booleans())
@settings(max_examples=15, deadline=None)
def test_few_rows_never_crash(word: str, n: int, seed: int, absent: bool) -> None:
    task, statistics, values, present, scores = fitted(word)
    rows = np.random.default_rng(seed).choice(len(values), n, replace=False)
    s, v, p = scores[rows], values[rows], present[rows] & (not absent)
    found = to_json(task.metrics(s, v, p, statistics))
    assert all(x is None or math.isfinite(x) for x in found.values())
    if not p.any():
        assert set(found.values()) == {None}
    json.dumps(task.calibrate(s, v, p, statistics), allow_nan=False)
    assert len(task.worst(s, v, p, statistics, 2)) == min(2, int(p.sum()))
    assert all(len(c) == n for c in task.columns("t", s, statistics).values())
    intervals = task.intervals(s, v, p, statistics, replicates=10)
    assert set(intervals) == set(task.interval_metrics)


@pytest.mark.parametrize("word", WORDS)
def test_all_missing_and_one_value_are_refused(word: str) -> None:
    task, column = tasks.build(word), COLUMNS[word]
    for cells, match in (
        (task.decode(pa.nulls(5, column.type))[0], "no training row"),
        (task.decode(column.drop_null().slice(0, 1))[0], "only one"),
        (np.repeat(task.decode(column.drop_null().slice(0, 1))[0], 5), "the same target"),
    ):
        with pytest.raises(SchemaError, match=match):
            task.fit(cells, column.type)


@pytest.mark.parametrize("word", WORDS)
def test_worst_comes_first(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    places = task.worst(scores, values, present, statistics, 5)
    assert present[places].all()
    losses = task.row_losses(scores, values, statistics)
    assert losses[places].tolist() == sorted(losses[present], reverse=True)[:5]


@pytest.mark.parametrize("word", WORDS)
def test_inputs_are_left_alone(word: str) -> None:
    task, statistics, values, present, scores = fitted(word)
    before = [scores.copy(), values.copy(), present.copy(), json.dumps(statistics)]
    task.calibrate(scores, values, present, statistics)
    task.metrics(scores, values, present, statistics)
    task.columns("t", scores, statistics)
    assert np.array_equal(before[0], scores)
    assert np.array_equal(before[1], values)
    assert np.array_equal(before[2], present)
    assert before[3] == json.dumps(statistics)


def test_detection_refuses_what_no_task_reads() -> None:
    with pytest.raises(SchemaError, match="no task fits"):
        detect_task(pa.array([b"x", b"y"]), "t")
    with pytest.raises(SchemaError, match="every cell is missing"):
        detect_task(pa.array([None, None], pa.string()), "t")
