"""M3I (arXiv:2211.09807): supervised learning and contrast as one objective."""

from __future__ import annotations

import pytest
import torch

from tests.systems.aligning import alignments_of, contrast, draw, loss_of, sides, temperature, terms_of
from unisono.objectives.contrast import info_nce
from unisono.objectives.losses import cross_entropy


def test_with_one_input_and_one_target_it_is_contrast() -> None:
    made, shown = alignments_of("m3i", ("a", "b")), sides(("a", "b"))
    t = temperature(terms_of(made)[0])
    assert loss_of(made, shown) == pytest.approx(contrast(shown["a"].vectors, shown["b"].vectors, t), abs=1e-6)


def test_contrast_with_class_vectors_is_supervised_cross_entropy() -> None:
    states, classes, codes = draw(6, 8), draw(3, 8, seed=1), torch.tensor([0, 2, 1, 1, 0, 2])
    scores = states @ classes.T
    positive = codes[:, None] == torch.arange(3)[None, :]
    assert torch.allclose(info_nce(scores, positive, 1.0), cross_entropy(scores, codes, torch.ones(6, dtype=torch.bool)), atol=1e-6)
