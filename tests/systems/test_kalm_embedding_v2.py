"""KaLM-Embedding-V2 (arXiv:2506.20923): a query counts the more the worse it is answered."""

from __future__ import annotations

import pytest
import torch

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of
from unisono.objectives.separation import Softmax


def test_focus_zero_is_plain_contrast_in_value_and_gradient() -> None:
    made, shown = alignments_of("kalm-embedding-v2", ("a", "b")), sides(("a", "b"))
    [term] = terms_of(made)
    assert isinstance(term.loss, Softmax)
    assert term.loss.focus > 0
    focused = loss_of(made, shown)
    term.loss.focus = 0.0
    expected = contrast(shown["a"].vectors, shown["b"].vectors, temperature(term))
    assert loss_of(made, shown) == pytest.approx(expected, abs=1e-6)
    assert focused < expected


def test_the_weight_is_what_the_true_answer_lacks_and_has_no_gradient() -> None:
    from unisono.objectives.separation import Scored

    [term] = terms_of(alignments_of("kalm-embedding-v2", ("a", "b")))
    assert isinstance(term.loss, Softmax)
    s = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    one = torch.eye(5, dtype=torch.bool)
    [found] = torch.autograd.grad(term.loss(Scored(s, one)), s)
    p = torch.softmax(s / temperature(term), 1)
    weight = (1 - p.diagonal().detach()) ** term.loss.focus
    [expected] = torch.autograd.grad(-(weight * p.diagonal().log()).mean(), s)
    assert torch.allclose(found, expected, atol=1e-6)
