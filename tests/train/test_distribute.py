"""Two processes on the CPU give what one gives, within rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from train_toy import Toy, ToyBatches

from unisono.core.errors import ConfigError
from unisono.nn.norm_batch import BatchNorm
from unisono.nn.part import Frame
from unisono.train.calibrate import make_stepper
from unisono.train.distribute import Group, Processes, join
from unisono.train.loop import train
from unisono.train.settings import TrainSettings

VALUES = {"steps": 14, "batch": 17, "validate_every": 2, "precision": "float32", "optimiser": "sgd", "ema": 0.9, "patience": 0}


def test_alone_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    group = join(torch.device("cpu"))
    assert group.main and group.world == 1 and not isinstance(group, Processes)


def test_two_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    alone = train(Toy(dropout=False), ToyBatches(), TrainSettings.read(VALUES), progress=False)
    script = str(Path(__file__).parent / "train_toy.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, script, str(tmp_path), "--no-dropout", "--set", json.dumps(VALUES)],
        capture_output=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    records = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert len(records) == len(alone.records) == 7
    for ours, theirs in zip(records, alone.records, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["objective"] == pytest.approx(theirs["objective"], rel=1e-5)
    assert json.loads((tmp_path / "train.json").read_text())["plan"]["processes"] == 2


def test_norms_that_exchange_statistics_refuse_batches_cut_differently() -> None:
    toy, cut, pair = Toy(), TrainSettings.read({**VALUES, "max_tokens": 5}), Group()
    pair.world = 2
    make_stepper(toy, cut, pair, torch.device("cpu"), "float32", 0)
    toy.module.drop = BatchNorm(width=16, frame=Frame())  # type: ignore[assignment]
    make_stepper(toy, cut, Group(), torch.device("cpu"), "float32", 0)
    make_stepper(toy, TrainSettings.read(VALUES), pair, torch.device("cpu"), "float32", 0)
    with pytest.raises(ConfigError, match=r"train\.max_tokens.*norm without batch statistics"):
        make_stepper(toy, cut, pair, torch.device("cpu"), "float32", 0)
