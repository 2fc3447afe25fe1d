"""Batches made in advance by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from unisono.model.learner import prefetch


def count(made: list[int], stop: int, error: int = -1) -> Iterator[int]:
    for i in range(stop):
        if i == error:
            raise ValueError(f"batch {i}")
        made.append(i)
        yield i


def threads() -> int:
    return sum(t.name == "unisono-batches" for t in threading.enumerate())


def test_order_is_kept_and_the_thread_ends() -> None:
    assert list(prefetch(count([], 20))) == list(range(20))
    assert threads() == 0


def test_no_more_is_made_in_advance_than_asked() -> None:
    made: list[int] = []
    batches = prefetch(count(made, 100), ahead=2)
    assert not made
    assert next(batches) == 0
    for _ in range(50):
        time.sleep(0.002)
    assert len(made) <= 4
    batches.close()
    assert threads() == 0 and len(made) <= 5


def test_an_error_comes_where_its_batch_would() -> None:
    batches = prefetch(count([], 9, error=3))
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="batch 3"):
        next(batches)
    assert threads() == 0
