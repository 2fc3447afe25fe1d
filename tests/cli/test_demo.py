"""The demonstration, on few scenes and in little time, and once more in the same place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unisono.cli.main import main


def test_the_demonstration_runs_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert (
            main(["demo", "--out", str(tmp_path / "d"), "--rows", "120", "--budget", "10m", "--set", "train.steps=5", "--json", "--quiet"])
            == 0
        )
        found = json.loads(capsys.readouterr().out)
        assert found["predictions"] == 120
        assert len(found["missing"]) == 14
        assert {"report.html", "model.safetensors"} <= {p.name for p in (tmp_path / "d" / "model").iterdir()}


def test_it_leaves_the_folders_of_others_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table").mkdir()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "choose another" in capsys.readouterr().err
