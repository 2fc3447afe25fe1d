"""Freed memory goes back to the system, and forked processes keep sharing what was there."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from unisono.core.memory import kept_heap, release_memory, shared_heap


def resident() -> int:
    """Anonymous bytes of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_freed_between_things_in_use_goes_back() -> None:
    release_memory()
    kept, freed = [], []
    for _ in range(4000):
        freed.append(np.ones(2000))
        kept.append(np.ones(8))
    freed.clear()
    before = resident()
    release_memory()
    assert before - resident() > 30 << 20, "64 MB lay between small arrays that are still in use"
    assert all(part.sum() == 8 for part in kept)


def test_arrow_gives_back_and_keeps_what_is_in_use() -> None:
    table = pa.table({"a": np.arange(1 << 20)})
    release_memory()
    assert table.column("a").to_pylist()[-1] == (1 << 20) - 1


def test_objects_from_before_are_left_alone_within_and_collected_after() -> None:
    class Loop:
        pass

    assert gc.get_freeze_count() == 0
    with shared_heap():
        assert gc.get_freeze_count() > 1000
        with shared_heap():
            pass
        assert gc.get_freeze_count() > 1000, "an inner use must not end the outer one"
        young = Loop()
        young.me = young  # type: ignore[attr-defined]
        del young
        assert any(isinstance(o, Loop) for o in gc.get_objects())
        gc.collect()
        assert not any(isinstance(o, Loop) for o in gc.get_objects())
    assert gc.get_freeze_count() == 0


def test_a_freeze_by_somebody_else_stays() -> None:
    gc.freeze()
    try:
        with shared_heap():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the counters of Linux")
def test_a_loop_does_not_ask_for_the_same_pages_twice_and_gives_them_back_after_the_last_use() -> None:
    import resource

    def faults_of_a_turn() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        parts = [torch.ones(4 << 20) for _ in range(4)]
        assert float(parts[0][0]) == 1.0
        parts.clear()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    release_memory()
    with kept_heap():
        with kept_heap():
            faults_of_a_turn()
        held = resident()
        assert min(faults_of_a_turn() for _ in range(3)) < 500, "an inner use must not end the outer one"
    assert held - resident() > 32 << 20, "64 MB were kept for the next turn"
