"""MPUC-MER (arXiv:2207.11482): the sum over every pair of modalities of a symmetric contrast."""

from __future__ import annotations

import itertools

import pytest

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of


@pytest.mark.parametrize("sources", [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")])
def test_the_loss_is_the_mean_of_the_pairs_symmetric_contrasts(sources: tuple[str, ...]) -> None:
    made, shown = alignments_of("mpuc-mer", sources), sides(sources)
    t = temperature(terms_of(made)[0])
    pairs = [contrast(shown[a].vectors, shown[b].vectors, t) for a, b in itertools.combinations(sources, 2)]
    assert loss_of(made, shown) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
