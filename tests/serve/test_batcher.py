from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from unisono.core.errors import ResourceError
from unisono.serve.batcher import Batcher


class Recorder:
    """Doubles numbers, and remembers what ran together; it can be held."""

    def __init__(self) -> None:
        self.batches: list[tuple[Hashable, list[Any]]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, kind: Hashable, contents: Sequence[Any]) -> list[Any]:
        self.go.wait(5)
        self.batches.append((kind, list(contents)))
        if "bad" in contents:
            raise ValueError("bad")
        return [2 * c for c in contents]


def test_jobs_that_wait_run_together_in_order_up_to_the_limit() -> None:
    run = Recorder()
    batcher = Batcher(run, rows=4, window=0.2)
    run.go.clear()
    answers = [batcher.submit("a", k) for k in range(9)]
    time.sleep(0.02)
    run.go.set()
    assert [a.result(5) for a in answers] == [2 * k for k in range(9)]
    assert [c for _, contents in run.batches for c in contents] == list(range(9))
    assert max(len(contents) for _, contents in run.batches) == 4
    assert len(run.batches) == 3
    batcher.stop(5)


def test_kinds_do_not_mix_and_a_large_job_is_a_batch_by_itself() -> None:
    run = Recorder()
    batcher = Batcher(run, rows=4, window=0.05)
    run.go.clear()
    jobs = [
        batcher.submit("hold", 0),
        batcher.submit("a", 1),
        batcher.submit("b", 2),
        batcher.submit("a", 3),
        batcher.submit("a", 9, rows=100),
    ]
    run.go.set()
    assert [j.result(5) for j in jobs] == [0, 2, 4, 6, 18]
    assert ("a", [1, 3]) in run.batches
    assert ("b", [2]) in run.batches
    assert ("a", [9]) in run.batches
    batcher.stop(5)


def test_one_bad_job_spoils_no_other() -> None:
    run = Recorder()
    batcher = Batcher(run, rows=8, window=0.2)
    jobs = [batcher.submit("a", c) for c in (1, "bad", 3)]
    assert jobs[0].result(5) == 2
    assert jobs[2].result(5) == 6
    with pytest.raises(ValueError, match="bad"):
        jobs[1].result(5)
    batcher.stop(5)


def test_a_lone_request_does_not_wait_and_expected_ones_are_waited_for() -> None:
    run, expected = Recorder(), [1]
    batcher = Batcher(run, rows=8, window=30.0, expected=lambda: expected[0])
    assert batcher.submit("a", 1).result(5) == 2
    expected[0] = 2
    first = batcher.submit("a", 1)
    time.sleep(0.05)
    assert not first.done()
    second = batcher.submit("a", 2)
    assert (first.result(5), second.result(5)) == (2, 4)
    assert run.batches == [("a", [1]), ("a", [1, 2])]
    batcher.stop(5)


def test_the_queue_is_bounded_and_a_cancelled_job_is_not_run() -> None:
    run = Recorder()
    batcher = Batcher(run, rows=1, window=0.0, queue=2)
    run.go.clear()
    running = batcher.submit("a", 0)
    while len(batcher):
        time.sleep(0.001)
    left, kept = batcher.submit("a", 1), batcher.submit("a", 2)
    with pytest.raises(ResourceError, match="2 requests are waiting"):
        batcher.submit("a", 3)
    assert left.cancel()
    run.go.set()
    assert (running.result(5), kept.result(5)) == (0, 4)
    assert ("a", [1]) not in run.batches
    batcher.stop(5)


def test_stopping_finishes_what_waits_and_takes_nothing_more() -> None:
    run, told = Recorder(), []
    batcher = Batcher(run, rows=2, window=0.5, ran=lambda rows, seconds: told.append((rows, seconds >= 0)))
    jobs = [batcher.submit("a", k) for k in range(5)]
    batcher.stop(5)
    assert [j.result(0) for j in jobs] == [0, 2, 4, 6, 8]
    assert sum(rows for rows, _ in told) == 5
    with pytest.raises(ResourceError, match="stopping"):
        batcher.submit("a", 1)
