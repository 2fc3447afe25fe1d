"""ONE-PEACE (arXiv:2305.11172): shared attention, a feed-forward for each modality, so that another modality changes nothing."""

from __future__ import annotations

import re

import torch

from tests.systems.whole import WIDTH, after, of_modalities, tokens, trunk_of
from unisono.core.tokens import Meta
from unisono.nn.trunk import Trunk

NAME = "one-peace"


def grown(trunk: Trunk, old: int, new: int) -> Trunk:
    """The same trunk with feed-forwards for more modalities; those of inserted tokens stay last."""
    big = trunk_of(NAME, modalities=new, seed=9)
    weights = trunk.state_dict()
    fresh = big.state_dict()

    def there(key: str) -> str:
        return re.sub(rf"parts\.{old}\.", f"parts.{new}.", key)

    assert {there(key) for key in weights} < fresh.keys()
    big.load_state_dict({**fresh, **{there(key): value for key, value in weights.items()}})
    return big


def adapted(meta: Meta, adapters: list[torch.nn.Linear]) -> torch.Tensor:
    """Tokens as the adapter of each modality makes them of raw values."""
    raw = torch.randn(len(meta), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return torch.stack([adapters[m](x) for x, m in zip(raw, meta.modality.tolist(), strict=True)])


def test_another_modality_changes_no_bit_of_the_earlier_ones() -> None:
    torch.manual_seed(0)
    adapters = [torch.nn.Linear(3, WIDTH).double() for _ in range(4)]
    trunk, meta = trunk_of(NAME, modalities=4), of_modalities(0, 1, 2, 3)
    before = adapted(meta, adapters)
    big = grown(trunk, 4, 5)
    adapters.append(torch.nn.Linear(3, WIDTH).double())
    assert torch.equal(after(big, adapted(meta, adapters), meta), after(trunk, before, meta))
    assert torch.equal(big(before, big.plan(meta)), trunk(before, trunk.plan(meta)))
    own = [p.numel() for n, p in big.named_parameters() if "parts.4." in n]
    assert sum(p.numel() for p in big.parameters()) - sum(p.numel() for p in trunk.parameters()) == sum(own) > 0


def test_rows_of_one_modality_give_the_others_feed_forwards_no_gradient() -> None:
    for modality in range(5):
        trunk, (values, meta) = trunk_of(NAME), tokens(of_modalities(modality))
        after(trunk, values, meta).square().sum().backward()
        for name, p in trunk.named_parameters():
            found = re.search(r"ffn\.parts\.(\d+)\.", name)
            if found:
                has = p.grad is not None and bool(p.grad.abs().sum() > 0)
                assert has == (found.group(1) == str(modality)), name


def test_the_layer_is_the_papers() -> None:
    """Shared attention with a norm ahead of its output, GeGLU with a norm ahead of its output, a factor for each channel."""
    steps = [{"repeat": 1, "mixer": "subnorm_attention(heads=1)"}, {"read": "mean"}]
    trunk, (values, meta) = trunk_of(NAME, changes={"trunk": steps}), tokens(of_modalities(1))
    layer = trunk.steps[0]
    x = values[meta.sample == 0]

    def norm(value: torch.Tensor, part: object) -> torch.Tensor:
        centred = value - value.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * part.weight + part.bias  # type: ignore[attr-defined, no-any-return]

    attention, ffn = layer.mixer, layer.ffn.parts[1]  # type: ignore[union-attr, index]
    q, k, v = attention.project(norm(x, layer.norms[0])).chunk(3, 1)  # type: ignore[union-attr, index, operator]
    y = x + layer.residuals[0].scale * attention.out(norm(torch.softmax(q @ k.T / 4, 1) @ v, attention.sub_norm))  # type: ignore[union-attr, index, operator]
    gate, value = ffn.up(norm(y, layer.ffn_norms[0])).chunk(2, 1)  # type: ignore[union-attr, index, operator]
    gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    wanted = y + layer.residuals[1].scale * ffn.down(norm(gelu * value, ffn.sub_norm))  # type: ignore[union-attr, index, operator]
    torch.testing.assert_close(after(trunk, values, meta)[meta.sample == 0], wanted, rtol=0, atol=1e-12)
