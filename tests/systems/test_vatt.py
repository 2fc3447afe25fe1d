"""VATT (arXiv:2104.11178): contrast with several positives of which one has to be near; one transformer for all."""

from __future__ import annotations

import pytest
import torch

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of
from unisono.core.names import Names
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame
from unisono.objectives.separation import Scored
from unisono.recipe import load_recipe


def test_with_one_positive_it_is_plain_contrast() -> None:
    made, shown = alignments_of("vatt", ("a", "b")), sides(("a", "b"))
    t = temperature(terms_of(made)[0])
    assert loss_of(made, shown) == pytest.approx(contrast(shown["a"].vectors, shown["b"].vectors, t), abs=1e-6)


def test_several_positives_are_one() -> None:
    [term] = terms_of(alignments_of("vatt", ("a", "b")))
    s = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    two = torch.eye(5, dtype=torch.bool) | torch.eye(5, dtype=torch.bool).roll(1, 1)
    p = torch.softmax(s / temperature(term), 1)
    assert float(term.loss(Scored(s, two)).detach()) == pytest.approx(float(-torch.log((p * two).sum(1)).mean()), abs=1e-6)


def test_the_trunk_has_one_transformers_parameters_however_many_modalities_there_are() -> None:
    recipe, counts = load_recipe("vatt"), []
    for kinds in (("text",), ("text", "image", "audio")):
        frame = Frame(Names(kinds, kinds, kinds, ("y",)))
        trunk = build_trunk(recipe["trunk"], recipe["defaults"], width=16, num_modalities=len(kinds), frame=frame)
        counts.append(sum(p.numel() for p in trunk.parameters()))
    assert counts[0] == counts[1]
