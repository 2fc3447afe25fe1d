"""Steps with taps, selections and forks, residual rules and sharing, against loops written by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from tests.contracts.parts import shake
from tests.tokens import FRAME, NAMES, rich_meta
from unisono.core.errors import ConfigError
from unisono.core.names import Names
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.layer import Layer
from unisono.nn.part import Frame
from unisono.nn.residual import residuals
from unisono.nn.share import PerSet
from unisono.nn.tap import LinearBridge
from unisono.nn.trunk import Trunk

WIDTH = 8
DEFAULTS = {"mixer": "attention(heads=2)", "ffn": "mlp(2)"}


def made(steps: list[dict[str, Any]], *, frame: Frame = FRAME, seed: int = 0, **defaults: Any) -> Trunk:
    torch.manual_seed(seed)
    trunk = build_trunk([*steps, {"read": "mean(norm=none)"}], {**DEFAULTS, **defaults}, width=WIDTH, num_modalities=5, frame=frame)
    shake(trunk)
    return trunk.double().eval()


def values_of(meta: Meta, seed: int = 1) -> Tensor:
    return torch.randn(len(meta), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def after(trunk: Trunk, x: Tensor, meta: Meta) -> tuple[Tensor, Meta]:
    with torch.no_grad():
        plan = trunk.plan(meta)
        return trunk.run(x, plan).tokens, plan.last


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def members(meta: Meta, size: int) -> dict[tuple[int, ...], list[int]]:
    """Tokens whose places fall together, by (sample, column, item, level, coarse places); one without places is by itself."""
    groups = defaultdict(list)
    for t in range(len(meta)):
        place = meta.place[t].tolist()
        alone = t if max(place) < 0 else -1
        coarse = [p // size if p >= 0 else -1 for p in place]
        groups[(*(int(f[t]) for f in (meta.sample, meta.column, meta.item, meta.level)), *coarse, alone)].append(t)
    return groups


def same_bag(a: Tensor, b: Tensor) -> None:
    """Equal as sets of rows."""
    assert a.shape == b.shape
    close(torch.stack([(a**k).sum(0) for k in (1, 2, 3)]), torch.stack([(b**k).sum(0) for k in (1, 2, 3)]))


# --- taps


def test_a_bridge_back_to_the_same_tokens_adds_them_and_a_linear_one_projects_and_normalises() -> None:
    meta = rich_meta(shuffle=2)
    x = values_of(meta)
    body = made([{"ffn": "mlp(2)"}])
    changed = after(body, x, meta)[0]
    add = made([{"save": "before"}, {"ffn": "mlp(2)"}, {"bridge": "add(before)"}])
    add.steps[1].load_state_dict(body.steps[0].state_dict())
    close(after(add, x, meta)[0], changed + x)
    linear = made([{"save": "before"}, {"bridge": "linear(before)"}])
    bridge = linear.steps[1]
    assert isinstance(bridge, LinearBridge)
    summed = x + x @ bridge.project.weight.T + bridge.project.bias
    close(after(linear, x, meta)[0], layer_norm(summed, (WIDTH,), bridge.norm.weight, bridge.norm.bias, bridge.norm.eps))


def test_a_bridge_over_a_resampling_gives_each_token_the_mean_of_those_it_was_made_of() -> None:
    meta = rich_meta(shuffle=3)
    x = values_of(meta)
    trunk = made([{"save": "fine"}, {"resample": "pool(2, by=max)"}, {"bridge": "add(fine)"}])
    got, _ = after(trunk, x, meta)
    highest, _ = after(made([{"resample": "pool(2, by=max)"}]), x, meta)
    groups = members(meta, 2).values()
    same_bag(highest, torch.stack([x[g].amax(0) for g in groups]))
    same_bag(got, torch.stack([x[g].amax(0) + x[g].mean(0) for g in groups]))


def test_a_tap_saved_outside_is_met_inside_a_selection_and_one_saved_inside_is_met_outside() -> None:
    meta = rich_meta(shuffle=4)
    x = values_of(meta)
    image = meta.column == 2
    inside = made([{"save": "all"}, {"ffn": "none", "mixer": "none"}, {"on": "image", "bridge": "add(all)"}])
    close(after(inside, x, meta)[0], torch.where(image[:, None], 2 * x, x))
    outside = made([{"on": "image", "save": "pictures"}, {"bridge": "add(pictures)"}])
    close(after(outside, x, meta)[0], torch.where(image[:, None], 2 * x, x))


def test_a_tap_is_met_after_resampling_within_a_selection() -> None:
    meta = rich_meta(shuffle=5)
    x = values_of(meta)
    trunk = made([{"save": "fine"}, {"on": "photo", "resample": "pool(2)"}, {"bridge": "add(fine)"}])
    got, left = after(trunk, x, meta)
    photo = meta.column == 2
    groups = members(meta.select(torch.nonzero(photo).squeeze(1)), 2).values()
    same_bag(got[left.column == 2], torch.stack([2 * x[photo][g].mean(0) for g in groups]))
    same_bag(got[left.column != 2], 2 * x[~photo])


def test_expand_returns_to_the_tap_with_what_its_tokens_have_become() -> None:
    meta = rich_meta(shuffle=6)
    x = values_of(meta)
    trunk = made([{"save": "fine"}, {"resample": "pool(2)"}, {"insert": "bottleneck(1)"}, {"resample": "expand(fine)"}])
    got, left = after(trunk, x, meta)
    expand: Any = trunk.steps[3]
    expected = x.clone()
    for group in members(meta, 2).values():
        expected[group] += x[group].mean(0) @ expand.project.weight.T + expand.project.bias
    close(got[: len(meta)], expected)
    assert bool((left.column[len(meta) :] < 0).all())
    assert len(left) == len(meta) + 3
    for name in ("sample", "column", "item", "level", "place"):
        assert torch.equal(getattr(left, name)[: len(meta)], getattr(meta, name))


def test_expand_within_a_selection_leaves_the_others_alone() -> None:
    meta = rich_meta(shuffle=7)
    x = values_of(meta)
    photo = meta.column == 2
    steps = [{"save": "fine"}, {"resample": "pool(2)"}, {"resample": "expand(fine)"}]
    whole = made([{"fork": {"by": "modality", "branches": {"image": steps}}}])
    alone = made(steps)
    alone.steps[2].load_state_dict(whole.steps[0].steps[2].state_dict())
    got, left = after(whole, x, meta)
    few = meta.select(torch.nonzero(photo).squeeze(1))
    close(got[left.column == 2], after(alone, x[photo], few)[0])
    same_bag(got[left.column != 2], x[~photo])


# --- selections and forks


def test_on_runs_a_layer_as_if_the_selected_tokens_were_all() -> None:
    meta = rich_meta(shuffle=8)
    x = values_of(meta)
    trunk, plain = made([{"on": ["title", "photo"]}]), made([{}])
    plain.steps[0].load_state_dict(trunk.steps[0].steps[0].state_dict())
    chosen = (meta.column == 1) | (meta.column == 2)
    got, _ = after(trunk, x, meta)
    close(got[chosen], after(plain, x[chosen], meta.select(torch.nonzero(chosen).squeeze(1)))[0])
    assert torch.equal(got[~chosen], x[~chosen])


def test_a_fork_by_modality_is_each_branch_on_its_own_tokens() -> None:
    meta = rich_meta(shuffle=9)
    x = values_of(meta)
    trunk = made([{"fork": {"by": "modality", "branches": {"image": [{}, {}], "text": [{"ffn": "none"}]}}}])
    expected = x.clone()
    for branch, column in zip(list(trunk.steps)[:2], (2, 1), strict=True):
        mine = meta.column == column
        plain = made([{}, {}] if column == 2 else [{"ffn": "none"}])
        for k, step in enumerate(branch.steps):
            plain.steps[k].load_state_dict(step.state_dict())
        expected[mine] = after(plain, x[mine], meta.select(torch.nonzero(mine).squeeze(1)))[0]
    close(after(trunk, x, meta)[0], expected)


TASKS = Frame(Names(NAMES.modalities, NAMES.columns, NAMES.sources, ("price", "kind")), 6, num_edge_values=2)


def test_a_fork_by_task_gives_every_task_its_branch_on_copies_that_never_mix() -> None:
    meta = rich_meta(shuffle=10)
    x = values_of(meta)
    trunk = made([{}, {"fork": {"by": "task", "branches": {"kind": [{}]}}}, {"scope": "sample"}], frame=TASKS)
    shared, branch, last = trunk.steps[0], trunk.steps[2].steps[0], trunk.steps[3]
    ways = []
    for steps in ((shared, last), (shared, branch, last)):
        plain = made([{} for _ in steps])
        for k, step in enumerate(steps):
            plain.steps[k].load_state_dict(step.state_dict())
        ways.append(after(plain, x, meta)[0])
    got, left = after(trunk, x, meta)
    assert left.task is not None
    for task in (0, 1):
        close(got[left.task == task], ways[task])


# --- a layer's keys


def attention(mixer: Any, x: Tensor, y: Tensor, sees: Tensor) -> Tensor:
    """Multi-head attention of x over y as the equation says, ``sees`` (Tx, Ty); zero where nothing is seen."""
    heads, size = mixer.heads, mixer.size
    (wq, wk, wv), (bq, bk, bv) = mixer.project.weight.split(WIDTH), mixer.project.bias.split(WIDTH)
    q, k, v = (part.view(-1, heads, size) for part in (x @ wq.T + bq, y @ wk.T + bk, y @ wv.T + bv))
    out = torch.zeros(len(x), WIDTH, dtype=torch.float64)
    for t in range(len(x)):
        if bool(sees[t].any()):
            scores = torch.exp((k[sees[t]] * q[t]).sum(-1) / math.sqrt(size))
            mixed = ((scores / scores.sum(0)).unsqueeze(-1) * v[sees[t]]).sum(0)
            out[t] = mixer.out.weight @ mixed.flatten() + mixer.out.bias
    return out


def normed(norm: Any, x: Tensor) -> Tensor:
    return layer_norm(x, (WIDTH,), norm.weight, norm.bias, norm.eps)


def dense(layer: Any, x: Tensor, y: Tensor, sees: Tensor) -> Tensor:
    return attention(layer.mixer, normed(layer.norms[0], x), normed(layer.norms[0], y), sees)


@pytest.mark.parametrize("scope", ["sample", "source", "cross(photo <- title)"])
def test_keys_are_cross_attention_to_the_tap(scope: str) -> None:
    meta = rich_meta(shuffle=11)
    x = values_of(meta)
    trunk = made([{"save": "first"}, {"ffn": "mlp(2)", "mixer": "none"}, {"scope": scope, "keys": "first", "ffn": "none"}])
    middle = made([{"ffn": "mlp(2)", "mixer": "none"}])
    middle.steps[0].load_state_dict(trunk.steps[1].state_dict())
    y = after(middle, x, meta)[0]
    layer: Any = trunk.steps[2]
    same = meta.sample[:, None] == meta.sample[None, :]
    if scope == "source":
        same &= meta.source[:, None] == meta.source[None, :]
    if scope.startswith("cross"):
        same &= (meta.column[:, None] == 2) & (meta.column[None, :] == 1)
    with torch.no_grad():
        close(after(trunk, x, meta)[0], y + dense(layer, y, x, same))


def test_keys_of_a_tap_with_more_tokens_are_seen_after_resampling() -> None:
    meta = rich_meta(shuffle=12)
    x = values_of(meta)
    trunk = made([{"save": "fine"}, {"resample": "pool(2)"}, {"keys": "fine", "ffn": "none"}])
    y, left = after(made([{"resample": "pool(2)"}]), x, meta)
    layer: Any = trunk.steps[2]
    with torch.no_grad():
        close(after(trunk, x, meta)[0], y + dense(layer, y, x, left.sample[:, None] == meta.sample[None, :]))


# --- residual rules


def expected(rule: str, layer: Layer, x: Tensor, meta: Meta, scale: Any) -> Tensor:
    same = meta.sample[:, None] == meta.sample[None, :]
    ffn: Any = layer.ffn

    def mix(v: Tensor) -> Tensor:
        return attention(layer.mixer, v, v, same)

    def feed(v: Tensor) -> Tensor:
        return gelu(v @ ffn.up.weight.T + ffn.up.bias) @ ffn.down.weight.T + ffn.down.bias

    (a, *after_a), (b, *after_b) = layer.norms, layer.ffn_norms if len(layer.ffn_norms) else [None]
    if rule == "pre":
        y = x + scale(0, mix(normed(a, x)))
        return y + scale(1, feed(normed(b, y)))
    if rule == "post":
        y = normed(a, x + scale(0, mix(x)))
        return normed(b, y + scale(1, feed(y)))
    if rule == "sandwich":
        y = x + scale(0, normed(after_a[0], mix(normed(a, x))))
        return y + scale(1, normed(after_b[0], feed(normed(b, y))))
    if rule == "replace":
        y = scale(0, mix(normed(a, x)))
        return scale(1, feed(normed(b, y)))
    return x + scale(0, mix(normed(a, x)) + feed(normed(a, x)))


@pytest.mark.parametrize("rule", ["pre", "post", "sandwich", "parallel", "replace"])
def test_residual_rules_are_their_equations(rule: str) -> None:
    meta = rich_meta(shuffle=13)
    x = values_of(meta)
    trunk = made([{"repeat": 1}], residual=rule)
    layer: Any = trunk.steps[0]
    with torch.no_grad():
        close(after(trunk, x, meta)[0], expected(rule, layer, x, meta, lambda _, change: change))


@pytest.mark.parametrize("rule", ["pre", "post", "sandwich", "parallel", "replace"])
def test_the_factor_falls_with_depth_and_layerscale_is_of_each_channel(rule: str) -> None:
    meta = rich_meta(shuffle=14)
    x = values_of(meta)
    trunk = made([{"repeat": 4}], residual=f"{rule}(gain=0.7, per_depth=0.5, layerscale=0.3)")
    with torch.no_grad():
        y = x
        for layer in list(trunk.steps)[:4]:
            rules: Any = layer.residuals
            y = expected(rule, layer, y, meta, lambda k, change, rules=rules: change * rules[k].scale * 0.7 / 2)  # type: ignore[misc]
        close(after(trunk, x, meta)[0], y)


def test_every_rule_is_tested() -> None:
    assert set(residuals.entries) <= {"pre", "post", "sandwich", "parallel", "replace"}, "a new rule needs its equation here"


def test_stochastic_depth_keeps_the_mean_and_leaves_out_whole_samples() -> None:
    meta = rich_meta()
    x = values_of(meta)
    trunk = made([{"ffn": "none"}, {"ffn": "none"}], residual="pre(drop=0.4)")
    first, second = (made([{"ffn": "none"}]) for _ in range(2))
    first.steps[0].load_state_dict(trunk.steps[0].state_dict())
    second.steps[0].load_state_dict(trunk.steps[1].state_dict())
    whole = after(trunk, x, meta)[0]
    begin = after(first, x, meta)[0]
    close(after(second, begin, meta)[0], whole)
    trunk.train()
    plan, change, times = trunk.plan(meta), whole - begin, 250
    torch.manual_seed(0)
    total = torch.zeros_like(x)
    with torch.no_grad():
        for _ in range(times):
            got = trunk.run(x, plan).tokens - begin  # the first layer lies at depth 0 and is never left out
            for sample in (0, 1, 3):
                mine = meta.sample == sample
                left_out = bool((got[mine].abs() < 1e-12).all())
                assert left_out or torch.allclose(got[mine], change[mine] / 0.6, rtol=0, atol=1e-10)
            total += got
    rate = (total / times / change)[meta.sample == 0].mean()  # the mean of b / 0.6, four standard deviations around 1
    assert abs(float(rate) - 1) < 4 * math.sqrt(0.4 / 0.6 / times)


# --- sharing


def test_sharing_by_task_uses_the_tasks_own_weights_after_the_fork() -> None:
    meta = rich_meta(shuffle=15)
    x = values_of(meta)
    trunk = made([{"fork": "task"}, {"sharing": "task"}], frame=TASKS)
    got, left = after(trunk, x, meta)
    assert left.task is not None
    _own_sets(trunk.steps[1], x, meta, [got[left.task == k] for k in range(2)])


def _own_sets(layer: Any, x: Tensor, meta: Meta, got: list[Tensor]) -> None:
    """Each set's result is that of a plain layer with its weights."""
    for k, result in enumerate(got):
        plain = made([{}])
        mine = {n.replace(f".parts.{k}.", "."): v for n, v in layer.state_dict().items() if ".parts." not in n or f".parts.{k}." in n}
        plain.steps[0].load_state_dict(mine)
        close(result, after(plain, x, meta)[0])


