"""``meta-transformer``: a tokeniser for each modality, one encoder for all, which can stay frozen (arXiv:2307.10802)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import unisono
from tests.contracts.test_network import make
from tests.examples import ROWS
from unisono.core.errors import ConfigError
from unisono.core.schema import MODALITIES
from unisono.model import fit
from unisono.network import Network, freeze


def digest(module: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def test_cells_of_every_column_type_become_tokens_of_one_width_through_one_interface() -> None:
    model = make("meta-transformer")
    batch = model.batch()
    with torch.no_grad():
        tokens = model.network.tokens(batch)
    meta = batch.plan.meta
    assert tokens.shape == (len(meta), model.network.width)
    assert len(set(meta.modality.tolist())) == len(MODALITIES) >= 10
    counts = torch.bincount(meta.sample, minlength=ROWS)
    padded, there = torch.zeros(ROWS, int(counts.max()), tokens.shape[1]), torch.zeros(ROWS, int(counts.max()), dtype=torch.bool)
    for row in range(ROWS):
        padded[row, : counts[row]], there[row, : counts[row]] = tokens[meta.sample == row], True
    assert int(there.sum()) == len(tokens)
    assert bool(torch.isfinite(padded).all())


@pytest.mark.parametrize("target", ["flag=boolean", "amount=number"])
def test_training_a_head_leaves_the_frozen_encoder_as_it_was(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before: dict[str, str] = {}

    def watched(network: Network, names: Any) -> None:
        freeze(network, names)
        before.update({name: digest(part) for name, part in network.named_children()})

    monkeypatch.setattr(fit, "freeze", watched)
    rng = np.random.default_rng(0)
    table = pa.table({"x": rng.normal(size=60), "flag": rng.random(60) < 0.5, "amount": rng.normal(size=60)})
    settings = ["width=16", "defaults.mixer=attention(heads=2)", "train.steps=4", "train.freeze=[trunk]"]
    table = table.select(["x", target.split("=")[0]])
    model = unisono.fit(table, target, recipe="meta-transformer", settings=settings, progress=False)
    after = {name: digest(part) for name, part in model.network.named_children()}
    assert after["trunk"] == before["trunk"]
    assert after["heads"] != before["heads"]
    assert after["tokenisers"] != before["tokenisers"]


def test_what_cannot_be_frozen_is_refused() -> None:
    network = make("base", ("number",)).network
    with pytest.raises(ConfigError, match="no part 'trunc'; did you mean 'trunk'"):
        freeze(network, ["trunc"])
    with pytest.raises(ConfigError, match="leave nothing to be trained"):
        freeze(network, [name for name, _ in network.named_children()])
