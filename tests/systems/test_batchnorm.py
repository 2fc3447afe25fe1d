"""Batch normalisation over each modality: exact properties, and statistics over several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.systems.norming import gradient, norm_of, normed, state_of, values_of
from tests.tokens import rich_meta

BY_BATCH = ["batch", "unified(warmup=0)", "power(warmup=2)", "evonorm_b0", "loan(photo)"]


def test_every_modality_agrees_with_torch() -> None:
    norm, meta = norm_of("batch"), rich_meta()
    x, g = values_of(meta), values_of(meta, seed=3)
    y, dx = normed(norm, x, meta), gradient(norm, x, meta, g)
    for m in (1, 2, 3, 4):
        mine = meta.modality == m
        reference = torch.nn.BatchNorm1d(6, eps=norm.eps, momentum=None).double()
        reference.weight, reference.bias = norm.weight, norm.bias
        own = x[mine].clone().requires_grad_()
        found = reference(own)
        torch.testing.assert_close(y[mine], found)
        (found * g[mine]).sum().backward()
        torch.testing.assert_close(dx[mine], own.grad)
        torch.testing.assert_close(norm.mean[m], reference.running_mean)
        torch.testing.assert_close(norm.var[m], reference.running_var)
        torch.testing.assert_close(normed(norm.eval(), x, meta)[mine], reference.eval()(x[mine]))
        norm.train()


def test_scale_and_shift_are_what_evaluation_does() -> None:
    norm, meta = norm_of("batch"), rich_meta()
    x = values_of(meta)
    normed(norm, x, meta)
    scale, shift = norm.fixed()
    torch.testing.assert_close(normed(norm.eval(), x, meta), x * scale[meta.modality] + shift[meta.modality])


@pytest.mark.parametrize("sentence", BY_BATCH)
def test_a_modality_without_tokens_keeps_its_statistics(sentence: str) -> None:
    norm, meta = norm_of(sentence), rich_meta()
    gradient(norm, values_of(meta), meta, values_of(meta, seed=1))
    before = state_of(norm)
    some = meta.select(torch.nonzero(meta.modality == 2).squeeze(1))
    for seed in range(4):
        gradient(norm, values_of(some, seed=seed), some, values_of(some, seed=9))
    for name, value in state_of(norm).items():
        assert torch.equal(value[[0, 1, 3, 4, 5]], before[name][[0, 1, 3, 4, 5]]), name
        assert not torch.equal(value[2], before[name][2]), name
    empty = meta.select(torch.zeros(0, dtype=torch.int64))
    kept = state_of(norm)
    assert normed(norm, torch.zeros(0, 6).double(), empty).shape == (0, 6)
    assert all(torch.equal(v, kept[k]) for k, v in state_of(norm).items())


@pytest.mark.parametrize("sentence", BY_BATCH)
def test_evaluation_changes_no_statistics_and_a_token_is_normalised_by_itself(sentence: str) -> None:
    norm, meta = norm_of(sentence), rich_meta()
    for seed in range(6):
        gradient(norm, values_of(meta, seed=seed), meta, values_of(meta, seed=9))
    norm.eval()
    before, x = state_of(norm), values_of(meta, seed=11)
    whole = normed(norm, x, meta)
    for sample in (0, 1, 3):
        mine = torch.nonzero(meta.sample == sample).squeeze(1)
        torch.testing.assert_close(normed(norm, x[mine], meta.select(mine)), whole[mine])
    assert all(torch.equal(v, before[k]) for k, v in state_of(norm).items())


def test_a_large_mean_does_not_drown_the_variance_of_single_precision() -> None:
    norm, meta = norm_of("batch", shaken=False).float(), rich_meta()
    meta = meta.select(torch.nonzero(meta.modality == 3).squeeze(1))
    x = values_of(meta) + 3000.0
    for _ in range(3):
        y = normed(norm, x.float(), meta)
    torch.testing.assert_close(y.double(), (x - x.mean(0)) / x.std(0, unbiased=False), rtol=0, atol=2e-3)


_TWO = """
import sys, torch
from tests.systems.norming import gradient, norm_of, state_of, values_of
from tests.tokens import rich_meta
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = {}
for sentence in sys.argv[3:]:
    norm, meta = norm_of(sentence), rich_meta()
    for step in range(7):
        x, g = values_of(meta, seed=step), values_of(meta, seed=20)
        mine = torch.arange(len(meta)) % 3 == 0
        mine = torch.nonzero(mine if rank else ~mine).squeeze(1)
        found[sentence] = (mine, gradient(norm, x[mine], meta.select(mine), g[mine]), state_of(norm))
torch.save(found, f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_two_processes_have_the_statistics_and_gradients_of_one(tmp_path: Path) -> None:
    sentences = ["batch", "unified(warmup=0, filtering=false)", "power(warmup=2)"]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        env.pop(name, None)
    both = [subprocess.Popen([sys.executable, "-c", _TWO, str(r), str(tmp_path), *sentences], env=env, cwd=root) for r in (0, 1)]
    assert [p.wait(120) for p in both] == [0, 0]
    parts = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]
    meta = rich_meta()
    for sentence in sentences:
        norm = norm_of(sentence)
        for step in range(7):
            dx = gradient(norm, values_of(meta, seed=step), meta, values_of(meta, seed=20))
        for mine, found, state in (p[sentence] for p in parts):
            torch.testing.assert_close(found, dx[mine])
            for name, value in state_of(norm).items():
                torch.testing.assert_close(state[name], value)
