"""Which negatives: all of the batch, those of earlier batches too, the hardest, or mixes.

Letters: N queries, M candidates, E width, Q places of a memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unisono.core.registry import Count, Positive, Registry
from unisono.nn.space import Side, unit
from unisono.objectives.separation import Scored


@dataclass(frozen=True)
class Sides:
    """What a direction of scores is of.

    Attributes:
        query: N vectors.
        target: M vectors.
        item: (B,) int64, the item that each row of the batch is; equal for rows of one item, whatever the batch.
        name: of the direction, the same at every step.
        training: whether the module is being trained.
    """

    query: Side
    target: Side
    item: Tensor
    name: str
    training: bool


class Negatives(nn.Module):
    """Changes what a query is told from."""

    #: How it is called, and whether it makes vectors of its own.
    word = ""
    makes = False

    def __init__(self) -> None:
        super().__init__()

    def forward(self, found: Scored, sides: Sides) -> Scored:
        """The scores with other negatives."""
        raise NotImplementedError

    def prepare(self, size: int, directions: tuple[str, ...]) -> None:
        """Called once, with E and the names of the directions of scores."""

    def remember(self, sides: Sides) -> None:
        """Called after all directions of a training step have been scored."""


negatives: Registry[Negatives] = Registry("negatives", Negatives, package="unisono.objectives")


@negatives.register("batch", source="arXiv:2103.00020")
class InBatch(Negatives):
    """Everything in the batch that does not belong."""

    word = "batch"

    def forward(self, found: Scored, sides: Sides) -> Scored:
        """As it is."""
        return found


@negatives.register("mined", source="arXiv:1707.05612")
class Mined(Negatives):
    """Of the batch only the ``hardest`` negatives of each query, those of the largest scores.

    Args:
        hardest: how many.
    """

    word = "mined"

    def __init__(self, *, hardest: Count = 16) -> None:
        super().__init__()
        self.hardest = hardest

    def forward(self, found: Scored, sides: Sides) -> Scored:
        """Look at no others."""
        negative = found.negative
        if self.hardest >= negative.shape[1]:
            return found
        scores = torch.where(negative, found.scores.detach(), torch.full_like(found.scores, -torch.inf))
        chosen = torch.zeros_like(negative).scatter_(1, scores.topk(self.hardest, 1).indices, True)
        return replace(found, allowed=chosen & negative)


@negatives.register("memory", source="arXiv:1911.05722")
class Memory(Negatives):
    """The batch, and the vectors of the latest batches, kept without gradient; what is of the same item or content is no negative.

    Args:
        keep: Q, vectors kept of each target.
    """

    word, makes = "memory", True
    vectors: Tensor
    item: Tensor
    content: Tensor
    at: Tensor

    def __init__(self, *, keep: Count = 4096) -> None:
        super().__init__()
        self.keep = keep
        self.directions: tuple[str, ...] = ()

    def prepare(self, size: int, directions: tuple[str, ...]) -> None:
        """Empty places for each direction."""
        self.directions, count = directions, len(directions)
        self.register_buffer("vectors", torch.zeros(count, self.keep, size))
        self.register_buffer("item", torch.full((count, self.keep), -1, dtype=torch.int64))
        self.register_buffer("content", torch.full((count, self.keep), -1, dtype=torch.int64))
        self.register_buffer("at", torch.zeros(count, dtype=torch.int64))

    def forward(self, found: Scored, sides: Sides) -> Scored:
        """More candidates, behind those of the batch."""
        if not sides.training:
            return found
        k = self.directions.index(sides.name)
        filled = int(self.at[k].clamp(max=self.keep))
        if not filled:
            return found
        scores = sides.query.vectors @ self.vectors[k, :filled].clone().T.to(sides.query.vectors)
        content = sides.target.content
        mine = torch.zeros(len(sides.query), filled, dtype=torch.bool, device=scores.device)
        if content is not None and len(content):
            known = found.positive.to(scores.dtype) @ (content[:, None] == self.content[k, None, :filled]).to(scores.dtype)
            mine = known > 0
        mine |= sides.item[sides.query.row][:, None] == self.item[k, None, :filled]
        negative = torch.cat([found.negative, ~mine], 1)
        positive = torch.cat([found.positive, torch.zeros_like(mine)], 1)
        return Scored(torch.cat([found.scores, scores], 1), positive, negative)

    def remember(self, sides: Sides) -> None:
        """Write the targets over the oldest."""
        k, target = self.directions.index(sides.name), sides.target
        count = min(len(target), self.keep)
        place = (int(self.at[k]) + torch.arange(count, device=self.at.device)) % self.keep
        self.vectors[k, place] = target.vectors[:count].detach().to(self.vectors)
        self.item[k, place] = sides.item[target.row[:count]]
        if target.content is not None:
            self.content[k, place] = target.content[:count]
        self.at[k] += count


@negatives.register("mixed", source="arXiv:2203.03897")
class Mixed(Negatives):
    """Instead of other rows' targets their mixes with their own queries on the sphere: ``m_j = slerp(q_j, t_j, l)``, l from Beta(a, a).

    Mixes are harder than either end, and pull what lies between two sources apart from both (arXiv:2203.03897, eq. 3 and 4).

    Args:
        strength: a; small for mixes near one of the ends.
    """

    word, makes = "mixed", True

    def __init__(self, *, strength: Positive = 2.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, found: Scored, sides: Sides) -> Scored:
        """Scores of the true target, and of other targets' mixes."""
        if not sides.training or not found.positive.numel():
            return found
        partner = found.positive.to(torch.int8).argmax(0)
        mixable = found.positive.any(0)
        share = torch.distributions.Beta(self.strength, self.strength).sample((len(sides.target),)).to(found.scores)
        mixes = slerp(sides.query.vectors[partner], sides.target.vectors, share)
        scores = torch.where(found.positive | ~mixable[None], found.scores, sides.query.vectors @ mixes.T)
        return replace(found, scores=scores)


def slerp(a_NE: Tensor, b_NE: Tensor, share_N: Tensor) -> Tensor:
    """``(sin(l w) a + sin((1 - l) w) b) / sin w``, w the angle between unit vectors a and b: a at l = 1, b at l = 0, on the sphere between.

    Where they are (nearly) alike or opposed, the normalised straight mix.
    """
    cosine = (a_NE * b_NE).sum(-1, keepdim=True).clamp(-1.0, 1.0)
    plain = cosine.abs() > 1.0 - 1e-6
    w = torch.acos(torch.where(plain, torch.zeros_like(cosine), cosine))
    share = share_N[..., None]
    curved = (torch.sin(share * w) * a_NE + torch.sin((1 - share) * w) * b_NE) / torch.sin(w)
    return torch.where(plain, unit(share * a_NE + (1 - share) * b_NE).to(curved.dtype), curved)
