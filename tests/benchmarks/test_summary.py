from __future__ import annotations

import pytest

from benchmarks import Case, Goal, Row
from benchmarks.record import append, records_of
from benchmarks.summary import Recorded, describe, judge, latest, listing, verdict, write


def less_peer(found):
    ours, peer = found.mean("score", "ours"), found.mean("score", "peer")
    return {"less_peer": (None if ours is None or peer is None else ours - peer, "share")}


def made_row(*goals: Goal, seeds=(0, 1), parts=("p", "q")) -> Row:
    cases = tuple(Case(arm, seed, {"part": part}) for seed in seeds for part in parts for arm in ("ours", "peer"))
    return Row("made", print, cases, goals, less_peer, "A row that was made up.", "benchmarks.made")


def put(folder, row: Row, arm: str, seed: int, part: str, value: float, **more) -> None:
    case = Case(arm, seed, {"part": part})
    records = records_of(row, case, {"score": (value, "share"), **more}, key=f"{case}", seconds=10)
    append(folder / "made.jsonl", records)


@pytest.mark.parametrize(
    ("better", "value", "expected"),
    [
        ("higher", 0.9, "short"), ("higher", 0.95, "met"), ("higher", 0.98, "met"), ("higher", 0.99, "aim met"),
        ("higher", None, "no result"),
        ("lower", 1.0, "short"), ("lower", 0.95, "met"), ("lower", 0.9, "aim met"),
    ],
)  # fmt: skip
def test_verdicts(better, value, expected):
    goal = Goal("x", must=0.95, aim=0.99 if better == "higher" else 0.9, better=better)
    assert verdict(goal, value) == expected


def test_what_has_nothing_to_reach_is_recorded():
    assert verdict(Goal("x"), 1.0) == "recorded"
    assert verdict(Goal("x", aim=2.0), 1.0) == "recorded"
    assert verdict(Goal("x"), None) == "no result"


def test_a_mean_weighs_seeds_alike_and_the_spread_is_over_seeds(tmp_path):
    row = made_row(goal := Goal("score", arm="ours", must=0.5))
    for seed, part, value in ((0, "p", 0.2), (0, "q", 0.4), (1, "p", 0.9)):
        put(tmp_path, row, "ours", seed, part, value)
    line = judge(row, goal, latest(row, tmp_path))
    assert line.value == pytest.approx(0.6)
    assert (line.spread, line.n, line.verdict) == (pytest.approx(0.6), 3, "met")
    median = judge(row, Goal("score", arm="ours", statistic="median"), latest(row, tmp_path))
    assert median.value == pytest.approx(0.4)


def test_with_one_seed_the_spread_is_over_its_cases(tmp_path):
    row = made_row(goal := Goal("score", arm="ours"))
    put(tmp_path, row, "ours", 0, "p", 0.2)
    assert judge(row, goal, latest(row, tmp_path)).spread is None
    put(tmp_path, row, "ours", 0, "q", 0.5)
    assert judge(row, goal, latest(row, tmp_path)).spread == pytest.approx(0.3)


def test_a_derived_metric_compares_arms_and_spreads_over_seeds(tmp_path):
    row = made_row(goal := Goal("less_peer", must=0.0))
    put(tmp_path, row, "ours", 0, "p", 0.8)
    assert judge(row, goal, latest(row, tmp_path)).verdict == "no result"
    put(tmp_path, row, "peer", 0, "p", 0.7)
    put(tmp_path, row, "ours", 1, "p", 0.6)
    put(tmp_path, row, "peer", 1, "p", 0.8)
    line = judge(row, goal, latest(row, tmp_path))
    assert (line.value, line.spread, line.n, line.verdict) == (pytest.approx(-0.05), pytest.approx(0.3), 2, "short")


def test_the_last_run_of_a_case_counts_and_cases_that_are_gone_do_not(tmp_path):
    row = made_row(goal := Goal("score", arm="ours"))
    put(tmp_path, row, "ours", 0, "p", 0.1)
    put(tmp_path, row, "ours", 0, "p", 0.9)
    put(tmp_path, row, "ours", 7, "p", 0.5)
    line = judge(row, goal, latest(row, tmp_path))
    assert (line.value, line.n) == (0.9, 1)


def test_inputs_select(tmp_path):
    row = made_row()
    put(tmp_path, row, "ours", 0, "p", 0.1)
    put(tmp_path, row, "ours", 0, "q", 0.9)
    recorded = latest(row, tmp_path)
    assert recorded.mean("score", "ours", part="q") == 0.9
    assert recorded.mean("score", part="other") is None
    assert recorded.mean("absent") is None


def test_the_written_page_holds_every_goal_and_what_is_wrong_with_it(tmp_path):
    row = made_row(Goal("score", arm="ours", must=0.5, aim=0.9), Goal("less_peer", must=0.0))
    put(tmp_path, row, "ours", 0, "p", 0.75, clean=(0.0, "slots"))
    said = write([row], tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| made | ours: score | 0.75 | - | 1 | ≥ 0.5 | ≥ 0.9 | met |" in page
    assert "| made | less_peer | - | - | 0 | ≥ 0 | - | no result |" in page
    assert "A row that was made up." in page
    for note in ("1 of 8 cases recorded", "1 of 1 cases measured before the code last changed", "without a slot free of other programs"):
        assert note in page
        assert note in said


def test_a_row_over_its_time_is_said(tmp_path):
    row = made_row(Goal("score"))
    records = records_of(row, row.cases[0], {"score": (1.0, "share")}, key="k", seconds=2400)
    append(tmp_path / "made.jsonl", records)
    assert "takes 40 minutes, more than the 30 of its budget" in write([row], tmp_path)


def test_without_results_every_verdict_is_no_result(tmp_path):
    row = made_row(Goal("score", must=0.5))
    assert judge(row, row.goals[0], Recorded([])).verdict == "no result"
    assert "no result" in write([row], tmp_path)
    assert "0 of 8 cases recorded" in listing([row], tmp_path)


def test_a_machine_is_described_in_a_line():
    text = describe({"processor": "Quick One", "cores": 2, "threads": 1, "flags": ["avx2"], "gpu": None, "torch": "2", "python": "3"})
    assert text == "Quick One, 2 cores, 1 threads, avx2, torch 2, Python 3"
