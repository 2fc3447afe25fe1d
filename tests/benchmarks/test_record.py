"""Keys, resuming, verdicts and clean slots of the benchmarks' harness."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.__main__ import choose, work
from benchmarks.__main__ import parse as parse_command
from benchmarks.record import LAST, Goal, Measurement, Row, Rows, append, by_seed, current, judge, load, missing_runs, run
from benchmarks.summary import as_markdown, as_text, table

from benchmarks import fingerprint, timing


def double(arm: str, seed: int) -> Iterator[Measurement]:
    """Twice the seed, and one more for the arm b."""
    yield Measurement("accuracy", 2 * seed + (arm == "b"))


def make(**options: object) -> Row:
    return Row("double", double, **{"arms": ("a", "b"), "uses": ("benchmarks.timing",), **options})


def run_all(row: Row, folder: Path) -> int:
    return sum(bool(run(row, *waiting, folder)) for waiting in missing_runs(row, folder=folder))


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    row = make()
    assert run_all(row, tmp_path) == 6
    assert run_all(row, tmp_path) == 0
    assert run_all(make(seeds=(0, 1, 2, 3)), tmp_path) == 2
    assert len(list(missing_runs(row, force=True, folder=tmp_path))) == 6


def test_records_say_everything(tmp_path: Path) -> None:
    run(make(), "a", 3, "k", tmp_path)
    first, last = load("double", tmp_path)
    assert {"bench", "arm", "metric", "value", "unit", "seed", "command", "commit", "machine", "key"} <= set(first)
    assert (first["bench"], first["arm"], first["metric"], first["value"], first["seed"]) == ("double", "a", "accuracy", 6.0, 3)
    assert first["command"] == "python -m benchmarks double"
    assert last["metric"] == LAST


def test_a_run_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    row = make(arms=("a",), seeds=(0, 1))
    run_all(row, tmp_path)
    path = tmp_path / "double.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert [(arm, seed) for arm, seed, _ in missing_runs(row, folder=tmp_path)] == [("a", 1)]
    assert run_all(row, tmp_path) == 1
    assert run_all(row, tmp_path) == 0
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert by_seed(current(row, load("double", tmp_path))[0], "a", "accuracy") == {0: 0.0, 1: 2.0}


def test_a_damaged_line_in_the_middle_is_said(tmp_path: Path) -> None:
    append("double", [{"a": 1}], tmp_path)
    path = tmp_path / "double.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(ValueError, match="broken"):
        load("double", tmp_path)


def test_key_follows_inputs_arm_seed_and_code(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    one.write_text("x"), same.write_text("x"), other.write_text("y")
    keys = {p.name: make(inputs=lambda p=p: [p]).key("a", 0) for p in (one, same, other)}
    assert keys["one"] == keys["same"] != keys["other"]
    row = make()
    assert len({row.key("a", 0), row.key("a", 1), row.key("b", 0), make(uses=("benchmarks.summary",)).key("a", 0)}) == 4
    assert make(goals=(Goal("g", "accuracy", 1.0),)).key("a", 0) == row.key("a", 0)
    assert make(timed=True).key("a", 0) != row.key("a", 0)


def test_code_is_compared_without_comments_and_docstrings() -> None:
    texts = ['def f():\n    """Say."""\n    return 1  # one', "def f():\n\n    return 1", "def f():\n    return 2"]
    said, plain, other = (fingerprint._without_docstrings(ast.parse(t)) for t in texts)
    assert said == plain != other


def test_code_that_registries_load_by_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "unisono"
    (package / "parts").mkdir(parents=True)
    texts = {
        "__init__": "",
        "a": "from unisono import b\nmake(package='unisono.parts')",
        "b": "",
        "parts/__init__": "",
        "parts/one": "",
        "c": "",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(fingerprint, "PLACES", (tmp_path,))
    found = set(fingerprint.modules_of("unisono.a"))
    assert found == {"unisono", "unisono.a", "unisono.b", "unisono.parts", "unisono.parts.one"}


def test_recording_does_not_change_what_was_measured() -> None:
    assert not {"benchmarks.record", "benchmarks.fingerprint"} & set(fingerprint.modules_of("benchmarks.summary"))


def test_machine_names_no_host() -> None:
    import socket

    assert "torch" in fingerprint.machine() and "cores" in fingerprint.machine()
    assert socket.gethostname() not in fingerprint.machine()


def records(**values: list[float]) -> list[dict[str, object]]:
    return [{"arm": a, "metric": "m", "value": v, "seed": s} for a, vs in values.items() for s, v in enumerate(vs)]


@pytest.mark.parametrize(
    ("values", "goal", "word", "value"),
    [
        ([0.9, 1.0], Goal("g", "m", 0.9, 0.96), "must", 0.95),
        ([0.97, 0.97], Goal("g", "m", 0.9, 0.96), "aim", 0.97),
        ([0.8, 0.8], Goal("g", "m", 0.9, 0.96), "short", 0.8),
        ([0.9, 0.9], Goal("g", "m", 0.9), "aim", 0.9),
        ([50.0, 60.0], Goal("g", "m", 60, lower=True), "aim", 55.0),
        ([1.2, 1.2], Goal("g", "m", 1.1, 1.0, lower=True), "short", 1.2),
        ([1.0, 2.0, 9.0], Goal("g", "m", 1.5, 3.0, statistic="median"), "must", 2.0),
    ],
)
def test_verdicts(values: list[float], goal: Goal, word: str, value: float) -> None:
    verdict = judge(goal, records(a=values))
    assert (verdict.word, verdict.value) == (word, pytest.approx(value))
    assert (verdict.low, verdict.high, verdict.seeds) == (min(values), max(values), len(values))


def test_goals_compare_arms_seed_by_seed() -> None:
    found = records(**{"ours/x": [1.0, 2.0], "ours/y": [3.0, 4.0], "theirs/x": [1.0, 1.0, 7.0]})
    less = judge(Goal("g", "m", 1.0, arm="ours/*", against=("theirs/*", "m")), found)
    assert (less.value, less.low, less.high, less.seeds) == (1.5, 1.0, 2.0, 2)
    ratio = judge(Goal("g", "m", 2.0, arm="ours/*", against=("theirs/*", "m"), how="ratio"), found)
    assert ratio.value == 2.5
    assert judge(Goal("g", "m", 1.0, arm="nobody"), found).word == "no data"


def test_summary_shows_goals_and_marks_figures_of_earlier_code(tmp_path: Path) -> None:
    row = make(goals=(Goal("accuracy of b", "accuracy", 2.0, arm="b"), Goal("none", "other", 1.0)))
    run_all(row, tmp_path)
    fresh = table([row], tmp_path)
    assert fresh[0] == ("double", "accuracy of b", "3", "1 to 5", "3", "2", "-", "aim")
    assert fresh[1][-1] == "no data"
    changed = make(goals=row.goals, uses=("benchmarks.summary",))
    assert table([changed], tmp_path)[0][-1] == "aim*"
    assert "accuracy of b" in as_text(fresh) and "| double | accuracy of b | 3 |" in as_markdown(fresh)


def test_a_failing_run_is_said_and_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(arm: str, seed: int) -> Iterator[Measurement]:
        if seed == 1:
            raise RuntimeError("no luck")
        yield Measurement("accuracy", 1.0)

    asked = parse_command(["--results", str(tmp_path)])
    assert work([Row("luck", fails, uses=("benchmarks.timing",))], asked) == 1
    assert "no luck" in capsys.readouterr().err
    assert by_seed(load("luck", tmp_path), "*", "accuracy") == {0: 1.0, 2: 1.0}


def test_a_run_without_figures_is_refused(tmp_path: Path) -> None:
    twice = Row("twice", lambda arm, seed: [Measurement("x", 1.0), Measurement("x", 2.0)])
    for row in (twice, Row("none", lambda arm, seed: [])):
        with pytest.raises(ValueError, match=row.name):
            run(row, "a", 0, "k", tmp_path)
        assert load(row.name, tmp_path) == []


def test_unknown_and_duplicate_rows_are_refused() -> None:
    rows = Rows()
    rows("double")(double)
    with pytest.raises(ValueError, match="registered twice"):
        rows("double")(double)
    with pytest.raises(SystemExit, match="did you mean 'double'"):
        choose(["duoble"], rows.rows)
    assert [r.name for r in choose([], rows.rows)] == ["double"]


def test_interleaved_ratio_follows_the_work() -> None:
    calls = {"one": 0, "three": 0}

    def work_on(name: str, amount: int) -> None:
        calls[name] += 1
        sum(range(amount))

    found = timing.interleave({"one": lambda: work_on("one", 20_000), "three": lambda: work_on("three", 60_000)}, slots=3, seconds=0.005)
    assert all(t.clean + t.noisy >= 3 and t.low <= t.seconds <= t.high for t in found.values())
    assert found["three"].seconds > found["one"].seconds
    assert min(calls.values()) > 3


def test_slots_that_waited_for_a_core_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    delays = iter([0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(timing, "run_delay", lambda: next(delays))
    found = timing.interleave({"only": lambda: sum(range(1000))}, slots=3, seconds=0.001, most=4)["only"]
    assert (found.clean, found.noisy) == (3, 1)
