"""WideNet (arXiv:2107.11817): one attention and one mixture of experts for all depths, norms of each depth's own."""

from __future__ import annotations

from typing import Any

import torch

from tests.systems.whole import WIDTH, after, tokens, trunk_of
from unisono.nn.experts import Experts

D, EXPERTS, INNER, DEPTH = WIDTH, 4, 2 * WIDTH, 3
DEEP = {"steps": {"mix": {"repeat": DEPTH}}}


def test_the_weights_are_one_attention_the_experts_a_router_and_two_norms_a_layer() -> None:
    attention = (D * 3 * D + 3 * D) + (D * D + D)
    expert = (D * INNER + INNER) + (INNER * D + D)
    read = 2 * D + D
    wanted = attention + EXPERTS * expert + EXPERTS * D + 2 * DEPTH * 2 * D
    assert sum(p.numel() for p in trunk_of("widenet", changes=DEEP).parameters()) - read == wanted


def test_one_expert_and_tied_norms_are_weights_shared_over_depth() -> None:
    one = {**DEEP, "defaults": {"sharing": {"ffn": "depth(of=experts(1, 1))", "mixer": "depth", "norm": "depth"}}}
    wide, albert = trunk_of("widenet", changes=one), trunk_of("base", changes={**DEEP, "defaults": {"sharing": "depth"}})
    weights = {key: value for key, value in wide.state_dict().items() if "router" not in key}
    albert.load_state_dict({key.replace("ffn.parts.0.", "ffn."): value for key, value in weights.items()})
    values, meta = tokens()
    torch.testing.assert_close(after(wide, values, meta), after(albert, values, meta), rtol=0, atol=1e-12)


def _choices(norm: str) -> list[Any]:
    trunk = trunk_of("widenet", changes={**DEEP, "defaults": {"sharing": {"norm": norm}}})
    values, meta = tokens()
    plan, found = trunk.plan(meta), []
    for layer, need in list(zip(trunk.steps, plan.steps, strict=True))[:DEPTH]:
        experts: Any = layer.ffn
        assert isinstance(experts, Experts)
        found.append(experts.choose(layer.ffn_norms[0](values, need.ffn_norms[0]), need.ffn))  # type: ignore[index, operator]
    return found


def test_tied_norms_route_the_same_input_alike_at_every_depth_and_norms_of_their_own_do_not() -> None:
    tied, own = _choices("depth"), _choices("all")
    assert all(torch.equal(r.expert, tied[0].expert) and torch.equal(r.token, tied[0].token) for r in tied)
    pairs = [set(zip(r.token.tolist(), r.expert.tolist(), strict=True)) for r in own]
    assert pairs[0] != pairs[1] != pairs[2]
