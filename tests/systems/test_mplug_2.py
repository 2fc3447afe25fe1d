"""``mplug-2``: encoders of each source's own, universal layers and queries that all share (arXiv:2302.00402)."""

from __future__ import annotations

import torch

from tests.systems.trunks import close, gradients, recipe_trunk, values_of
from tests.tokens import NAMES, rich_meta
from unisono.nn.fork import Within
from unisono.nn.layer import Layer
from unisono.nn.part import Flow
from unisono.nn.resample import Latents
from unisono.nn.trunk import Trunk


def universal(trunk: Trunk) -> list[str]:
    """The weights of the universal layer and of the queries."""
    shared = [k for k, s in enumerate(trunk.steps) if isinstance(s, Latents) or (isinstance(s, Layer) and s.scope.text == "source")]
    assert len(shared) == 2
    return [n for n, _ in trunk.named_parameters() if n.startswith(tuple(f"steps.{k}." for k in shared))]


def test_universal_weights_are_one_object_whose_gradient_is_the_sum_over_sources() -> None:
    """Before sources meet, the tokens that leave the queries are a sum over sources; so is every gradient."""
    meta = rich_meta(shuffle=1)
    x, trunk = values_of(meta), recipe_trunk("mplug-2")
    before = next(k for k, s in enumerate(trunk.steps) if isinstance(s, Latents)) + 1
    meeting = trunk.steps[before]
    assert isinstance(meeting, Layer) and meeting.scope.text == "sample"

    def backward(source: int | None) -> dict[str, torch.Tensor]:
        index = torch.arange(len(meta)) if source is None else torch.nonzero(meta.source == source).squeeze(1)
        trunk.zero_grad()
        few, y = meta.select(index), x[index]
        plan, flow = trunk.plan(few), Flow()
        for step, needs in zip(list(trunk.steps)[:before], plan.steps[:before], strict=True):
            y = step(y, needs, flow)
        (y**2).sum().backward()
        return {n: p.grad.clone() for n, p in trunk.named_parameters() if n in universal(trunk) and p.grad is not None}

    whole, parts = backward(None), [backward(s) for s in range(len(NAMES.sources))]
    assert set(whole) == set(universal(trunk))
    for name, gradient in whole.items():
        close(gradient, torch.stack([p[name] for p in parts if name in p]).sum(0))
    assert sum(bool(p) for p in parts) == len(NAMES.sources)


def test_modules_of_sources_that_a_task_does_not_use_get_no_gradient() -> None:
    meta = rich_meta(shuffle=1)
    text = torch.nonzero((meta.column == 1) | (meta.column == 0)).squeeze(1)
    x, trunk = values_of(meta)[text], recipe_trunk("mplug-2")
    (trunk(x, trunk.plan(meta.select(text))) ** 2).sum().backward()
    sizes = gradients(trunk)
    own = [k for k, s in enumerate(trunk.steps) if isinstance(s, Within)]
    assert len(own) == 1 + len(NAMES.sources)
    for k in own:
        used = str(trunk.steps[k].selection) in {"source(0)", "source(1)"}  # type: ignore[union-attr]
        assert all((v > 0) == used for n, v in sizes.items() if n.startswith(f"steps.{k}.")), k
    assert all(sizes[n] > 0 for n in universal(trunk))
