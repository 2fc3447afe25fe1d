from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import ROWS
from benchmarks.__main__ import load, main
from benchmarks.busy_neighbour import STEPS, slot
from benchmarks.memory import Peak, growth, write_table
from benchmarks.summary import Recorded, judge


@pytest.fixture(scope="module", autouse=True)
def loaded():
    load()


def test_every_row_says_what_it_measures_and_can_be_judged_without_results():
    assert {"av_digits", "av_epoch", "busy_neighbour", "image_decode", "memory", "startup"} <= ROWS.keys()
    for row in ROWS.values():
        assert row.title.endswith(".") and row.cases and row.goals, row.name
        assert json.loads(json.dumps([dict(c.inputs) for c in row.cases])) == [dict(c.inputs) for c in row.cases]
        assert len({str(c) for c in row.cases}) == len(row.cases)
        for goal in row.goals:
            assert goal.arm is None or goal.arm in {c.arm for c in row.cases}, (row.name, goal)
            assert judge(row, goal, Recorded([])).verdict == "no result"


def test_rows_are_listed_and_an_unknown_one_is_named(capsys):
    assert main(["--list", "startup"]) == 0
    assert "startup: Seconds until `unisono fit --help` has answered" in capsys.readouterr().out
    assert main(["start-up"]) == 2
    assert "there is no row 'start-up'; there are: " in capsys.readouterr().err


def test_the_table_for_memory_is_the_same_whatever_its_length(tmp_path):
    import pyarrow.parquet as pq

    write_table(tmp_path / "a.parquet", 4000, 0)
    write_table(tmp_path / "b.parquet", 2000, 0)
    long, short = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    assert (long.num_rows, short.num_rows) == (4000, 2000)
    assert long.slice(0, 2000).equals(short)


def test_the_peak_of_memory_sees_what_was_let_go():
    with Peak(every=0.001) as before:
        sum(range(10**5))
        while not before.bytes:
            pass
    with Peak(every=0.001) as peak:
        block = np.ones(64 << 20, np.uint8)
        while peak.bytes < before.bytes + (60 << 20):
            pass
        del block
    assert peak.bytes >= before.bytes + (60 << 20)


def test_growth_is_a_ratio_of_arms():
    class Found:
        def mean(self, metric, arm=None, **_):
            return {("anonymous", "1x"): 100.0, ("anonymous", "10x"): 105.0}.get((metric, arm))

    assert growth(Found()) == {"anonymous_ratio": (1.05, "ratio"), "peak_ratio": (None, "ratio")}


def test_a_slot_times_every_step():
    calls = []
    found, _ = slot(lambda: calls.append(1))
    assert len(found) == len(calls) == STEPS
    assert min(found) >= 0
