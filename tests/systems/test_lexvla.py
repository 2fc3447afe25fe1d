"""LexVLA (arXiv:2407.17827): few non-negative weights over one vocabulary."""

from __future__ import annotations

import torch

from tests.systems.aligning import alignments_of, draw, terms_of
from tests.tokens import meta_of
from unisono.nn.space import LexicalSpace
from unisono.objectives.terms import Sparse


def test_a_score_is_the_sum_over_words_of_products_of_weights_that_are_not_negative() -> None:
    made = alignments_of("lexvla", ("a", "b"))
    [space] = made.spaces
    assert isinstance(space, LexicalSpace)
    shown = space(draw(8, 4), meta_of([[2, 2], [3, 1]]))
    a, b = shown["a"].vectors, shown["b"].vectors
    assert bool((a >= 0).all())
    assert bool((b >= 0).all())
    words = a[:, None] * b[None]
    [term] = terms_of(made)
    assert torch.allclose(term.how.scores(shown["a"], shown["b"])[0], words.sum(2), atol=1e-6)
    assert isinstance(term.extra[0], Sparse)
