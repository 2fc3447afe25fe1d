"""MatFormer (arXiv:2310.07707): the first inner units of a feed-forward are a smaller one."""

from __future__ import annotations

import copy
import itertools

import torch

from tests.systems.whole import WIDTH, after, tokens, trunk_of
from unisono.nn.nested import choose_units, extract, nested_parts
from unisono.nn.part import Flow

INNER = 2 * WIDTH
SIZES = (4, 8, 16, 32)


def test_a_slice_equals_the_masked_full_model() -> None:
    trunk, (values, meta) = trunk_of("matformer"), tokens()
    whole = copy.deepcopy(trunk)
    for units in itertools.product(SIZES, repeat=2):
        masked = copy.deepcopy(whole)
        for part, m in zip(nested_parts(masked), units, strict=True):
            with torch.no_grad():
                part.ffn.down.weight[:, m:] = 0  # type: ignore[union-attr, index, operator]
        choose_units(trunk, units)
        small = extract(trunk)
        wanted = after(masked, values, meta)
        torch.testing.assert_close(after(trunk, values, meta), wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(after(small, values, meta), wanted, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_every_mix_of_sizes_is_a_model_of_another_size() -> None:
    trunk = trunk_of("matformer")
    sizes = set()
    for units in itertools.combinations_with_replacement(SIZES, 2):
        choose_units(trunk, units)
        sizes.add(sum(p.numel() for p in extract(trunk).parameters()))
    assert len(sizes) == 10


def test_a_drawn_size_gives_no_gradient_beyond_its_slice() -> None:
    calm = {"defaults": {"mixer": "attention(heads=4)", "ffn": "mlp(2)"}}
    trunk, (values, meta) = trunk_of("matformer", changes=calm).train(), tokens()
    plan = trunk.plan(meta)
    for seed in range(12):
        torch.manual_seed(seed)
        units = SIZES[Flow().draw("again", len(SIZES))]
        torch.manual_seed(seed)
        trunk.zero_grad()
        trunk.run(values, plan).tokens.square().sum().backward()
        for part in nested_parts(trunk):
            for grad, axis in ((part.ffn.up.weight.grad, 0), (part.ffn.up.bias.grad, 0), (part.ffn.down.weight.grad, 1)):  # type: ignore[union-attr]
                used = grad.abs().transpose(0, axis).flatten(1).sum(1) if grad.ndim > 1 else grad.abs()  # type: ignore[union-attr, operator]
                assert bool((used[:units] > 0).all()) and not bool((used[units:] > 0).any())
