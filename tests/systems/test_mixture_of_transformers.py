"""Mixture of transformers (arXiv:2411.04996): a copy of every weight for each modality, attention over all."""

from __future__ import annotations

import re

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.systems.whole import after, of_modalities, tokens, trunk_of

NAME = "mixture-of-transformers"


def test_identical_copies_are_the_dense_transformer() -> None:
    dense, mixed = trunk_of("base"), trunk_of(NAME)
    weights = dense.state_dict()
    mixed.load_state_dict({key: weights[re.sub(r"parts\.\d+\.", "", key)] for key in mixed.state_dict()})
    assert len(mixed.state_dict()) > 4 * len(weights)
    values, meta = tokens()
    torch.testing.assert_close(after(mixed, values, meta), after(dense, values, meta), rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed(values, mixed.plan(meta)), dense(values, dense.plan(meta)), rtol=0, atol=1e-6)


def test_a_token_uses_its_modalitys_copies_for_everything_but_the_keys_it_sees() -> None:
    mixed, (values, meta) = trunk_of(NAME, changes={"trunk": [{"repeat": 1}, {"read": "mean"}]}), tokens(of_modalities(1, 2))
    layer = mixed.steps[0]
    mine = (meta.sample == 0).nonzero().squeeze(1)
    kinds = meta.modality[mine].tolist()
    qkv = torch.stack([layer.mixer.project.parts[m](layer.norms[0].parts[m](v)) for v, m in zip(values[mine], kinds, strict=True)])  # type: ignore[union-attr, index]
    q, k, v = (x.view(len(mine), 4, 4) for x in qkv.chunk(3, 1))
    mixed_by_hand = torch.stack([torch.softmax(q[:, h] @ k[:, h].T / 2, 1) @ v[:, h] for h in range(4)], 1).flatten(1)
    wanted = []
    for x, y, m in zip(values[mine], mixed_by_hand, kinds, strict=True):
        z = x + layer.mixer.out.parts[m](y)  # type: ignore[union-attr, index]
        wanted.append(z + layer.ffn.parts[m](layer.ffn_norms[0].parts[m](z)))  # type: ignore[union-attr, index, operator]
    torch.testing.assert_close(after(mixed, values, meta)[mine], torch.stack(wanted), rtol=0, atol=1e-12)


def test_an_absent_modality_gets_no_gradient() -> None:
    mixed, (values, meta) = trunk_of(NAME), tokens(of_modalities(1, 2))
    after(mixed, values, meta).square().sum().backward()
    for name, p in mixed.named_parameters():
        found = re.search(r"parts\.(\d+)\.", name)
        if found:
            has = p.grad is not None and bool(p.grad.abs().sum() > 0)
            assert has == (found.group(1) in {"1", "2"}), name


def test_a_token_costs_what_it_costs_in_the_dense_transformer() -> None:
    values, meta = tokens()
    counted = []
    for name in ("base", NAME):
        trunk = trunk_of(name)
        plan = trunk.plan(meta)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            trunk(values, plan)
        counted.append(flops.get_total_flops())
    assert counted[0] == counted[1] > 0
