"""Every verb: its help, its result for machines, its pipes; and what goes on with a warning."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cli.tables import QUICK, Run, weather, write_csv
from unisono.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(run: Run, verb: str) -> None:
    done = run(verb, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: unisono {verb}")
    assert "--json" in done.out
    assert done.err == ""


def test_the_command_itself(run: Run) -> None:
    for words in ([], ["--help"]):
        assert all(verb in run(*words).out for verb in VERBS)
    assert run("--version").out.startswith("unisono ")


def test_inspect(run: Run, table: Path, tmp_path: Path) -> None:
    found = run("inspect", table, "--target", "kind", "--json", "--write", tmp_path / "schema.yaml").json
    assert found["rows"] == 60
    columns = {c["name"]: c for c in found["columns"]}
    assert {n: c["modality"] for n, c in columns.items()}["note"] == "text"
    assert columns["heat"]["modality"] == "number"
    assert all(c["reason"] and c["missing"] == 0 for c in columns.values() if c["role"] == "input")
    assert found["targets"]["kind"]["task"] == "category"
    assert yaml.safe_load((tmp_path / "schema.yaml").read_text())["columns"]["note"] == "text"
    shown = run("inspect", table, "--column", "colour=text")
    assert shown.code == 0
    assert [line.split()[1] for line in shown.out.splitlines() if line.startswith("colour")] == ["text"]
    done = run("fit", table, "--schema", tmp_path / "schema.yaml", "--out", tmp_path / "m", *QUICK, "--json")
    assert set(done.json["test"]["targets"]) == {"kind"}


def test_fit_says_what_it_reached_and_writes_the_folder(run: Run, table: Path, tmp_path: Path) -> None:
    done = run("fit", table, "--target", "kind", "--split", "split", "--out", tmp_path / "m", *QUICK, "--json")
    assert done.code == 0, done.err
    assert done.json["out"] == str(tmp_path / "m")
    assert 0 <= done.json["test"]["targets"]["kind"]["accuracy"] <= 1
    assert {"model.safetensors", "recipe.yaml", "schema.json", "metrics.json", "report.html"} <= {
        p.name for p in (tmp_path / "m").iterdir()
    }
    shown = run("fit", table, "--target", "kind", "--out", tmp_path / "m", *QUICK, "--force")
    assert shown.code == 0
    assert "accuracy" in shown.out
    assert str(tmp_path / "m" / "report.html") in shown.out


def test_evaluate_with_and_without_a_filter(run: Run, model: Path, table: Path) -> None:
    everything = run("evaluate", model, table, "--json").json
    assert set(everything) == {"rows", "targets", "missing"}
    assert everything["rows"] == 60
    test = run("evaluate", model, table, "--where", "split = test", "--json")
    assert run("evaluate", model, table, "--where", "split=test", "--json").json == test.json
    assert test.json["rows"] == weather()["split"].count("test")
    assert [entry["present"] for entry in test.json["missing"]] == [["table"], ["note"]]
    assert all(set(entry["targets"]) == {"kind"} for entry in test.json["missing"])
    some = run("evaluate", model, table, "--where", "(heat > 1 or colour in (red, blue)) and not split = train", "--json")
    columns = weather()
    expected = [float(h) > 1 or c in {"red", "blue"} for h, c in zip(columns["heat"], columns["colour"], strict=True)]
    assert some.json["rows"] == sum(e and s != "train" for e, s in zip(expected, columns["split"], strict=True))
    assert "only table" in run("evaluate", model, table).out


def test_predictions_keep_the_order_of_the_rows(run: Run, model: Path, tmp_path: Path) -> None:
    columns = weather()
    shuffled = {k: [v[j] for j in reversed(range(len(v)))] for k, v in columns.items()}
    lists = []
    for name, content in (("a", columns), ("b", shuffled)):
        out = tmp_path / f"{name}.parquet"
        done = run("predict", model, write_csv(tmp_path / f"{name}.csv", content), "-o", out, "--json")
        assert done.json == {"rows": 60, "out": str(out), "bad_cells": 0}
        lists.append(pq.read_table(out))
    assert lists[0].column_names == ["row", "kind", "kind.probability", "kind.probability.calm", "kind.probability.wild"]
    assert lists[0]["row"].to_pylist() == list(range(60))
    ahead, back = (t["kind.probability.wild"].to_pylist() for t in lists)
    assert ahead == pytest.approx(back[::-1], abs=1e-5)
    assert len(set(ahead)) > 30


def test_embed(run: Run, model: Path, tmp_path: Path) -> None:
    columns = weather()
    columns["note"] = [None, *columns["note"][1:]]
    path = write_csv(tmp_path / "t.csv", columns)
    assert run("embed", model, path, "-o", tmp_path / "e.parquet").code == 0
    found = pq.read_table(tmp_path / "e.parquet")
    assert found.column_names == ["row", "embedding", "embedding.table", "embedding.note"]
    assert found["embedding.note"].is_null().to_pylist() == [True] + [False] * 59
    assert len(found["embedding"][0]) == 16


def test_recipes(run: Run, table: Path) -> None:
    listed = run("recipes", "--json").json["recipes"]
    assert {r["name"] for r in listed} >= {"base", "early-fusion", "late-fusion", "bottleneck-fusion"}
    assert all(r["claim"] and r["source"] for r in listed)
    shown = run("recipes", "late-fusion", "--set", "width=32", "--json").json
    assert shown["lineage"] == ["base"]
    assert shown["settings"]["width"] == 32
    cost = run("recipes", "early-fusion", "--table", table, "--target", "kind", "--json").json["cost"]
    assert cost["parameters"]["total"] == sum(n for k, n in cost["parameters"].items() if k != "total") > 10_000
    assert "width: 128" in run("recipes", "early-fusion").out


def test_pipes(model: Path) -> None:
    text = "heat,colour,note\n0.5,red,a calm bright morning\n3.5,,\n"
    command = [sys.executable, "-m", "unisono", "predict", str(model), "-", "-o", "-", "--quiet"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, cwd=ROOT / "src", check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["row"] for r in rows] == [0, 1]
    assert all(r["kind"] in {"calm", "wild"} for r in rows)
    assert done.stderr == ""


def fitted_with(run: Run, tmp_path: Path, columns: dict[str, list[object]], *words: str) -> str:
    loud = [w for w in QUICK if w != "--quiet"]
    done = run("fit", write_csv(tmp_path / "t.csv", columns), "--target", "kind", "--out", tmp_path / "m", *loud, *words)
    assert done.code == 0, done.err
    return done.err


def test_nulls_in_the_target_are_said(run: Run, tmp_path: Path) -> None:
    columns = weather()
    columns["kind"] = [None if j % 10 == 3 else k for j, k in enumerate(columns["kind"])]
    said = fitted_with(run, tmp_path, columns, "--split", "split")
    assert "kind" in said
    assert "6 " in said


def test_numbers_among_text_are_said(run: Run, tmp_path: Path) -> None:
    columns = weather()
    columns["heat"][11] = "warm"
    assert "heat" in fitted_with(run, tmp_path, columns)
    inspected = run("inspect", tmp_path / "t.csv", "--json").json
    heat = next(c for c in inspected["columns"] if c["name"] == "heat")
    assert heat["modality"] != "number" or "warm" in json.dumps(inspected)


def predict_said(run: Run, model: Path, path: Path) -> str:
    done = run("predict", model, path)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 60
    return done.err


def test_a_table_that_differs_from_the_training_table(run: Run, model: Path, tmp_path: Path) -> None:
    columns = weather()
    more = {**columns, "mood": ["fair"] * 60}
    assert "mood" in predict_said(run, model, write_csv(tmp_path / "more.csv", more))
    fewer = {k: v for k, v in columns.items() if k != "note"}
    assert "note" in predict_said(run, model, write_csv(tmp_path / "fewer.csv", fewer))
    unseen = {**columns, "colour": ["violet", *columns["colour"][1:]]}
    assert "violet" in predict_said(run, model, write_csv(tmp_path / "unseen.csv", unseen))
    assert "violet" in run("evaluate", model, tmp_path / "unseen.csv").err


def test_json_lines_are_what_parquet_holds(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    printed = [json.loads(line) for line in run("predict", model, table).out.splitlines()]
    assert run("predict", model, table, "-o", tmp_path / "p.csv").code == 0
    written = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    assert [r["kind"] for r in written] == [r["kind"] for r in printed]


def test_a_recipe_is_drawn(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "early.html"
    assert run("recipes", "early-fusion", "--draw", "--out", out).out.strip() == str(out)
    assert out.read_text().count('<svg class="trunk"') == 1
    drawn = run("recipes", "late-fusion", "--draw", "--table", table, "--target", "kind", "--out", out, "--json").json
    assert drawn == {"name": "late-fusion", "drawing": str(out)}
    assert "note" in out.read_text()