def test_sharing_by_level_uses_each_scales_own_weights() -> None:
    meta = rich_meta(shuffle=16)
    x = values_of(meta)
    trunk = made([{"resample": "pool(2, keep=true)"}, {"sharing": "level", "scope": "level"}])
    pyramid, left = after(made([{"resample": "pool(2, keep=true)"}]), x, meta)
    got, _ = after(trunk, x, meta)
    assert set(left.level.tolist()) == {0, 1}
    for level in (0, 1):
        mine = left.level == level
        layer: Any = trunk.steps[1]
        assert isinstance(layer.ffn, PerSet)
        plain = made([{}])
        sets = {n.replace(f".parts.{level}.", "."): v for n, v in layer.state_dict().items() if f".parts.{level}." in n}
        plain.steps[0].load_state_dict({**sets, **{n: v for n, v in layer.state_dict().items() if ".parts." not in n}})
        close(got[mine], after(plain, pyramid[mine], left.select(torch.nonzero(mine).squeeze(1)))[0])


def test_sharing_over_depth_is_one_layer_applied_again() -> None:
    meta = rich_meta(shuffle=17)
    x = values_of(meta)
    trunk = made([{"repeat": 3, "sharing": "depth"}])
    plain = made([{}])
    plain.steps[0].load_state_dict(trunk.steps[0].state_dict())
    y = x
    for _ in range(3):
        y = after(plain, y, meta)[0]
    close(after(trunk, x, meta)[0], y)
    assert sum(p.numel() for p in trunk.parameters()) == sum(p.numel() for p in plain.parameters())


