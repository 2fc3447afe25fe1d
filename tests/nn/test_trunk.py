"""The trunk: its rules over tokens, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tokens import meta_of
from unisono.core.errors import ConfigError
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.trunk import Trunk

SCHEDULES: dict[str, list[dict[str, Any]]] = {
    "early": [{"repeat": 2, "scope": "sample"}, {"read": "mean"}],
    "late": [{"repeat": 2, "scope": "source"}, {"read": "mean(by=source)"}],
    "experts": [{"repeat": 2, "scope": "modality", "sharing": "modality", "norm": "rms", "ffn": "gated"}, {"read": "mean(by=source)"}],
    "narrow": [{"scope": "source"}, {"insert": "bottleneck(2)"}, {"repeat": 2, "scope": "source & bottleneck"}, {"read": "mean"}],
}
COUNTS = [[2, 3, 0], [0, 1, 1], [0, 0, 0], [4, 0, 2], [1, 1, 1]]
WIDTH = 8


def build(name: str, modalities: int = 3) -> Trunk:
    torch.manual_seed(1)
    trunk = build_trunk(SCHEDULES[name], {"mixer": "attention(heads=2)", "ffn": "mlp(2)"}, width=WIDTH, num_modalities=modalities)
    return trunk.double().eval()


def run(trunk: Trunk, values: torch.Tensor, meta: Meta) -> torch.Tensor:
    result: torch.Tensor = trunk(values, trunk.plan(meta))
    return result


@pytest.fixture(params=sorted(SCHEDULES))
def trunk(request: pytest.FixtureRequest) -> Trunk:
    return build(request.param)


def test_order_of_tokens_does_not_matter(trunk: Trunk) -> None:
    meta, values = meta_of(COUNTS), torch.randn(16, WIDTH, dtype=torch.float64)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(run(trunk, values, meta).float(), run(trunk, values[order], meta.select(order)).float(), rtol=0, atol=1e-6)


def test_samples_never_interact(trunk: Trunk) -> None:
    meta, values = meta_of(COUNTS), torch.randn(16, WIDTH, dtype=torch.float64)
    together = run(trunk, values, meta)
    for sample in range(len(COUNTS)):
        index = torch.nonzero(meta.sample == sample).squeeze(1)
        alone = meta.select(index)
        alone = replace(alone, sample=torch.zeros_like(alone.sample), num_samples=1)
        torch.testing.assert_close(run(trunk, values[index], alone)[0], together[sample], rtol=0, atol=1e-6)


def test_every_parameter_gets_gradient(trunk: Trunk) -> None:
    meta, values = meta_of(COUNTS), torch.randn(16, WIDTH, dtype=torch.float64)
    out = run(trunk, values, meta)
    (out * torch.randn_like(out)).sum().backward()
    used = {name for name, p in trunk.named_parameters() if p.grad is not None}
    unused = {name for name, _ in trunk.named_parameters()} - used
    inserts_nothing = ".parts.3." if len(trunk.steps) == 3 else "none"
    assert {name for name in unused if inserts_nothing not in name} == set()


def test_empty_sample_is_read_as_the_learned_vector(trunk: Trunk) -> None:
    read: Any = trunk.steps[-1]
    torch.nn.init.normal_(read.nothing)
    values = torch.randn(16, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(run(trunk, values, meta_of(COUNTS))[2], read.nothing)


def test_a_batch_without_any_token(trunk: Trunk) -> None:
    out = run(trunk, torch.zeros(0, WIDTH, dtype=torch.float64), meta_of([[0, 0, 0], [0, 0, 0]]))
    assert out.shape == (2, WIDTH)
    assert torch.isfinite(out).all()


def test_late_fusion_keeps_sources_apart() -> None:
    trunk, meta, values = build("late"), meta_of([[2, 3, 1]]), torch.randn(6, WIDTH, dtype=torch.float64)
    whole = run(trunk, values, meta)
    alone = torch.stack([run(trunk, values[i], meta.select(i)) for i in (torch.nonzero(meta.source == s).squeeze(1) for s in range(3))])
    torch.testing.assert_close(whole, alone.mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"scop": "sample"}, {"read": "mean"}], r"trunk\[0\].scop is unknown; did you mean 'scope'"),
        ([{"scope": "sampel"}, {"read": "mean"}], "did you mean 'sample'"),
        ([{"mixer": "atention"}, {"read": "mean"}], "did you mean 'attention'"),
        ([{"norm": "layer(eps=-1)"}, {"read": "mean"}], "eps"),
        ([{"sharing": "modalty"}, {"read": "mean"}], "did you mean 'modality'"),
        ([{"residual": "past"}, {"read": "mean"}], "residual"),
        ([{"scope": "sample"}], "has to be a read"),
        ([{"read": "mean"}, {"scope": "sample"}], "has to be a read"),
        ([{"insert": "bottleneck(0)"}, {"read": "mean"}], "num"),
        ([{"insert": "bottleneck(2)", "scope": "sample"}, {"read": "mean"}], "takes no other key"),
        ([{"repeat": -1}, {"read": "mean"}], "cannot be repeated"),
        ("sample", "expected a list of steps"),
        ([{"mixer": "attention(heads=3)"}, {"read": "mean"}], "no multiple of 3 heads"),
    ],
)
def test_what_is_no_sentence_is_refused(steps: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_trunk(steps, {}, width=8, num_modalities=2)
