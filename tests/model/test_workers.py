"""Tables whose decoded cells do not fit in memory are decoded by worker processes, to the same bits."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
import torch

import unisono
from unisono.table import store


def table() -> pa.Table:
    """Texts that tell the answer."""
    drawn = random.Random(0)
    words = [drawn.choice(["good", "bad"]) for _ in range(60)]
    texts = [f"a {w} thing number {drawn.randrange(9)}" for w in words]
    return pa.table({"text": texts, "size": [drawn.random() for _ in words], "y": words})


def weights(monkeypatch: pytest.MonkeyPatch, resident: int) -> dict[str, torch.Tensor]:
    """The weights after a few steps, with so many bytes for decoded cells."""
    monkeypatch.setattr(store.Store.__init__, "__defaults__", (resident,))
    model = unisono.fit(table(), "y", columns={"text": "text"}, settings=["train.steps=4", "width=16"], progress=False)
    return dict(model.network.state_dict())


def test_worker_processes_train_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, decoded_again = weights(monkeypatch, 1 << 30), weights(monkeypatch, 10)
    assert kept.keys() == decoded_again.keys()
    assert all(torch.equal(kept[name], decoded_again[name]) for name in kept)


def test_a_fit_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    unisono.fit(table(), "y", columns={"text": "text"}, settings=["train.steps=2", "width=16"], progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