def test_roles_are_shared_each_in_its_own_way() -> None:
    trunk = made([{"repeat": 2, "sharing": {"norm": "all", "mixer": "depth", "ffn": "modality"}}])
    first, second = (step for step in trunk.steps if isinstance(step, Layer))
    assert first.mixer is second.mixer
    assert first.norms[0] is not second.norms[0]
    assert isinstance(first.ffn, PerSet) and isinstance(second.ffn, PerSet)
    assert first.ffn is not second.ffn


# --- steps of each source


def test_steps_of_each_source_are_written_out_once_for_each() -> None:
    meta = rich_meta(shuffle=18)
    x = values_of(meta)
    short = made([{"insert": "bottleneck(1)"}, {"each": [{"scope": "cross(inserted <- each)"}, {"on": "each", "scope": "source"}]}])
    names = [f"source({k})" for k in range(len(NAMES.sources))]
    steps = [s for n in names for s in ({"scope": f"cross(inserted <- {n})"}, {"on": n, "scope": "source"})]
    long = made([{"insert": "bottleneck(1)"}, *steps])
    long.load_state_dict(short.state_dict())
    assert torch.equal(after(short, x, meta)[0], after(long, x, meta)[0])
    assert short.frame.num_layers == long.frame.num_layers == 2 * len(names)


