"""``bridgetower``: sources' own states enter the layers in which they meet, by depth (arXiv:2206.08657)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.systems.trunks import close, gradients, recipe_trunk, values_of
from tests.tokens import NAMES, rich_meta
from unisono.nn.fork import Within
from unisono.nn.part import Flow
from unisono.nn.tap import LinearBridge
from unisono.nn.trunk import Trunk

SOURCES = len(NAMES.sources)
LOW, HIGH = 0, 2


def bridges_of(trunk: Trunk) -> list[LinearBridge]:
    return [s for s in trunk.all_steps() if isinstance(s, LinearBridge)]


def test_with_nothing_over_the_bridges_it_is_the_encoder_without_them_with_the_same_norms() -> None:
    meta = rich_meta(shuffle=1)
    x, trunk = values_of(meta), recipe_trunk("bridgetower")
    plan = trunk.plan(meta)
    with torch.no_grad():
        for bridge in bridges_of(trunk):
            bridge.project.bias.zero_()
        flow, y = Flow(), x
        for step, needs in zip(list(trunk.steps)[:-1], plan.steps[:-1], strict=True):
            y = step(y, needs, flow)
            flow.taps = {name: torch.zeros_like(tap) for name, tap in flow.taps.items()}
        expected = x
        for step, needs in zip(list(trunk.steps)[:-1], plan.steps[:-1], strict=True):
            if isinstance(step, Within):
                bridge = step.steps[0]
                assert isinstance(bridge, LinearBridge)
                mine = torch.from_numpy(step.selection.mask(meta))
                expected = torch.where(mine[:, None], bridge.norm(expected), expected)
            else:
                expected = step(expected, needs, Flow())
    close(y, expected)
    assert len(bridges_of(trunk)) == 2 * SOURCES


def past_the_high_layer_cut(trunk: Trunk) -> Tensor:
    """The answer with no gradient through the second of the sources' own layers."""
    meta = rich_meta(shuffle=1)
    x, flow, plan = values_of(meta), Flow(), trunk.plan(meta)
    for k, (step, needs) in enumerate(zip(trunk.steps, plan.steps, strict=True)):
        x = step(x.detach(), needs, flow).detach() if k == HIGH else step(x, needs, flow)
    return x


def test_gradient_reaches_the_lower_layer_without_the_later_one() -> None:
    trunk = recipe_trunk("bridgetower")
    (past_the_high_layer_cut(trunk) ** 2).sum().backward()
    sizes = gradients(trunk)
    assert all(v > 0 for n, v in sizes.items() if n.startswith(f"steps.{LOW}."))
    assert all(v == 0 for n, v in sizes.items() if n.startswith(f"steps.{HIGH}."))


def test_without_the_bridge_it_would_not() -> None:
    trunk = recipe_trunk("bridgetower")
    with torch.no_grad():
        for bridge in bridges_of(trunk)[:SOURCES]:
            bridge.project.weight.zero_()
    (past_the_high_layer_cut(trunk) ** 2).sum().backward()
    assert all(v == 0 for n, v in gradients(trunk).items() if n.startswith(f"steps.{LOW}."))


def test_gradient_reaches_the_higher_layer_over_its_own_bridge() -> None:
    meta = rich_meta(shuffle=1)
    trunk = recipe_trunk("bridgetower")
    flow, plan, x = Flow(), trunk.plan(meta), values_of(meta)
    last = len(trunk.steps) - 1 - SOURCES - 1  # the first bridge of the second kind
    for k, (step, needs) in enumerate(zip(trunk.steps, plan.steps, strict=True)):
        x = step(x.detach() if k == last else x, needs, flow)
    (x**2).sum().backward()
    assert all(v > 0 for n, v in gradients(trunk).items() if n.startswith(f"steps.{HIGH}."))
