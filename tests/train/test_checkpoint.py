"""Checkpoints: whole or not there at all."""

from __future__ import annotations

import errno
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from train_toy import Toy, ToyBatches

from unisono.core.errors import ModelFolderError, ResourceError
from unisono.train import checkpoint as store
from unisono.train.loop import train
from unisono.train.optimisers import optimisers, parameter_groups
from unisono.train.settings import TrainSettings


def some(step: int) -> store.Checkpoint:
    return store.Checkpoint({"run": {"step": step}}, {"model": {"w": torch.full((3,), float(step))}, "optimiser": {}})


def test_save_and_load_give_the_same_back(tmp_path: Path) -> None:
    for step in (1, 2):
        store.save(tmp_path, some(step))
        found = store.load(tmp_path)
        assert found.state == {"run": {"step": step}} and torch.equal(found.tensors["model"]["w"], torch.full((3,), float(step)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


def test_an_optimiser_with_tables_goes_on_as_if_never_stored(tmp_path: Path) -> None:
    def step(module: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for p in module.parameters():
            p.grad = torch.randn(p.shape, generator=draw)
        optimiser.step()

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.ModuleDict({"bag": nn.EmbeddingBag(5, 2, mode="sum"), "linear": nn.Linear(3, 2)})
        return module, optimisers.build("adamw", groups=parameter_groups(module, 0.1), lr=0.05, betas=(0.9, 0.98))

    module, optimiser = made()
    step(module, optimiser, 1)
    tensors, numbers = store.optimiser_tensors(optimiser)
    store.save(tmp_path, store.Checkpoint({"numbers": numbers}, {"model": store.named_tensors(module), "optimiser": tensors}))
    found = store.load(tmp_path)
    again, resumed = made()
    store.put_back(again, found.tensors["model"])
    store.put_back_optimiser(resumed, found.tensors["optimiser"], found.state["numbers"])
    for seed in (2, 3):
        step(module, optimiser, seed)
        step(again, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("instant", range(8))
def test_a_failure_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: int) -> None:
    store.save(tmp_path, some(1))
    calls = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == instant + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return call

    monkeypatch.setattr(store.os, "fsync", failing(store.os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    monkeypatch.setattr(store, "save_tensors", failing(store.save_tensors))
    try:
        store.save(tmp_path, some(2))
        expected = 2
    except ResourceError as error:
        assert "No space left" in str(error) and "--resume" in str(error) and error.exit_code == 1
        expected = 1
    assert store.load(tmp_path).state["run"]["step"] == expected
    assert not list(tmp_path.glob("checkpoint.tmp-*"))
    monkeypatch.undo()
    store.save(tmp_path, some(3))
    assert store.load(tmp_path).state["run"]["step"] == 3


def test_a_full_disk_during_training_is_exit_code_1_with_the_last_checkpoint_intact(tmp_path: Path) -> None:
    values = {"steps": 10, "batch": 16, "validate_every": 5, "checkpoint_seconds": 0, "precision": "float32"}
    with pytest.raises(ResourceError) as full:
        train(_Filling(tmp_path), ToyBatches(), TrainSettings.read(values), folder=tmp_path, progress=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert full.value.exit_code == 1 and "intact" in str(full.value)
    assert store.load(tmp_path).state["run"]["step"] == 6
    straight, resumed = Toy(), Toy(seed=8)
    train(straight, ToyBatches(), TrainSettings.read(values), progress=False)
    train(resumed, ToyBatches(), TrainSettings.read(values), folder=tmp_path, resume=True, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(straight.module.parameters(), resumed.module.parameters(), strict=True))


class _Filling(Toy):
    """From the seventh step on the system refuses files of more than 600 bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.calls, self.limit = 0, resource.getrlimit(resource.RLIMIT_FSIZE)

    def loss(self, rows: torch.Tensor) -> object:  # type: ignore[override]
        self.calls += 1
        if self.calls == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, self.limit[1]))
        return super().loss(rows)


@pytest.fixture(autouse=True)
def _unlimited() -> object:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_damaged_absent_or_newer_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="holds no checkpoint"):
        store.load(tmp_path)
    store.save(tmp_path, some(1))
    state, model = tmp_path / "checkpoint" / "state.json", tmp_path / "checkpoint" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-3])
    with pytest.raises(ModelFolderError, match="damaged"):
        store.load(tmp_path)
    model.write_bytes(whole)
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(ModelFolderError, match="newer version"):
        store.load(tmp_path)
    for odd in ('{"version": 1, "files": ["../model"]}', "[]", '{"version": 1}', "{"):
        state.write_text(odd)
        with pytest.raises(ModelFolderError, match="damaged"):
            store.load(tmp_path)


def test_shared_tensors_are_stored_once_and_come_back(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    kept = store.copies(store.named_tensors(module))
    assert sorted(kept) == ["0.bias", "0.weight", "1.bias"]
    with torch.no_grad():
        module[0].weight.zero_()
    store.put_back(module, kept)
    assert torch.equal(module[1].weight, kept["0.weight"])
    with pytest.raises(ModelFolderError, match="differing: x"):
        store.put_back(module, {**kept, "x": torch.zeros(1)})
    with pytest.raises(ModelFolderError, match="shape"):
        store.put_back(module, {**kept, "0.bias": torch.zeros(1)})


def test_the_weights_of_an_unfinished_run_load(tmp_path: Path) -> None:
    values = {"steps": 12, "batch": 16, "validate_every": 3, "ema": 0.9, "precision": "float32"}
    toy = Toy()
    train(toy, ToyBatches(), TrainSettings.read(values), folder=tmp_path, progress=False)
    weights, trained = store.load_weights(tmp_path), store.named_tensors(toy.module)
    assert weights.keys() == trained.keys() and all(torch.equal(weights[k], trained[k]) for k in weights)
    store.discard(tmp_path)
    assert not store.exists(tmp_path)