@pytest.mark.parametrize(
    ("each", "frame", "message"),
    [
        ([{"scope": "sample"}], Frame(), "has not been told the names of its sources"),
        ([{"fork": "task"}], FRAME, "a fork does not stand among steps"),
        ("sample", FRAME, "expected a list of steps"),
        ([{"scop": "each"}], FRAME, r"each\[0\].scop is unknown; did you mean 'scope'"),
    ],
)
def test_what_cannot_be_done_for_each_source_is_refused(each: Any, frame: Frame, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_trunk([{"each": each}, {"read": "mean"}], {}, width=WIDTH, num_modalities=5, frame=frame)


def test_a_token_that_would_see_nothing_is_left_alone_if_asked_so() -> None:
    meta = rich_meta()
    x = values_of(meta)
    trunk = made([{"scope": "cross(title <- photo, if_any=true)"}])
    other = made([{"scope": "cross(title <- photo)"}])
    other.load_state_dict(trunk.state_dict())
    sees, blind = (meta.column == 1) & (meta.sample == 0), (meta.column == 1) & (meta.sample == 3)
    got, plain = after(trunk, x, meta)[0], after(other, x, meta)[0]
    assert torch.equal(got[sees], plain[sees])
    assert torch.equal(got[blind], x[blind])
    assert not bool((plain[blind] == x[blind]).all(1).any())
