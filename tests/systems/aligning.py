"""What tests of aligning systems share: a recipe's sentences over made-up sides, and the symmetric contrast in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unisono.nn.space import Side, unit
from unisono.objectives.align import Align, Alignments, Identity
from unisono.recipe import build_objective, load_recipe

WIDTH, SIZE = 4, 8


def alignments_of(recipe: str, sources: Sequence[str], kinds: Mapping[str, str] | None = None) -> Alignments:
    """The alignments of a recipe for a table of these sources."""
    words = build_objective(load_recipe(recipe)).align
    return Alignments(words, width=WIDTH, sources=sources, where=recipe, kinds=kinds).double().train()


def terms_of(made: Alignments) -> list[Align]:
    """Its sentences."""
    return [term for term in made.terms if isinstance(term, Align)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sides(sources: Sequence[str], rows: int = 6, tokens: int = 0) -> dict[str, Side]:
    """One cell a row of each source, all different, of so many tokens."""
    found = {}
    for k, name in enumerate(sources):
        row = torch.arange(rows)
        kept = (unit(draw(rows * tokens, SIZE, seed=90 + k)), row.repeat_interleave(tokens)) if tokens else (None, None)
        found[name] = Side(unit(draw(rows, SIZE, seed=k)), row, torch.zeros_like(row), *kept)
    return found


def loss_of(made: Alignments, shown: Mapping[str, Side], item: Tensor | None = None) -> float:
    """The loss of a batch in which no two cells are equal."""
    rows = len(next(iter(shown.values())))
    content = {name: torch.arange(rows)[:, None] for name in shown}
    identity = Identity(torch.arange(rows) if item is None else item, content)
    return float(made([shown] * len(made.spaces), identity)[0].detach())


def contrast(a: Tensor, b: Tensor, t: float) -> float:
    """The symmetric contrast of row i with row i."""
    s = a @ b.T / t
    return float(-(torch.log_softmax(s, 1).diagonal().mean() + torch.log_softmax(s, 0).diagonal().mean()) / 2)


def temperature(term: Align) -> float:
    """That of its loss."""
    return float(term.loss.temperature().detach())  # type: ignore[operator]
