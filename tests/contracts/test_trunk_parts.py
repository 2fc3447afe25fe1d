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

from tests.contracts.parts import MODALITIES, ROLES, SAMPLES, SENTENCES, WIDTH, Part, batch, build, only, parts, run, shake
from tests.contracts.tokenising import same
from tests.tokens import FRAME, rich_meta
from unisono.core.tokens import Meta
from unisono.nn.part import Flow
from unisono.nn.scope import Partition, relate
from unisono.nn.share import sharings
from unisono.nn.trunk import Trunk


@pytest.fixture(params=parts(), ids=lambda p: p.label)
def part(request: pytest.FixtureRequest) -> Part:
    found: Part = request.param
    return found


def layers(part: Part, values: torch.Tensor, meta: Any) -> tuple[torch.Tensor, Meta]:
    """The tokens before they are pooled, in float64, and what is known of them."""
    trunk = part.build()
    plan = trunk.plan(meta)
    return trunk.run(values, plan).tokens, plan.last


def sums(tokens: torch.Tensor) -> torch.Tensor:
    """What does not depend on the order of tokens: the sums of their first three powers."""
    return torch.stack([(tokens**k).sum(0) for k in (1, 2, 3)])


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    tolerance = 1e-10 if a.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_samples_never_interact(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    whole = run(trunk, values, meta)
    assert whole.shape == (SAMPLES, part.width)
    for sample in range(SAMPLES):
        close(run(trunk, *only(meta, values, [sample]))[0], whole[sample])
    order = [3, 0, 2]
    close(run(trunk, *only(meta, values, order)), whole[order])


def test_samples_never_interact_before_pooling(part: Part) -> None:
    values, meta = batch(part)
    whole, left = layers(part, values, meta)
    for sample in (0, 1, 3):
        alone, kept = layers(part, *only(meta, values, [sample]))
        mine = torch.nonzero(left.sample == sample).squeeze(1)
        assert len(kept) == len(mine)
        close(sums(alone), sums(whole[mine]))


def test_the_order_of_tokens_does_not_matter(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(3))
    close(run(trunk, values[order], meta.select(order)), run(trunk, values, meta))
    close(sums(layers(part, values[order], meta.select(order))[0]), sums(layers(part, values, meta)[0]))


def test_a_missing_source_equals_an_absent_one(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    left = torch.nonzero(meta.source != 1).squeeze(1)
    fewer = run(trunk, values[left], meta.select(left))
    has = torch.bincount(meta.sample[meta.source == 1], minlength=SAMPLES) > 0
    assert bool(has.any())
    close(fewer[~has], run(trunk, values, meta)[~has])
    noise = torch.randn_like(values)
    close(run(trunk, torch.where((meta.source == 1)[:, None], noise, values)[left], meta.select(left)), fewer)


def test_batches_without_any_token_or_sample(part: Part) -> None:
    trunk = part.build()
    nothing = torch.zeros(0, part.width, dtype=torch.float64)
    empty = rich_meta().select(torch.zeros(0, dtype=torch.int64))
    out = run(trunk, nothing, replace(empty, num_samples=2))
    assert out.shape == (2, part.width)
    assert bool(torch.isfinite(out).all())
    close(out[0], out[1])


def test_every_parameter_gets_gradient(part: Part) -> None:
    trunk, (values, meta) = part.build().train(), batch(part)
    wild = rich_meta(shuffle=1)
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
        flow = Flow()
        for step, need in zip(self.steps, needs, strict=True):
            x = step(x, need, flow)
        return x


def test_float64_gradcheck(part: Part) -> None:
    """Analytic and numeric gradients of the layers agree, to the input and to the weights."""
    trunk = part.build()
    small = torch.tensor([0, 1, 6, 7, 17, 18, 41, 42, 43])
    plan = trunk.plan(rich_meta().select(small))
    module, needs = _Layers(trunk), list(plan.steps[:-1])
    values = torch.randn(len(small), part.width, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    names, weights = zip(*((n, p.detach().clone().requires_grad_()) for n, p in module.named_parameters()), strict=True)

    def forward(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(module, dict(zip(names, given, strict=True)), (x, needs))
        return result

    assert gradcheck(forward, (values, *weights), fast_mode=True)


def test_rebuilt_from_json_and_weights_gives_the_same_bits(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    steps, defaults = json.loads(json.dumps([list(part.steps), dict(part.defaults)]))
    torch.manual_seed(77)
    again = build(steps, defaults, part.width).double().eval()
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
def test_a_scope_relates_tokens_of_one_sample_only(word: str) -> None:
    meta = rich_meta(shuffle=5)
    pairs = relate(SENTENCES.get(word, word), meta, FRAME).pairs()
    assert not bool((pairs & (meta.sample[:, None] != meta.sample[None, :])).any())


@pytest.mark.parametrize("word", sorted(n for n, e in ROLES["scope"].entries.items() if issubclass(e.target, Partition)))
def test_a_partition_is_symmetric_and_holds_everyone(word: str) -> None:
    meta, sentence = rich_meta(shuffle=5), SENTENCES.get(word, word)
    pairs = relate(sentence, meta, FRAME).pairs()
    assert bool(pairs.diagonal().all())
    assert torch.equal(pairs, pairs.T)
    assert torch.equal(relate(f"{sentence} & {sentence}", meta, FRAME).pairs(), pairs)
    assert torch.equal(relate(f"sample & {sentence}", meta, FRAME).pairs(), pairs)


@pytest.mark.parametrize("word", sorted(ROLES["mixer"].entries))
def test_who_is_no_query_stays_and_who_sees_nothing_gets_nothing_from_the_mixer(word: str) -> None:
    steps = [{"mixer": SENTENCES.get(word, word), "scope": "cross(title <- photo)", "ffn": "none"}, {"read": "mean"}]
    trunk = build(steps, {}).double().eval()
    shake(trunk)
    meta = rich_meta()
    values = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    out = trunk.run(values, trunk.plan(meta)).tokens
    asks = meta.column == 1
    sees = asks & (meta.sample == 0)
    assert bool((asks & ~sees).any())
    assert torch.equal(out[~sees], values[~sees])
    assert word == "none" or not bool((out[sees] == values[sees]).all(1).any())
