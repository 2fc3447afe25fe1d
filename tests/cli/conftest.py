"""Commands in this process, a table, and one fitted folder for all that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tables import QUICK, Run, runner, weather, write_csv
from unisono.cli.main import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command; exit code, stdout, stderr."""
    return runner(capsys)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The weather as a CSV file."""
    return write_csv(tmp_path / "weather.csv", weather())


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted folder that no test changes."""
    folder = tmp_path_factory.mktemp("cli")
    path = write_csv(folder / "weather.csv", weather())
    assert main(["fit", str(path), "--target", "kind", "--split", "split", "--out", str(folder / "model"), *QUICK]) == 0
    return folder / "model"
