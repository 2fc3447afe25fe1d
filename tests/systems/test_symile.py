"""Symile (arXiv:2411.01053): contrast of tuples, which bounds the total correlation of any number of sources."""

from __future__ import annotations

import itertools

import pytest

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of
from unisono.objectives.separation import TotalCorrelation


def test_with_two_sources_and_all_tuples_the_loss_is_the_symmetric_contrast() -> None:
    made = alignments_of("symile", ("a", "b"))
    [term] = terms_of(made)
    assert isinstance(term.loss, TotalCorrelation)
    term.loss.combinations = True
    shown = sides(("a", "b"))
    assert loss_of(made, shown) == pytest.approx(contrast(shown["a"].vectors, shown["b"].vectors, temperature(term)), abs=1e-6)


def test_the_order_of_sources_does_not_matter() -> None:
    made = alignments_of("symile", ("a", "b", "c"))
    [term] = terms_of(made)
    assert isinstance(term.loss, TotalCorrelation)
    term.loss.combinations = True
    shown = sides(("a", "b", "c"))
    found = [loss_of(made, {n: shown[m] for n, m in zip("abc", order, strict=True)}) for order in itertools.permutations("abc")]
    assert found == pytest.approx([found[0]] * 6, abs=1e-6)
