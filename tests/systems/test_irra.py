"""IRRA (arXiv:2303.12501): several correct matches share the probability."""

from __future__ import annotations

import torch

from tests.systems.aligning import alignments_of, terms_of
from unisono.objectives.separation import Scored, Softmax


def test_no_gradient_is_left_where_correct_matches_share_the_probability_but_one_hot_contrast_has_some() -> None:
    [term] = terms_of(alignments_of("irra", ("a", "b")))
    same = torch.arange(6) // 2
    together = same[:, None] == same[None, :]
    s = torch.where(together, 1.0, -1.0).to(torch.float64).requires_grad_()
    term.loss(Scored(s, together)).backward()
    one_hot = s.detach().clone().requires_grad_()
    Softmax(temperature=0.05).double()(Scored(one_hot, torch.eye(6, dtype=torch.bool))).backward()
    assert s.grad is not None
    assert one_hot.grad is not None
    assert float(s.grad.abs().max()) < 1e-6
    assert float(one_hot.grad.abs().max()) > 0.1


def test_with_one_match_each_both_have_their_least_value_at_the_same_scores() -> None:
    [term] = terms_of(alignments_of("irra", ("a", "b")))
    one = torch.eye(6, dtype=torch.bool)
    for loss in (term.loss, Softmax(temperature=0.05).double()):
        best = torch.where(one, 1.0, -1.0).to(torch.float64).requires_grad_()
        loss(Scored(best, one)).backward()
        assert best.grad is not None
        assert float(best.grad.abs().max()) < 1e-6
