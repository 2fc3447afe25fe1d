"""Experts, nested widths and skills, each against its equation in loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tokens import FRAME, rich_meta
from unisono.core.errors import ConfigError, UserError
from unisono.core.tokens import Meta, concatenate
from unisono.nn.experts import Experts, balance_loss, best
from unisono.nn.ffn import MLP, GatedMLP
from unisono.nn.grammar import build_trunk
from unisono.nn.nested import Nested, choose_units, cut, extract
from unisono.nn.part import Flow, Frame, Known
from unisono.nn.share import sharings
from unisono.nn.skills import Skills
from unisono.recipe import load_recipe

D = 8
WIDE = replace(FRAME, width=D)


def made(sentence: str, frame: Frame = WIDE) -> Any:
    torch.manual_seed(0)
    part = sharings.build(sentence).wrap(lambda: MLP(width=D, expansion=2), frame).double()
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(torch.randn_like(p))
    return part.eval()


def values(meta: Meta, seed: int = 1) -> Tensor:
    return torch.randn(len(meta), D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(part: Experts, x: Tensor, chosen: Tensor) -> Tensor:
    """The equation, token by token."""
    p = torch.softmax(part.router(x, None), -1)
    return torch.stack(
        [sum((p[t, e] * part.parts[e](x[t]) for e in chosen[t].nonzero().flatten().tolist()), 0 * x[t]) for t in range(len(x))]
    )


def close(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_tokens_take_their_most_probable_experts() -> None:
    part, meta = made("experts(5, 2)"), rich_meta()
    x = values(meta)
    order = part.router(x, None).argsort(1, descending=True)
    close(part(x, Known(meta).part(part)), by_hand(part, x, torch.zeros(len(x), 5).scatter(1, order[:, :2], 1)))


def test_soft_experts_are_all_taken() -> None:
    part, meta = made("experts(3, route=soft)"), rich_meta()
    x = values(meta)
    close(part(x, Known(meta).part(part)), by_hand(part, x, torch.ones(len(x), 3)))


def test_experts_choose_the_tokens_of_each_sample() -> None:
    part, meta = made("experts(4, 1, route=choice)"), rich_meta(shuffle=2)
    x = values(meta)
    p = torch.softmax(part.router(x, None), -1)
    chosen = torch.zeros_like(p)
    for sample in meta.sample.unique():
        mine = (meta.sample == sample).nonzero().flatten()
        slots = -(-len(mine) // 4)
        for e in range(4):
            chosen[mine[p[mine, e].argsort(descending=True)[:slots]], e] = 1
    assert bool((chosen.sum(1) == 0).any()) and bool((chosen.sum(1) > 1).any())
    close(part(x, Known(meta).part(part)), by_hand(part, x, chosen))


def test_a_capacity_leaves_out_the_least_willing_in_training_and_nobody_in_evaluation() -> None:
    part, meta = made("experts(4, 2, capacity=0.75)"), rich_meta(shuffle=4)
    x, plan = values(meta), Known(meta).part(part)
    whole = part.choose(x, plan)
    assert len(whole.token) == 2 * len(meta)
    part.train()
    kept = part.choose(x, plan)
    assert len(kept.token) < len(whole.token)
    p = torch.softmax(part.router(x, None), -1).detach()
    for sample in meta.sample.unique():
        limit = max(1, -(-3 * int((meta.sample == sample).sum()) // 8))
        for e in range(4):
            wish = [int(t) for t in whole.token[whole.expert == e] if meta.sample[t] == sample]
            wish = sorted(wish, key=lambda t, e=e: -float(p[t, e]))[:limit]  # type: ignore[misc]
            assert sorted(wish) == [int(t) for t in kept.token[kept.expert == e] if meta.sample[t] == sample]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sentence", ["experts(3, 1, capacity=0.5)", "experts(3, 2, route=choice)", "experts(3, route=soft)"])
def test_batch_mates_never_interact(sentence: str, training: bool) -> None:
    part, meta = made(sentence).train(training), rich_meta()
    x = values(meta)
    whole = part(x, Known(meta).part(part))
    for sample in meta.sample.unique():
        mine = (meta.sample == sample).nonzero().flatten()
        close(part(x[mine], Known(meta.select(mine)).part(part)), whole[mine])


def test_the_best_of_each_group() -> None:
    score, group, most = torch.randn(12, 2), torch.tensor([0, 2, 2, 0, 1, 0, 2, 2, 0, 1, 0, 2]), torch.tensor([2, 1, 9])
    wanted = torch.zeros(12, 2, dtype=torch.bool)
    for e in range(2):
        for g in range(3):
            mine = (group == g).nonzero().flatten()
            wanted[mine[score[mine, e].argsort(descending=True)[: most[g]]], e] = True
    assert torch.equal(best(score, group, most), wanted)
    assert best(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)).shape == (0, 2)


def test_the_balance_loss_is_one_when_even_and_the_number_of_experts_when_one_takes_all() -> None:
    even = torch.eye(4).repeat(3, 1)
    one = torch.eye(4)[:1].repeat(12, 1)
    assert float(balance_loss(torch.full((12, 4), 0.25), even > 0)) == pytest.approx(1)
    assert float(balance_loss(one, one > 0)) == pytest.approx(4)


def test_the_balance_loss_counts_in_training_alone_and_pushes_towards_evenness() -> None:
    part, meta = made("experts(4, 1, balance=0.5)"), rich_meta()
    x, plan, flow = values(meta), Known(meta).part(part), Flow()
    part(x, plan, flow)
    assert flow.extra == []
    part.train()(x, plan, flow)
    p = torch.softmax(part.router(x, None), -1).detach()
    share = torch.bincount(p.argmax(1), minlength=4).double() / len(x)
    close(flow.extra[0], 0.5 * 4 * (share * p.mean(0)).sum())
    flow.extra[0].backward()
    after = torch.softmax(x @ (part.router.weight - 0.1 * part.router.weight.grad).T, -1).mean(0).detach()
    assert float((share * after).sum()) < float((share * p.mean(0)).sum())


def test_every_target_has_a_router_of_its_own_behind_a_fork() -> None:
    part, meta = made("experts(4, 1, by=task)", replace(WIDE, num_tasks=2)), rich_meta()
    x = values(meta)
    copies = [replace(meta, task=torch.full((len(meta),), k)) for k in (0, 1)]
    both = concatenate(copies)
    routing = part.choose(x.repeat(2, 1), Known(both).part(part))
    chosen = torch.zeros(len(both), dtype=torch.int64).index_copy(0, routing.token, routing.expert)
    for k in (0, 1):
        assert torch.equal(chosen.view(2, -1)[k], (x @ part.router.parts[k].weight.T).argmax(1))
    assert not torch.equal(chosen[: len(meta)], chosen[len(meta) :])


def test_the_router_is_exact_where_the_rest_is_not() -> None:
    part, x = made("experts(3, 1)").float(), torch.randn(5, D)
    with torch.autocast("cpu", torch.bfloat16):
        got = part.router(x.bfloat16(), None)
    close(got, x.bfloat16().float() @ part.router.weight.T, 1e-6)


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("experts(2, 3)", "choose at most 2"),
        ("experts(2, 1, route=soft)", "leave 'top' and 'capacity' out"),
        ("experts(2, 1, route=choice, balance=0.1)", "leave 'balance' out"),
        ("experts(2, by=modality)", "by"),
        ("experts(2, 1, capacity=0)", "capacity"),
        ("nested([0.5, 0.25, 1])", "has to ascend"),
        ("nested([0.25, 0.5])", "has to ascend"),
        ("nested([])", "has to ascend"),
        ({"type": "skills", "active": {"image": []}}, "at least one skill"),
        ({"type": "skills", "active": {"image": ["cross"]}, "cross": True}, "leave it out"),
    ],
)
def test_what_is_no_sharing_is_refused(sentence: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sharings.build(sentence)


@pytest.mark.parametrize(
    ("sharing", "ffn", "message"),
    [
        ({"ffn": "nested([0.01, 0.02, 1])"}, "mlp(2)", "leave some out"),
        ({"mixer": "experts(2, 1)"}, "mlp(2)", "shares ffn alone"),
        ({"ffn": {"type": "skills", "active": {"imagee": ["a"]}}}, "mlp(2)", "did you mean 'image'"),
        ({"ffn": {"type": "skills", "by": "task", "active": {"price": ["a"]}}}, "mlp(2)", "no task is called 'price'"),
    ],
)
def test_what_does_not_fit_the_trunk_is_refused(sharing: Any, ffn: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_trunk([{"sharing": sharing, "ffn": ffn}, {"read": "mean"}], {}, width=D, num_modalities=5, frame=FRAME)


@pytest.mark.parametrize("ffn", ["mlp(2)", "mlp(2, sub_norm=true)", "gated(2)", "gated(2, sub_norm=true)"])
def test_a_slice_is_a_smaller_feed_forward(ffn: str) -> None:
    steps = [{"repeat": 2, "sharing": {"ffn": "nested([0.25, 0.5, 1])"}, "ffn": ffn}, {"read": "mean"}]
    torch.manual_seed(0)
    trunk = build_trunk(steps, {}, width=D, num_modalities=5, frame=FRAME).double().eval()
    meta = rich_meta()
    x, plan = values(meta), trunk.plan(meta)
    choose_units(trunk, [4, 11])
    small = extract(trunk)
    close(small.run(x, plan).tokens, trunk.run(x, plan).tokens, 0)  # type: ignore[operator]
    assert not any(isinstance(m, Nested) for m in small.modules())
    assert [m.up.out_features // (1 if isinstance(m, MLP) else 2) for m in small.modules() if isinstance(m, MLP | GatedMLP)] == [4, 11]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in trunk.parameters())
    choose_units(trunk, 16)
    assert not torch.equal(trunk.run(x, plan).tokens, small.run(x, plan).tokens)  # type: ignore[operator]


def test_a_pass_draws_one_size_for_all_layers_from_torchs_generator() -> None:
    part, x = made("nested([0.25, 0.5, 1])").train(), torch.randn(3, D, dtype=torch.float64)
    sizes = []
    torch.manual_seed(5)
    for _ in range(30):
        flow = Flow()
        first, second = part(x, None, flow), part(x, None, flow)
        assert torch.equal(first, second)
        sizes += [m for m in (4, 8, 16) if torch.equal(first, cut(part.ffn, m).train()(x))]
    assert set(sizes) == {4, 8, 16} and len(sizes) == 30
    torch.manual_seed(5)
    assert [part.sizes[int(torch.randint(3, ()))] for _ in range(30)] == sizes


def test_units_that_are_not_there_are_refused() -> None:
    part = made("nested")
    for wanted in (0, 17, [4, 4]):
        with pytest.raises(UserError):
            choose_units(part, wanted)
    assert int(part.units) == 16


def test_skills_of_a_token_are_averaged() -> None:
    spec = {"type": "skills", "cross": True, "active": {"video": ["image", "motion"], "number": ["image"]}}
    part, meta = made(spec), rich_meta(shuffle=3)  # type: ignore[arg-type]
    assert isinstance(part, Skills)
    x = values(meta)
    blocks: dict[str, Any] = dict(zip(part.names, part.parts, strict=True))
    own = {0: ["image"], 1: ["text"], 2: ["image"], 3: ["image", "motion"], 4: ["graph"]}
    out = []
    for t in range(len(meta)):
        several = len(meta.modality[meta.sample == meta.sample[t]].unique()) > 1
        names = own[int(meta.modality[t])] + (["cross"] if several else [])
        out.append(torch.stack([blocks[n](x[t]) for n in names]).mean(0))
    close(part(x, Known(meta).part(part)), torch.stack(out))


def test_a_sharing_by_role_replaces_a_word_that_a_recipe_inherits() -> None:
    assert load_recipe("base", {"defaults": {"sharing": {"ffn": "experts"}}})["defaults"]["sharing"] == {"ffn": "experts"}
    found = load_recipe("widenet", {"defaults": {"sharing": {"norm": "depth"}}})["defaults"]["sharing"]
    assert found == {"ffn": "depth(of=experts(4, 2))", "mixer": "depth", "norm": "depth"}
    assert load_recipe("widenet", {"defaults": {"sharing": "modality"}})["defaults"]["sharing"] == "modality"
