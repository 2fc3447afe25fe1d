"""Norms on a condition, of static features among them: exact properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.contracts.parts import shake
from tests.systems.norming import norm_of, normed, values_of
from tests.tokens import block, cells, rich_meta
from unisono.core.errors import ConfigError
from unisono.core.tokens import Meta, concatenate

ROWS, COLUMNS, TIMES = 5, 6, 3


def world(samples: int = 2) -> Meta:
    """A clip and a static picture on the same grid, in every sample."""
    parts = []
    for b in range(samples):
        parts += [cells(b, 3, block(TIMES, ROWS, COLUMNS), samples=samples), cells(b, 2, block(ROWS, COLUMNS), samples=samples)]
    return concatenate(parts)


def modulation(norm: object, x: Tensor, meta: Meta) -> tuple[Tensor, Tensor]:
    """Gamma and beta (B, TIMES, ROWS, COLUMNS, D) of the clips, from what the norm makes of two clips over one map."""
    clip = meta.column == 3
    found = []
    for seed in (1, 2):
        own = torch.where(clip.unsqueeze(1), values_of(meta, seed=seed), x)
        found.append((norm.normalised(own, meta.modality)[clip], normed(norm, own, meta)[clip]))  # type: ignore[attr-defined, arg-type]
    (z1, y1), (z2, y2) = found
    slope = (y1 - y2) / (z1 - z2)
    shape = (meta.num_samples, TIMES, ROWS, COLUMNS, -1)
    return slope.view(shape), (y1 - slope * z1).view(shape)


def test_without_convolution_weights_it_is_batch_normalisation_exactly() -> None:
    meta = world()
    x = values_of(meta)
    for training in (True, False):
        loan, batch = norm_of("loan(photo)", shaken=False).train(training), norm_of("batch", shaken=False).train(training)
        assert torch.equal(normed(loan, x, meta), normed(batch, x, meta))


def test_modulation_is_a_convolution_of_the_static_map_and_the_same_at_all_times() -> None:
    norm, meta = norm_of("loan(photo)").eval(), world()
    x = values_of(meta)
    gamma, beta = modulation(norm, x, meta)
    static = meta.column == 2
    s = torch.relu(norm.normalised(x[static], meta.modality[static]) * norm.weight + norm.bias).view(2, ROWS, COLUMNS, 6)
    kernel = norm.convolution.weight.view(12, 3, 3, 6).permute(0, 3, 1, 2)
    change = torch.nn.functional.conv2d(s.permute(0, 3, 1, 2), kernel, norm.convolution.bias, padding=1).permute(0, 2, 3, 1)
    for t in range(TIMES):
        torch.testing.assert_close(1 + change[..., :6], gamma[:, t], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(change[..., 6:], beta[:, t], rtol=1e-6, atol=1e-8)


def test_shifting_the_map_shifts_the_modulation_inside() -> None:
    norm, meta = norm_of("loan(photo)").eval(), world()
    x = values_of(meta)
    moved = x.clone()
    static = meta.column == 2
    moved[static] = x[static].view(2, ROWS, COLUMNS, 6).roll(1, 2).reshape(-1, 6)
    for here, there in zip(modulation(norm, x, meta), modulation(norm, moved, meta), strict=True):
        torch.testing.assert_close(there[:, :, :, 2:-1], here[:, :, :, 1:-2], rtol=1e-6, atol=1e-8)
        assert not torch.allclose(there[:, :, :, 2:-1], here[:, :, :, 2:-1])


def test_tokens_without_map_or_place_and_static_ones_are_not_modulated() -> None:
    norm = norm_of("loan(photo)").eval()
    meta = concatenate([world(3).select(torch.arange(ROWS * COLUMNS)), cells(1, 2, block(2, 2), samples=3), cells(0, 0, [()], samples=3)])
    x = values_of(meta)
    y, plain = normed(norm, x, meta), norm.normalised(x, meta.modality)
    static = meta.column == 2
    torch.testing.assert_close(y[~static], plain[~static])
    torch.testing.assert_close(y[static], plain[static] * norm.weight + norm.bias)


def test_several_static_tokens_at_a_place_are_averaged() -> None:
    norm = norm_of("loan(photo, size=1)").eval()
    clip = cells(0, 3, block(1, 1, 1))
    both = concatenate([clip, cells(0, 2, block(1, 1)), cells(0, 2, block(1, 1), item=1)])
    x = values_of(both)
    z = norm.normalised(x, both.modality)
    s = torch.relu(z[1:] * norm.weight + norm.bias).mean(0)
    change = norm.convolution.weight @ s + norm.convolution.bias
    torch.testing.assert_close(normed(norm, x, both)[0], z[0] * (1 + change[:6]) + change[6:])


@pytest.mark.parametrize("sentence", ["conditional(on=place)", "conditional(on=modality)", "conditional(on=place, of=batch)"])
def test_a_conditional_norm_begins_as_its_plain_norm(sentence: str) -> None:
    meta = rich_meta()
    x, plain = values_of(meta), "batch" if "batch" in sentence else "layer"
    assert torch.equal(normed(norm_of(sentence, shaken=False), x, meta), normed(norm_of(plain, shaken=False), x, meta))


def test_gain_and_shift_are_of_place_or_modality_alone() -> None:
    meta = rich_meta()
    x = values_of(meta)
    z = normed(norm_of("layer", shaken=False), x, meta)
    for on, label in (("modality", meta.modality.unsqueeze(1)), ("place", meta.place)):
        norm = norm_of(f"conditional(on={on})", shaken=False)
        shake(norm)
        with torch.no_grad():
            norm.of.weight.fill_(1.0)
            norm.of.bias.zero_()
        y, again = normed(norm, x, meta), normed(norm, values_of(meta, seed=4), meta)
        other = normed(norm_of("layer", shaken=False), values_of(meta, seed=4), meta)
        gain = (y - again) / (z - other)
        for a in range(0, len(meta), 3):
            for b in range(len(meta)):
                same = bool((label[a] == label[b]).all())
                assert torch.allclose(gain[a], gain[b], rtol=1e-5, atol=1e-6) == same, (on, a, b)
        if on == "place":
            nowhere = (meta.place < 0).all(1)
            torch.testing.assert_close(y[nowhere], z[nowhere])


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loan: static: no modality, source or column is called 'fotos'"):
        norm_of("loan(fotos)")
    with pytest.raises(ConfigError, match="a neighbourhood around a place is odd, not 2"):
        norm_of("loan(photo, size=2)")
