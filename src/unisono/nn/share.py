"""Sharing: which tokens use which set of weights.

A layer asks its sharing to wrap every token-wise part (a norm, a projection, a feed-forward); the wrapped part takes the tokens and
the batch's ``Sets``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unisono.core.plan import Sets
from unisono.core.registry import Registry, Traits
from unisono.core.tokens import Meta

# T tokens, D width, S sets of weights


class TokenWise(nn.Module):
    """A token-wise function with its weights chosen per token: ``forward((T, D), sets) -> (T, D')``."""


class Shared(TokenWise):
    """One set of weights for every token."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x_TD: Tensor, sets: Sets | None) -> Tensor:
        """Apply the part to all tokens."""
        result: Tensor = self.part(x_TD)
        return result


class PerSet(TokenWise):
    """One copy of a part for each set; every token goes through its own set's copy."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x_TD: Tensor, sets: Sets | None) -> Tensor:
        """Apply each set's copy to its tokens."""
        if sets is None:
            raise ValueError("weights per set need the batch's sets")
        pieces = torch.split(x_TD[sets.order], list(sets.sizes))
        return torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)])[sets.inverse]


class Sharing(ABC):
    """How a layer's weights are shared over tokens; light, without weights of its own."""

    @abstractmethod
    def wrap(self, make: Callable[[], nn.Module], num_modalities: int) -> TokenWise:
        """Wrap a token-wise part. ``num_modalities`` counts the inserted tokens as one more."""

    @abstractmethod
    def sets(self, meta: Meta, num_modalities: int) -> Sets | None:
        """The batch's sets, or None where there is only one."""


sharings: Registry[Sharing] = Registry("sharing", Sharing, package="unisono.nn")


@sharings.register("all", traits=Traits(exempt={"source": "the ordinary case, which no paper claims"}))
class ShareAll(Sharing):
    """One set of weights for all tokens."""

    def wrap(self, make: Callable[[], nn.Module], num_modalities: int) -> TokenWise:
        """One part for all."""
        return Shared(make())

    def sets(self, meta: Meta, num_modalities: int) -> Sets | None:
        """There is only one set."""
        return None


@sharings.register(
    "modality",
    source="arXiv:2411.04996",
    traits=Traits(exempt={"gradient": "a modality without tokens, inserted tokens among them, leaves its weights untouched"}),
)
class SharePerModality(Sharing):
    """One set of weights for each modality, and one for inserted tokens: every token-wise part is the token's modality's own."""

    def wrap(self, make: Callable[[], nn.Module], num_modalities: int) -> TokenWise:
        """A part for each modality."""
        return PerSet([make() for _ in range(num_modalities)])

    def sets(self, meta: Meta, num_modalities: int) -> Sets | None:
        """Tokens sorted by modality."""
        return Sets.of(meta.modality, num_modalities)
