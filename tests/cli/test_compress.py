"""``unisono compress``: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.tables import Run
from tests.cli.test_refusals import refused


def test_a_folded_folder_predicts_the_same(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    done = run("compress", model, "--fold", "scale", "affine", "rms", "--out", tmp_path / "m", "--table", table, "--json")
    assert done.code == 0, done.err
    assert done.json["folds"] == ["affine", "rms"]
    assert done.json["exact_change"] < 1e-12
    before, after = done.json["metrics"]["kind"]["accuracy"]
    assert before == after
    ours, theirs = (run("predict", folder, table, "--quiet").out.splitlines() for folder in (tmp_path / "m", model))
    assert len(ours) == 60
    for one, other in zip(ours, theirs, strict=True):
        a, b = json.loads(one), json.loads(other)
        assert a["kind"] == b["kind"]
        assert abs(a["kind.probability"] - b["kind.probability"]) < 1e-5


def test_it_says_what_it_did(run: Run, model: Path, tmp_path: Path) -> None:
    done = run("compress", model, "--fold", "--columns", "note", "--out", tmp_path / "m")
    assert done.code == 0, done.err
    for part in (
        "done  affine",
        "the largest change is",
        "ms became",
        "left out: the weights of heat, colour",
        f"written to {tmp_path / 'm'}",
    ):
        assert part in done.out, done.out
    assert run("embed", tmp_path / "m", tmp_path / "nothing.csv").code == 2
    only = run("compress", model, "--columns", "note", "--out", tmp_path / "n", "--json")
    assert only.json["folds"] == []


def test_what_is_refused(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    refused(run, "compress", model, "--out", tmp_path / "m", says=("--fold", "--columns"))
    refused(run, "compress", model, "--fold", says=("--out",))
    refused(run, "compress", model, "--fold", "affin", "--out", tmp_path / "m", says=("affin", "did you mean 'affine'"))
    refused(run, "compress", model, "--columns", "nte", "--out", tmp_path / "m", says=("nte", "did you mean 'note'"))
    refused(run, "compress", model, "--fold", "--out", model, says=(str(model), "new or empty"))
    refused(run, "compress", tmp_path / "nowhere", "--fold", "--out", tmp_path / "m", says=("nowhere",))
    refused(run, "compress", model, "--fold", "--out", tmp_path / "m", "--table", tmp_path / "no.csv", says=("no.csv",))
    (tmp_path / "file").write_text("x")
    refused(run, "compress", model, "--fold", "--out", tmp_path / "file", says=("new or empty",))
    refused(run, "compress", model, "--fold", "--out", tmp_path / "file" / "m", says=("file", "no folder"))
    assert not (tmp_path / "m").exists()
