"""Pre-LN to pre-RMS and pre-CRMS conversion: exact properties."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.contracts.parts import build, shake
from tests.systems.norming import norm_of, normed, values_of
from tests.tokens import rich_meta
from unisono.compress.fold import fold
from unisono.compress.rms import compressed, reading_short, recentred, trainable_rms
from unisono.core.errors import ConfigError
from unisono.nn.norm import LayerNorm
from unisono.nn.trunk import Trunk

PLAIN = {"norm": "layer", "mixer": "attention(heads=2)", "ffn": "mlp(2)"}
STEPS = [{"repeat": 2}, {"read": "mean"}]
TRUNKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "plain": (STEPS, PLAIN),
    "gated, biased and rotary": (STEPS, {**PLAIN, "mixer": "attention(heads=2, rotary=2, bias=table)", "ffn": "gated(2)"}),
    "parallel with scales": (STEPS, {**PLAIN, "residual": "parallel(layerscale=0.5)"}),
    "scales": (STEPS, {**PLAIN, "residual": "pre(layerscale=0.5)"}),
    "one set over depth": (STEPS, {**PLAIN, "sharing": "depth"}),
    "a set for each modality": (STEPS, {**PLAIN, "sharing": "modality"}),
    "inserted tokens": ([{}, {"insert": "bottleneck(2)"}, {"scope": "source & bottleneck"}, {"read": "mean"}], PLAIN),
    "saved keys": ([{"save": "early"}, {}, {"keys": "early"}, {"read": "mean"}], PLAIN),
}


def made(steps: Any, defaults: Any, seed: int = 2) -> Trunk:
    torch.manual_seed(seed)
    trunk = build(steps, defaults)
    shake(trunk)
    return trunk.double()


def rms(trunk: Trunk) -> Trunk:
    """The deploying fold on a copy."""
    made, training = copy.deepcopy(trunk), trunk.training
    for word in ("scale", "rms"):
        fold(made, word)
    return made.train(training)


FORMS = {"rms": rms, "compressed": compressed}


def run(trunk: Trunk, seed: int = 0) -> torch.Tensor:
    meta = rich_meta()
    x = torch.randn(len(meta), 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.7
    for step in trunk.steps:
        if hasattr(step, "nothing"):
            step.double()
    result: torch.Tensor = trunk(x, trunk.plan(meta))
    return result


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TRUNKS)
def test_converted_trunks_give_the_same(name: str, form: str, mode: bool) -> None:
    trunk = made(*TRUNKS[name]).train(mode)
    kept = copy.deepcopy(trunk.state_dict())
    converted = FORMS[form](trunk)
    assert converted.training == mode
    torch.testing.assert_close(run(converted), run(trunk), rtol=0, atol=1e-11)
    assert all(torch.equal(v, kept[k]) for k, v in trunk.state_dict().items())
    left = [m for m in converted.modules() if isinstance(m, LayerNorm)]
    assert not left
    inside = converted.run(torch.zeros(1, 8).double(), converted.plan(rich_meta().select(torch.tensor([0])))).tokens
    torch.testing.assert_close(inside.sum(1), torch.zeros(len(inside)).double(), rtol=0, atol=1e-12)


def test_single_precision_agrees_to_its_rounding() -> None:
    trunk = made(*TRUNKS["plain"])
    for form in FORMS.values():
        a, b = copy.deepcopy(trunk).float().eval(), form(trunk).float().eval()
        meta = rich_meta()
        x = torch.randn(len(meta), 8)
        torch.testing.assert_close(b(x, b.plan(meta)), a(x, a.plan(meta)), rtol=0, atol=1e-5)


def test_the_compressed_form_stores_one_value_less() -> None:
    converted = compressed(made(*TRUNKS["plain"]))
    layer: Any = converted.steps[1]
    assert layer.norms[0].weight.shape == (7,)
    assert layer.mixer.project.weight.shape == (24, 7)
    assert layer.mixer.out.weight.shape == (7, 8)
    assert layer.ffn.up.weight.shape == (16, 7)
    assert layer.ffn.down.weight.shape == (7, 16)


def test_training_goes_on_as_it_would_have() -> None:
    trunk = made([{}, {"insert": "bottleneck(2)"}, {"sharing": "depth", "repeat": 2}, {"read": "mean"}], PLAIN)
    converted = trainable_rms(trunk)
    runs = []
    for one in (trunk, converted):
        optimiser, losses = torch.optim.Adam(one.parameters(), 1e-3, eps=1e-4), []
        meta = rich_meta(shuffle=4).select(torch.arange(12))
        plan = one.plan(meta)
        for step in range(50):
            x = torch.randn(12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
            loss = one(x, plan)[:, :3].square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        runs.append(torch.stack(losses))
    assert runs[0][-1] < 0.9 * runs[0][0]
    torch.testing.assert_close(runs[1], runs[0], rtol=1e-5, atol=1e-6)


def test_rms_of_centred_tokens_is_layer_norm_and_needs_one_value_less() -> None:
    meta = rich_meta()
    x = values_of(meta)
    x = x - x.mean(1, keepdim=True)
    layer, rms, crms = (norm_of(s, w, shaken=False) for s, w in (("layer", 6), ("rms(eps=1e-5)", 6), ("crms(eps=1e-5)", 5)))
    torch.testing.assert_close(normed(rms, x, meta), normed(layer, x, meta), rtol=0, atol=1e-12)
    torch.testing.assert_close(normed(crms, x[:, :5], meta), normed(layer, x, meta)[:, :5], rtol=0, atol=1e-12)
    weight = torch.randn(4, 6).double()
    torch.testing.assert_close(x[:, :5] @ reading_short(weight).T, x @ weight.T)
    torch.testing.assert_close(recentred(weight).sum(0), torch.zeros(6).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "changes", "why"),
    [
        (STEPS, {"residual": "post"}, "residual rule Post"),
        (STEPS, {"residual": "sandwich"}, "residual rule Sandwich"),
        (STEPS, {"norm": "rms"}, "there is none"),
        (STEPS, {"sharing": {"norm": "all"}, "norm": "batch"}, "there is none"),
        ([{"repeat": 1}, {"read": {"type": "mean", "norm": {"type": "none"}}}], {}, "NoNorm looks at the mean"),
        ([{"save": "a"}, {"bridge": "linear(a)"}, {}, {"read": "mean"}], {}, "may look at the mean"),
    ],
)
def test_other_trunks_are_refused(steps: Any, changes: Any, why: str) -> None:
    trunk = made(steps, {**PLAIN, **changes})
    for form in (compressed, trainable_rms):
        with pytest.raises(ConfigError, match=why):
            form(trunk)


def test_what_one_form_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="dropout behind the last map shifts the mean"):
        trainable_rms(made(STEPS, {**PLAIN, "mixer": "attention(heads=2, dropout=0.1)"}))
    with pytest.raises(ConfigError, match="fold the scale first"):
        trainable_rms(made(STEPS, {**PLAIN, "residual": "pre(layerscale=0.5)"}))
    with pytest.raises(ConfigError, match="cannot go into the map behind it"):
        compressed(made(STEPS, {**PLAIN, "sharing": {"norm": "modality"}}))
    with pytest.raises(ConfigError, match="works at the whole width alone"):
        compressed(made([{}, {"resample": "merge(2, axes=3)"}, {}, {"read": "mean"}], PLAIN))
