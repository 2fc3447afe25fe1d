"""FILIP (arXiv:2111.07783): every token looks for its best on the other side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of


def test_one_token_a_side_gives_the_plain_contrast() -> None:
    made, shown = alignments_of("filip", ("a", "b")), sides(("a", "b"), tokens=1)
    x, y = (shown[s].tokens for s in "ab")
    assert x is not None
    assert y is not None
    assert loss_of(made, shown) == pytest.approx(contrast(x, y, temperature(terms_of(made)[0])), abs=1e-6)


def test_the_order_of_tokens_does_not_matter() -> None:
    made, shown = alignments_of("filip", ("a", "b")), sides(("a", "b"), tokens=3)
    a = shown["a"]
    assert a.tokens is not None
    assert a.owner is not None
    turn = torch.randperm(len(a.owner), generator=torch.Generator().manual_seed(0))
    turned = {**shown, "a": replace(a, tokens=a.tokens[turn], owner=a.owner[turn])}
    assert loss_of(made, turned) == pytest.approx(loss_of(made, shown), abs=1e-9)
