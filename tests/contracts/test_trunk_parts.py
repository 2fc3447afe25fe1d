"""What holds for every registered norm, mixer, feed-forward, sharing, scope, insert and read, and for every recipe's trunk.

Reads pool in float32, so answers are compared to its rounding; what a layer does is compared in float64.
"""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from tests.contracts.parts import COUNTS, MODALITIES, ROLES, WIDTH, Part, batch, only, parts, run, shake
from tests.contracts.tokenising import same
from tests.tokens import meta_of
from unisono.core.plan import Blocks, Run
from unisono.nn.scope import relate
from unisono.nn.share import sharings
from unisono.nn.trunk import Layer, Trunk, build_trunk


@pytest.fixture(params=parts(), ids=lambda p: p.label)
def part(request: pytest.FixtureRequest) -> Part:
    found: Part = request.param
    return found


def layers(part: Part, values: torch.Tensor, meta: Any) -> torch.Tensor:
    """The tokens before they are pooled, in float64."""
    trunk = part.build()
    plan = trunk.plan(meta)
    x = values
    for step, needs in zip(trunk.steps[:-1], plan.steps[:-1], strict=True):
        x = step(x, needs)
    return x[: len(meta)]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    tolerance = 1e-10 if a.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_samples_never_interact(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    whole = run(trunk, values, meta)
    assert whole.shape == (len(COUNTS), part.width)
    for sample in range(len(COUNTS)):
        close(run(trunk, *only(meta, values, [sample]))[0], whole[sample])
    order = [3, 0, 6, 2]
    close(run(trunk, *only(meta, values, order)), whole[order])


def test_samples_never_interact_before_pooling(part: Part) -> None:
    values, meta = batch(part)
    whole = layers(part, values, meta)
    for sample in (0, 3, 5):
        mine = torch.nonzero(meta.sample == sample).squeeze(1)
        close(layers(part, *only(meta, values, [sample])), whole[mine])


def test_the_order_of_tokens_does_not_matter(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(3))
    close(run(trunk, values[order], meta.select(order)), run(trunk, values, meta))
    close(layers(part, values[order], meta.select(order)), layers(part, values, meta)[order])


def test_a_missing_source_equals_an_absent_one(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    left = torch.nonzero(meta.source != 1).squeeze(1)
    fewer = run(trunk, values[left], meta.select(left))
    again = meta_of([[a, 0, c] for a, _, c in COUNTS])
    close(run(trunk, values[left], again), fewer)
    untouched = [k for k, c in enumerate(COUNTS) if c[1] == 0]
    close(fewer[untouched], run(trunk, values, meta)[untouched])


def test_batches_without_any_token_or_sample(part: Part) -> None:
    trunk = part.build()
    nothing = torch.zeros(0, part.width, dtype=torch.float64)
    out = run(trunk, nothing, meta_of([[0, 0, 0]] * 2))
    assert out.shape == (2, part.width)
    assert bool(torch.isfinite(out).all())
    close(out[0], out[1])


def test_every_parameter_gets_gradient(part: Part) -> None:
    trunk, (values, meta) = part.build().train(), batch(part)
    wild = meta_of(COUNTS, shuffle=1)
    for v, m in ((values, meta), (torch.randn_like(values), wild)):
        out = run(trunk, v, m)
        (out * torch.randn_like(out)).sum().backward()
    without = {n for n, p in trunk.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    unexplained = {n for n in without if not _explained(part, n)}
    assert unexplained == set()


def _explained(part: Part, name: str) -> bool:
    """Whether the sharing says that it leaves weights untouched, and these are the ones of tokens that the trunk does not have."""
    sharing = sharings.get(str(dict(part.defaults).get("sharing", "all")))
    inserts = any("insert" in s for s in part.steps)
    return "gradient" in sharing.traits.exempt and not inserts and f"parts.{MODALITIES}." in name


class _Layers(nn.Module):
    """A trunk without its read, in float64 throughout."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.steps = nn.ModuleList(list(trunk.steps)[:-1])

    def forward(self, x: torch.Tensor, needs: list[Any]) -> torch.Tensor:
        for step, need in zip(self.steps, needs, strict=True):
            x = step(x, need)
        return x


def test_float64_gradcheck(part: Part) -> None:
    """Analytic and numeric gradients of the layers agree, to the input and to the weights."""
    trunk = part.build()
    plan = trunk.plan(meta_of([[1, 2, 0], [0, 0, 1]]))
    module, needs = _Layers(trunk), list(plan.steps[:-1])
    values = torch.randn(4, part.width, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    names, weights = zip(*((n, p.detach().clone().requires_grad_()) for n, p in module.named_parameters()), strict=True)

    def forward(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(module, dict(zip(names, given, strict=True)), (x, needs))
        return result

    assert gradcheck(forward, (values, *weights), fast_mode=True)


def test_rebuilt_from_json_and_weights_gives_the_same_bits(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    steps, defaults = json.loads(json.dumps([list(part.steps), dict(part.defaults)]))
    torch.manual_seed(77)
    again = build_trunk(steps, defaults, width=part.width, num_modalities=MODALITIES).double().eval()
    again.load_state_dict(trunk.state_dict())
    assert torch.equal(run(again, values, meta), run(trunk, values, meta))


def test_same_seed_same_bits(part: Part) -> None:
    assert same(dict(part.build(4).state_dict()), dict(part.build(4).state_dict()))
    values, meta = batch(part)
    answers = []
    for _ in range(2):
        trunk = part.build().train()
        torch.manual_seed(11)
        answers.append(run(trunk, values, meta))
    assert torch.equal(answers[0], answers[1])


def test_inputs_are_left_unmodified(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    kept_values, kept_meta = values.clone(), copy.deepcopy(meta)
    plan = trunk.plan(meta)
    kept_plan = copy.deepcopy(plan)
    trunk(values, plan)
    assert torch.equal(values, kept_values)
    assert same(meta, kept_meta)
    assert same(list(plan.steps), list(kept_plan.steps))


def test_plans_survive_pickling(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    plan = trunk.plan(meta)
    moved = pickle.loads(pickle.dumps(plan))
    assert torch.equal(trunk(values, moved), trunk(values, plan))


def test_a_plan_depends_on_metadata_alone(part: Part) -> None:
    trunk, (_, meta) = part.build(), batch(part)
    with torch.no_grad():
        first = trunk.plan(meta)
        for p in trunk.parameters():
            p.zero_()
        assert same(list(trunk.plan(meta).steps), list(first.steps))


@pytest.mark.parametrize("word", sorted(ROLES["scope"].entries))
def test_a_scope_relates_tokens_of_one_sample_only_and_everyone_to_itself(word: str) -> None:
    meta = meta_of(COUNTS, shuffle=5)
    pairs = relate(word, meta).pairs()
    other_sample = meta.sample[:, None] != meta.sample[None, :]
    assert not bool((pairs & other_sample).any())
    assert bool(pairs.diagonal().all())
    assert torch.equal(pairs, pairs.T)
    doubled = relate(f"{word} & {word}", meta).pairs()
    assert torch.equal(doubled, pairs)
    with_sample = relate(f"sample & {word}", meta).pairs()
    assert torch.equal(with_sample, pairs)


@pytest.mark.parametrize("word", sorted(ROLES["mixer"].entries))
def test_a_mixer_adds_exactly_zero_to_a_token_that_is_no_query(word: str) -> None:
    torch.manual_seed(0)
    trunk = build_trunk([{"mixer": word}, {"read": "mean"}], {}, width=WIDTH, num_modalities=MODALITIES).double().eval()
    shake(trunk)
    layer = trunk.steps[0]
    assert isinstance(layer, Layer)
    meta = meta_of([[3, 2, 0]])
    whole = trunk.plan(meta).steps[0]
    few = Blocks(torch.tensor([0, 2]), None, (Run(1, 2, 2),), None, torch.tensor([True, False, True, False, False]), 5)
    values = torch.randn(5, WIDTH, dtype=torch.float64)
    out = layer(values, replace(whole, blocks=few))
    assert torch.equal(out[[1, 3, 4]], values[[1, 3, 4]])
    assert not torch.equal(out[[0, 2]], values[[0, 2]])
    alone = layer(values[[0, 2]], trunk.plan(meta_of([[2, 0, 0]])).steps[0])
    close(out[[0, 2]], alone)
