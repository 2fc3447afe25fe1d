"""How alike two sides are: a score for every vector of the one with every vector of the other.

Letters: N and M vectors of the two sides, E width, K and L their tokens, B rows, S sources of a side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unisono.core.errors import ShapeError
from unisono.core.registry import Count, Positive, Registry
from unisono.nn.space import Side, unit
from unisono.ops.segment import segment_count, segment_max, segment_mean
from unisono.ops.transport import sinkhorn

#: Numbers that a block of token scores may hold.
_BLOCK = 1 << 24


class Likeness(ABC):
    """Scores of two sides."""

    #: How it is called, and the kinds of vectors it compares.
    word = ""
    compares: tuple[str, ...] = ("global", "lexical")

    @abstractmethod
    def scores(self, a: Side, b: Side) -> tuple[Tensor, Tensor]:
        """Scores of a's vectors with b's, (N, M), and of b's with a's, (M, N)."""

    def together(self, sides: Sequence[Side], rows: int) -> Side:
        """Several sources of a row as one vector: the normalised mean of those it has."""
        parts = [side.of_rows(rows) for side in sides]
        has = torch.stack([h for _, h in parts]).any(0)
        total = torch.stack([vectors * h[:, None] for vectors, h in parts]).sum(0)
        return _rows(unit(total), has)


def _rows(vectors: Tensor, has: Tensor) -> Side:
    row = torch.nonzero(has).squeeze(1)
    return Side(vectors[row], row, torch.zeros_like(row))


alikes: Registry[Likeness] = Registry("how", Likeness, package="unisono.objectives")


@alikes.register("cosine", source="arXiv:2103.00020")
class Cosine(Likeness):
    """``s_ij = a_i b_j`` of unit vectors."""

    word = "cosine"
    compares = ("global", "tokens", "lexical")

    def scores(self, a: Side, b: Side) -> tuple[Tensor, Tensor]:
        """One matrix, both ways."""
        s = a.vectors @ b.vectors.T
        return s, s.T


@alikes.register("product", source="arXiv:2411.01053")
class Product(Likeness):
    """``s = E^((S - 1) / 2) sum_e z_1e z_2e ... z_(S+1)e``: a row's other S sources are multiplied channel by channel, then compared.

    The factor keeps scores of the size of a cosine's, whatever the number of sources; for two sources it is the cosine.
    """

    word = "product"

    def scores(self, a: Side, b: Side) -> tuple[Tensor, Tensor]:
        """One matrix, both ways."""
        s = a.vectors @ b.vectors.T
        return s, s.T

    def together(self, sides: Sequence[Side], rows: int) -> Side:
        """The product of the sources of a row that has all of them."""
        parts = [side.of_rows(rows) for side in sides]
        has = torch.stack([h for _, h in parts]).all(0)
        return _rows(multiply([vectors for vectors, _ in parts]), has)


def multiply(vectors: Sequence[Tensor]) -> Tensor:
    """``E^((S - 1) / 2)`` times the product of S vectors, channel by channel."""
    product = vectors[0]
    for other in vectors[1:]:
        product = product * other * other.shape[-1] ** 0.5
    return product


def token_sides(a: Side, b: Side) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens of two sides and their owners.

    Raises:
        ShapeError: a side has no tokens.
    """
    if a.tokens is None or a.owner is None or b.tokens is None or b.owner is None:
        raise ShapeError("token by token needs a space that keeps tokens")
    return a.tokens, a.owner, b.tokens, b.owner


@alikes.register("late", source="arXiv:2111.07783")
class Late(Likeness):
    """``s_ij = mean_{k in i} max_{l in j} a_k b_l``: each token looks for its best on the other side, so that ``s_ij != s_ji``."""

    word = "late"
    compares = ("tokens",)

    def scores(self, a: Side, b: Side) -> tuple[Tensor, Tensor]:
        """Both directions from one product of tokens."""
        x, of_x, y, of_y = token_sides(a, b)
        s = x @ y.T
        to_b = segment_mean(segment_max(s.T, of_y, len(b)).T, of_x, len(a))
        to_a = segment_mean(segment_max(s, of_x, len(a)).T, of_y, len(b))
        return to_b, to_a


@alikes.register("transport", source="arXiv:1306.0895")
class Transport(Likeness):
    """``s_ij = sum_kl P_kl a_k b_l``, P the entropic transport plan between the tokens of i and j, every token of a side weighing alike.

    Args:
        sharpness: of the plan; the larger, the nearer to the best matching of tokens.
        rounds: of its scaling.
    """

    word = "transport"
    compares = ("tokens",)

    def __init__(self, *, sharpness: Positive = 10.0, rounds: Count = 10) -> None:
        self.sharpness, self.rounds = sharpness, rounds

    def scores(self, a: Side, b: Side) -> tuple[Tensor, Tensor]:
        """One matrix, both ways; rows of a are taken in blocks."""
        x, of_x, y, of_y = token_sides(a, b)
        left, left_mass = _padded(x, of_x, len(a))
        right, right_mass = _padded(y, of_y, len(b))
        size = max(1, _BLOCK // max(left.shape[1] * right.shape[1] * max(len(b), 1), 1))
        parts = []
        for k in range(0, len(a), size):
            s = torch.einsum("nke,mle->nmkl", left[k : k + size], right)
            n, m = s.shape[:2]
            mass_a = left_mass[k : k + size, None].expand(n, m, -1).reshape(n * m, -1)
            mass_b = right_mass[None].expand(n, m, -1).reshape(n * m, -1)
            flat = s.reshape(n * m, *s.shape[2:])
            with torch.no_grad():
                plan = sinkhorn(flat, mass_a, mass_b, sharpness=self.sharpness, rounds=self.rounds)
            parts.append((plan * flat).sum((1, 2)).reshape(n, m))
        found = torch.cat(parts) if parts else x.new_zeros(0, len(b))
        return found, found.T


def _padded(tokens: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Any]:
    """Tokens (N, most, E) with zeros behind, and the mass of each."""
    counts = segment_count(owner, count)
    most = int(counts.max()) if count else 0
    order = torch.argsort(owner, stable=True)
    start = torch.cumsum(counts, 0) - counts
    place = torch.empty_like(owner)
    place[order] = torch.arange(len(owner), device=owner.device) - start[owner[order]]
    padded = tokens.new_zeros(count, most, tokens.shape[1]).index_put((owner, place), tokens)
    there = torch.arange(most, device=owner.device)[None] < counts[:, None]
    return padded, there.to(tokens.dtype) / counts.clamp(min=1)[:, None].to(tokens.dtype)
