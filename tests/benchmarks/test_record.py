from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from multiprocessing import get_context
from pathlib import Path

import pytest

import benchmarks
from benchmarks import ROWS, Case, Goal, Row, row
from benchmarks.__main__ import run_row
from benchmarks.record import append, complete, digest, done, key_of, machine, meaning, package_code, read, records_of, sources

CASES = (Case("a", 0), Case("b", 0))


def made_row(run=lambda **_: {"x": (1.0, "s")}, cases=CASES) -> Row:
    return Row("made", run, tuple(cases), (), None, "a row", "benchmarks.made")


def package(folder: Path, text: str = "x = 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "module.py").write_text(text)
    package_code.cache_clear()
    return folder


def options(**changes) -> Namespace:
    return Namespace(**{"force": False, "dry_run": False, "arm": [], "seed": [], **changes})


def test_cases_are_the_product_of_seeds_inputs_and_arms(monkeypatch):
    monkeypatch.setitem(row.__globals__, "ROWS", found := {})
    goal = Goal("x", must=1.0)

    @row("product", goals=[goal], arms=("a", "b"), seeds=(0, 1), over={"part": ("p", "q")})
    def product(**_):
        """One sentence.

        More.
        """
        return {}

    made = found["product"]
    assert [str(c) for c in made.cases[:3]] == ["a, part=p, seed 0", "b, part=p, seed 0", "a, part=q, seed 0"]
    assert len(set(map(str, made.cases))) == 8
    assert (made.title, made.goals, made.run) == ("One sentence.", (goal,), product)


def test_a_second_row_of_the_same_name_is_refused(monkeypatch):
    monkeypatch.setitem(row.__globals__, "ROWS", {"twice": Row("twice", print, (), (), None, "", "benchmarks.other")})
    with pytest.raises(ValueError, match=r"already a row 'twice', in benchmarks\.other"):
        row("twice")(lambda **_: {})
    assert "twice" not in ROWS


def test_digest_keeps_borders():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest(["ab"]) == digest([b"ab"])


def test_meaning_passes_over_comments_docstrings_and_layout_only():
    plain = "def f(x):\n    return x + 1\n"
    assert meaning('"""Module."""\ndef f(x):\n    """Doc."""\n    # why\n    return (x\n        + 1)\n') == meaning(plain)
    assert meaning("def f(x):\n    return x + 2\n") != meaning(plain)
    assert meaning("def f(x):\n    y = 'a'\n    return x + 1\n") != meaning(plain)


def test_the_key_changes_with_inputs_and_code_and_with_nothing_else(tmp_path):
    made, code = made_row(), package(tmp_path / "code")
    key = key_of(made, Case("a", 0), code)
    assert key == key_of(made, Case("a", 0), code)
    others = [Case("b", 0), Case("a", 1), Case("a", 0, {"part": "p"}), Case("a", 0, {"part": "q"})]
    assert len({key, *(key_of(made, case, code) for case in others)}) == 5
    assert key == key_of(made, Case("a", 0), package(code, '"""New words."""\nx = 1  # one\n'))
    assert key != key_of(made, Case("a", 0), package(code, "x = 2\n"))
    (code / "recipe.yaml").write_text("width: 64\n")
    assert key != key_of(made, Case("a", 0), package(code, "x = 1\n"))
    (code / "recipe.yaml").unlink()
    assert key == key_of(made, Case("a", 0), package(code, "x = 1\n"))


def test_the_order_of_inputs_is_not_part_of_the_key(tmp_path):
    made, code = made_row(), package(tmp_path / "code")
    assert key_of(made, Case("a", 0, {"p": 1, "q": 2}), code) == key_of(made, Case("a", 0, {"q": 2, "p": 1}), code)


def test_sources_follow_imports_among_benchmarks(tmp_path):
    (tmp_path / "one.py").write_text("from benchmarks import Goal, two\nimport os\n")
    (tmp_path / "two.py").write_text("def f():\n    from benchmarks.three import g\n    import benchmarks.four\n")
    for name in ("three", "four", "unrelated", "Goal"):
        (tmp_path / f"{name}.py").write_text("from benchmarks import one\n")
    found = [path.stem for path in sources("benchmarks.one", tmp_path)]
    assert found == ["Goal", "four", "one", "three", "two"]


def test_records_say_all_that_is_promised():
    made = made_row()
    (record,) = records_of(made, Case("a", 3, {"part": "p"}), {"x": (1.5, "s")}, key="k", seconds=2.0)
    promised = {"bench", "arm", "metric", "value", "unit", "seed", "command", "commit", "machine"}
    assert promised <= record.keys()
    assert (record["bench"], record["arm"], record["metric"], record["value"], record["unit"], record["seed"]) == (
        "made",
        "a",
        "x",
        1.5,
        "s",
        3,
    )
    assert record["command"] == "python -m benchmarks made"


def test_a_machine_is_described_and_not_named():
    found = machine()
    assert {"processor", "flags", "cores", "threads", "torch"} <= found.keys()
    assert all(f in {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"} for f in found["flags"])
    assert "/" not in json.dumps({**found, "processor": "", "gpu": ""})


def test_broken_lines_and_torn_cases_are_passed_over_and_the_next_write_starts_a_line(tmp_path):
    path, made = tmp_path / "made.jsonl", made_row()
    two = {"x": (1.0, "s"), "y": (2.0, "s")}
    append(path, records_of(made, Case("a", 0), two, key="whole", seconds=0))
    text = path.read_text()
    append(path, records_of(made, Case("b", 0), two, key="torn", seconds=0))
    cut = path.read_text()[: -len(text) // 3]
    path.write_text(cut)
    assert not path.read_text().endswith("\n")
    assert done(path) == {"whole"}
    append(path, records_of(made, Case("c", 0), two, key="next", seconds=0))
    with path.open("a") as file:
        file.write('[1, 2]\n{"bench": "made"}\nnot json\n')
    assert done(path) == {"whole", "next"}
    assert len(complete(list(read(path)))) == 2


def test_a_value_that_is_not_finite_is_refused_and_leaves_nothing(tmp_path):
    path = tmp_path / "made.jsonl"
    with pytest.raises(ValueError, match="JSON compliant"):
        append(path, records_of(made_row(), Case("a", 0), {"x": (1.0, "s"), "y": (float("nan"), "s")}, key="k", seconds=0))
    assert not path.exists()


def _write_many(path: Path, name: str) -> None:
    made = made_row()
    for number in range(30):
        records = [{**r, "machine": "m" * 3000} for r in records_template(made, name, number)]
        append(path, records)


def records_template(made: Row, name: str, number: int) -> list[dict]:
    common = {
        "bench": made.name,
        "arm": name,
        "unit": "s",
        "seed": number,
        "inputs": {},
        "key": f"{name}{number}",
        "of": 3,
        "at": str(number),
    }
    return [{**common, "metric": m, "value": 1.0} for m in "xyz"]


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    path, context = tmp_path / "made.jsonl", get_context("fork")
    workers = [context.Process(target=_write_many, args=(path, name)) for name in ("p", "q", "r")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert done(path) == {f"{name}{number}" for name in "pqr" for number in range(30)}
    assert len(path.read_text().splitlines()) == 3 * 3 * 30


def test_a_run_goes_on_where_it_stopped(tmp_path, capsys):
    calls = []

    def run(*, arm: str, seed: int):
        calls.append(arm)
        if arm == "b" and calls.count("b") == 1:
            raise RuntimeError("out of luck")
        return {"x": (float(len(calls)), "s")}

    made = made_row(run, [Case(a, 0) for a in "abc"])
    assert run_row(made, options(dry_run=True), tmp_path) == 0
    assert calls == []
    assert run_row(made, options(), tmp_path) == 1
    assert run_row(made, options(), tmp_path) == 0
    assert calls == ["a", "b", "c", "b"]
    assert run_row(made, options(), tmp_path) == 0
    assert len(calls) == 4
    assert run_row(made, options(force=True, arm=["a"]), tmp_path) == 0
    assert calls[4:] == ["a"]
    said = capsys.readouterr()
    assert "made 2/3 (b, seed 0): failed" in said.err
    assert "out of luck" in said.err
    assert said.out.splitlines()[0].split("\t") == ["made", "a", "x", "1", "s"]


def test_a_case_whose_code_changed_is_run_again(tmp_path, monkeypatch):
    calls = []

    def run(**_):
        calls.append(1)
        return {"x": (1.0, "s")}

    made, code = made_row(run, [Case("a", 0)]), package(tmp_path / "code")
    monkeypatch.setattr("benchmarks.__main__.key_of", lambda row, case: key_of(row, case, code))
    run_row(made, options(), tmp_path)
    run_row(made, options(), tmp_path)
    assert len(calls) == 1
    package(code, "x = 3\n")
    run_row(made, options(), tmp_path)
    assert len(calls) == 2


def test_importing_the_registry_imports_nothing_heavy():
    code = "import sys, benchmarks; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    root = Path(benchmarks.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
