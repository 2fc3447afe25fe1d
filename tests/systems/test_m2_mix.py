"""m2-mix (arXiv:2203.03897): mixes of two modalities on the sphere as hard negatives."""

from __future__ import annotations

import pytest
import torch

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of
from unisono.objectives.negatives import slerp


def test_mixes_are_unit_vectors_at_their_share_of_the_angle() -> None:
    shown = sides(("a", "b"))
    a, b = shown["a"].vectors, shown["b"].vectors
    w = torch.acos((a * b).sum(1))
    for share in (0.0, 0.3, 1.0):
        m = slerp(a, b, torch.full((6,), share, dtype=torch.float64))
        assert torch.allclose(m.norm(dim=1), torch.ones(6, dtype=torch.float64))
        assert torch.allclose(torch.acos((m * a).sum(1).clamp(-1, 1)), (1 - share) * w, atol=1e-6)


def test_without_weight_the_loss_is_the_plain_contrast_and_with_it_it_is_not() -> None:
    made, shown = alignments_of("m2-mix", ("a", "b")), sides(("a", "b"))
    plain, mixed = terms_of(made)
    expected = contrast(shown["a"].vectors, shown["b"].vectors, temperature(plain))
    assert loss_of(made, shown) > expected + 1e-3
    mixed.weight = 0.0
    assert loss_of(made, shown) == pytest.approx(expected, abs=1e-6)
