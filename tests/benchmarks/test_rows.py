from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import ROWS
from benchmarks.__main__ import load, main
from benchmarks.av_digits import costs
from benchmarks.busy_neighbour import STEPS, slot
from benchmarks.memory import Peak, growth, tree, write_table
from benchmarks.small_tables import against_peers
from benchmarks.summary import Recorded, judge


@pytest.fixture(scope="module", autouse=True)
def loaded():
    load()


def test_every_row_says_what_it_measures_and_can_be_judged_without_results():
    wanted = "av_digits av_epoch busy_neighbour emoji image_decode memory mfeat small_tables startup ucr"
    assert set(wanted.split()) <= ROWS.keys()
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
        while not before.bytes:
            time.sleep(0.001)
    with Peak(every=0.001) as peak:
        block = np.ones(64 << 20, np.uint8)
        while peak.bytes < before.bytes + (60 << 20):
            time.sleep(0.001)
        del block
    assert peak.bytes >= before.bytes + (60 << 20)


def test_descendants_are_found():
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        assert process.pid in tree()
    assert process.pid not in tree()


def test_growth_is_a_ratio_of_arms():
    class Found:
        def mean(self, metric, arm=None, **_):
            return {("anonymous", "1x"): 100.0, ("anonymous", "10x"): 105.0}.get((metric, arm))

    assert growth(Found()) == {"anonymous_ratio": (1.05, "ratio"), "peak_ratio": (None, "ratio")}


def test_small_tables_are_held_against_the_better_peer_of_each():
    scores = {("unisono", "wine"): 0.9, ("trees", "wine"): 0.8, ("linear", "wine"): 0.95, ("unisono", "digits"): 0.9}

    class Found:
        def mean(self, metric, arm=None, *, table):
            return scores.get((arm, table))

    found = against_peers(Found())
    assert found["wine_less_peer"][0] == pytest.approx(-0.05)
    assert found["digits_less_peer"][0] is None and found["diabetes_less_peer"][0] is None


def test_what_a_missing_source_costs():
    scores = {("image", "both"): 0.9, ("accuracy", "images"): 0.92, ("sound", "both"): 0.8}

    class Found:
        def mean(self, metric, arm=None, **_):
            return scores.get((metric, arm))

    found = costs(Found())
    assert found["image_alone_less_images"][0] == pytest.approx(-0.02)
    assert found["sound_alone_less_sounds"][0] is None


def test_a_slot_times_every_step():
    calls = []
    found, _ = slot(lambda: calls.append(1))
    assert len(found) == len(calls) == STEPS
    assert min(found) >= 0
