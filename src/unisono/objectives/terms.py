"""Extra terms of an alignment, over what a batch shows of all sources.

Letters: B rows, N vectors of a source, R rows that two sources share, E width.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unisono.core.registry import NonNegative, Positive, Registry, Traits
from unisono.nn.space import Shown, Side
from unisono.objectives.separation import Scored


@dataclass(frozen=True)
class Scene:
    """What a term may look at.

    Attributes:
        shown: what the batch shows of each source.
        rows: B.
        related: two sides -> (N, M) bool, which of their vectors belong together.
        loss: the alignment's own loss of one direction.
    """

    shown: Shown
    rows: int
    related: Callable[[Side, Side], Tensor]
    loss: Callable[[Scored], Tensor]


class Term(ABC):
    """One more term of the loss.

    Args:
        weight: of the term.
    """

    #: How it is called, and whether it makes sense of a single source.
    word = ""
    alone = False

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        self.weight = weight

    @abstractmethod
    def of(self, scene: Scene) -> Tensor:
        """The term, not yet weighted; zero where nothing applies."""


terms: Registry[Term] = Registry("term", Term, package="unisono.objectives")


def nothing(shown: Shown) -> Tensor:
    """Zero, with a graph."""
    return torch.stack([side.vectors.sum() * 0.0 for side in shown.values()]).sum()


def _mean(found: list[Tensor], scene: Scene) -> Tensor:
    return torch.stack(found).mean() if found else nothing(scene.shown)


@terms.register("intra", source="arXiv:2004.11362")
class Intra(Term):
    """The alignment's loss within each source: vectors of one item (a group, a list cell, an equal cell) are near, others far.

    Args:
        weight: of the term.
    """

    word, alone = "intra", True

    def of(self, scene: Scene) -> Tensor:
        """The mean over sources in which anything belongs together."""
        found = []
        for side in scene.shown.values():
            if len(side) < 2:
                continue
            other = ~torch.eye(len(side), dtype=torch.bool, device=side.vectors.device)
            positive = scene.related(side, side) & other
            if bool(positive.any()):
                found.append(scene.loss(Scored(side.vectors @ side.vectors.T, positive, other)))
        return _mean(found, scene)


@terms.register("cycle", source="arXiv:2205.14459")
class Cycle(Term):
    """Consistency of two spaces: ``mean_jk (a_j b_k - a_k b_j)^2 + mean_jk (a_j a_k - b_j b_k)^2``, over every pair of sources.

    Args:
        weight: of the term.
    """

    word = "cycle"

    def of(self, scene: Scene) -> Tensor:
        """Over rows that have both sources."""
        found = []
        for a, b in itertools.combinations(scene.shown.values(), 2):
            (x, has_x), (y, has_y) = a.of_rows(scene.rows), b.of_rows(scene.rows)
            both = torch.nonzero(has_x & has_y).squeeze(1)
            if len(both) > 1:
                x, y = x[both], y[both]
                across = x @ y.T
                found.append((across - across.T).square().mean() + (x @ x.T - y @ y.T).square().mean())
        return _mean(found, scene)


def log_uniformity(x_NE: Tensor, relief_NN: Tensor | None = None, sharpness: float = 2.0) -> Tensor:
    """``log mean_{i != j} exp(-t (|x_i - x_j|^2 - 2 + 2 s_ij))``; without s it is s = 1, the uniformity of arXiv:2005.10242.

    Args:
        x_NE: unit vectors, at least two.
        relief_NN: s, how alike two rows are told to be: the more, the less they repel; without gradient.
        sharpness: t.
    """
    square = (2.0 - 2.0 * x_NE @ x_NE.T).clamp(min=0)
    if relief_NN is not None:
        square = square - 2.0 + 2.0 * relief_NN
    other = ~torch.eye(len(x_NE), dtype=torch.bool, device=x_NE.device)
    flat = (-sharpness * square)[other]
    return torch.logsumexp(flat, 0) - torch.log(torch.tensor(float(len(flat))))


@terms.register("uniformity", source="arXiv:2005.10242")
class Uniformity(Term):
    """Vectors of each source spread over the sphere: ``log mean_{i != j} exp(-t |x_i - x_j|^2)``, the mean over sources.

    Args:
        weight: of the term.
        sharpness: t.
    """

    word, alone = "uniformity", True

    def __init__(self, *, weight: NonNegative = 0.1, sharpness: Positive = 2.0) -> None:
        super().__init__(weight=weight)
        self.sharpness = sharpness

    def of(self, scene: Scene) -> Tensor:
        """Over sources with at least two vectors."""
        sides = [side.vectors for side in scene.shown.values() if len(side) > 1]
        return _mean([log_uniformity(x, None, self.sharpness) for x in sides], scene)


@terms.register("sparse", source="arXiv:2004.05665")
class Sparse(Term):
    """``sum_v (mean_i z_iv)^2``: what a word costs grows with the square of how much the batch uses it, which makes few words fire.

    Args:
        weight: of the term.
    """

    word, alone = "sparse", True

    def of(self, scene: Scene) -> Tensor:
        """The mean over sources."""
        return _mean([side.vectors.abs().mean(0).square().sum() for side in scene.shown.values() if len(side)], scene)


@terms.register("alignment", traits=Traits(exempt={"source": "arXiv:2005.10242 without its contrast: an attraction alone"}))
class Alignment(Term):
    """``mean_i |a_i - b_i|^2`` over every pair of sources: what belongs together is near, without any negative.

    Args:
        weight: of the term.
    """

    word = "alignment"

    def of(self, scene: Scene) -> Tensor:
        """Over rows that have both sources."""
        found = []
        for a, b in itertools.combinations(scene.shown.values(), 2):
            (x, has_x), (y, has_y) = a.of_rows(scene.rows), b.of_rows(scene.rows)
            both = has_x & has_y
            if bool(both.any()):
                found.append((x - y)[both].square().sum(1).mean())
        return _mean(found, scene)
