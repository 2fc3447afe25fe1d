"""M3ViT (arXiv:2210.14793): sparse experts with routers of each target's own, computed expert by expert."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor

from tests.systems.whole import WIDTH, after, tokens, trunk_of
from unisono.nn.experts import Experts, run_experts
from unisono.nn.ffn import MLP
from unisono.nn.trunk import Trunk

TASKS = ("left", "right", "both")
BIG = {"steps": {"sparse": {"sharing": {"ffn": "experts(40, 2, by=task)"}}}}


def sparse(trunk: Trunk) -> Experts:
    return next(m for m in trunk.modules() if isinstance(m, Experts))


def routed(trunk: Trunk, values: Tensor, meta: Any) -> tuple[Any, Any]:
    """What the experts are given, and how they route it."""
    seen: list[Any] = []
    handle = sparse(trunk).register_forward_pre_hook(lambda part, given: seen.append((given[0], part.choose(*given[:2]))))
    after(trunk, values, meta)
    handle.remove()
    return seen[0]  # type: ignore[no-any-return]


class Loader:
    """Makes an expert from stored weights when it is asked for; counts how often, and how many are held at a time."""

    def __init__(self, stored: list[dict[str, Tensor]]) -> None:
        self.stored, self.loads, self.alive, self.most = stored, [0] * len(stored), weakref.WeakSet[Any](), 0

    def __getitem__(self, index: int) -> MLP:
        expert = MLP(width=WIDTH, expansion=2).double()
        expert.load_state_dict(self.stored[index])
        self.loads[index] += 1
        self.alive.add(expert)
        self.most = max(self.most, len(self.alive))
        return expert


def test_expert_by_expert_is_token_by_token_and_loads_each_once_one_at_a_time() -> None:
    trunk, (values, meta) = trunk_of("m3vit", changes=BIG, tasks=TASKS), tokens()
    part = sparse(trunk)
    x, routing = routed(trunk, values, meta)
    by_token = torch.zeros_like(x)
    for e, t, g in zip(routing.expert.tolist(), routing.token.tolist(), routing.gate, strict=True):
        by_token[t] += g * part.parts[e](x[t])
    loader = Loader([expert.state_dict() for expert in part.parts])
    gc.disable()  # whoever lets an expert go does so at once, not when garbage is collected
    with torch.no_grad():
        by_expert = run_experts(x, routing, loader)
    gc.enable()
    torch.testing.assert_close(by_expert, by_token, rtol=0, atol=1e-6)
    assert loader.loads == [int(n > 0) for n in routing.counts] and 0 in loader.loads
    assert loader.most == 1


def test_a_target_needs_the_experts_that_it_reaches_alone() -> None:
    trunk, (values, meta) = trunk_of("m3vit", changes=BIG, tasks=TASKS), tokens()
    whole = trunk(values, trunk.plan(meta)).view(len(TASKS), meta.num_samples, WIDTH)
    _, routing = routed(trunk, values, meta)
    task = routing.token // len(meta)
    for j in range(len(TASKS)):
        reached = set(routing.expert[task == j].tolist())
        assert 0 < len(reached) < 40
        alone = trunk_of("m3vit", changes=BIG, tasks=TASKS)
        with torch.no_grad():
            for e, expert in enumerate(sparse(alone).parts):
                if e not in reached:
                    for p in expert.parameters():
                        p.fill_(torch.nan)
        assert torch.equal(alone(values, alone.plan(meta)).view(len(TASKS), -1, WIDTH)[j], whole[j])


def test_targets_take_paths_of_their_own() -> None:
    trunk, (values, meta) = trunk_of("m3vit", changes=BIG, tasks=TASKS), tokens()
    _, routing = routed(trunk, values, meta)
    pairs = set(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))
    paths = [{(t - j * len(meta), e) for t, e in pairs if t // len(meta) == j} for j in range(len(TASKS))]
    assert paths[0] != paths[1] != paths[2]
