"""Devices, precision, and an environment prepared before torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from unisono.core.errors import ConfigError
from unisono.train import devices
from unisono.train.devices import autocast, choose_device, choose_precision, machine_summary, prepare_environment


def test_the_environment_is_prepared_without_torch_and_the_users_word_stands() -> None:
    code = (
        "import sys, unisono.train.devices as d; e = {}; d.prepare_environment(e); "
        "assert e; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment = {name: "active"}
        assert prepare_environment(environment) == {} and environment == {name: "active"}


SPINS, WAITS = {"GOMP_SPINCOUNT": "10000"}, {"OMP_WAIT_POLICY": "passive"}


@pytest.mark.parametrize(("load", "running", "chosen"), [(0.1, 3, SPINS), (1.2, 2, WAITS), (1.2, 0, SPINS)])
def test_beside_a_busy_neighbour_threads_wait_passively(
    monkeypatch: pytest.MonkeyPatch, load: float, running: int, chosen: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(devices, "others_running", lambda: running)
    environment: dict[str, str] = {}
    assert prepare_environment(environment) == chosen == environment


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="reads /proc")
def test_a_spinning_process_is_seen_while_it_runs() -> None:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.2)
        assert devices.others_running() > devices.BUSY_LOAD
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def test_devices_are_chosen_or_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="unknown"):
        choose_device("gpu9")
    if not torch.cuda.is_available():
        assert choose_device() == torch.device("cpu")
        with pytest.raises(ConfigError, match="no CUDA"):
            choose_device("cuda")


def test_precision_is_detected_not_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for tile, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tile=tile: tile)
        assert choose_precision("auto", cpu) == expected
    assert choose_precision("bf16", cpu) == "bf16" and choose_precision("float32", cpu) == "float32"
    with pytest.raises(ConfigError, match="bf16"):
        choose_precision("bf16", torch.device("meta"))


def test_autocast_concerns_products_only() -> None:
    layer = nn.Linear(4, 4)
    with autocast("bf16", torch.device("cpu")):
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    with autocast("float32", torch.device("cpu")):
        assert layer(torch.ones(1, 4)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_the_machine_is_described() -> None:
    found = machine_summary()
    assert found["threads"] == torch.get_num_threads() and found["torch"] == torch.__version__ and found["cores"] >= 1
