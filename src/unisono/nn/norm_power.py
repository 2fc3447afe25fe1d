"""Power normalisation: running quadratic means in place of a batch's mean and variance.

Letters: T tokens, D width, M modalities, G groups of channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unisono.core.errors import ConfigError
from unisono.core.registry import Fraction, Index, Positive, Traits
from unisono.nn.moments import IN_TRAINING, ByModality, count_and_means, in_groups, scaled, wide
from unisono.nn.norm import norms
from unisono.nn.part import Frame


def group_scaled(x_TD: Tensor, groups: int, eps: float) -> Tensor:
    """Each of G groups of a token's channels divided by its own root mean square, (T, D)."""
    grouped = in_groups(x_TD, groups)
    return torch.flatten(grouped * torch.rsqrt(grouped.square().mean(2, keepdim=True) + eps), 1)


@norms.register(
    "power",
    source="arXiv:2003.07845",
    traits=Traits(exempt={"samples": IN_TRAINING, "gradient": "in training the statistics' part in the gradient is a running estimate"}),
)
class PowerNorm(ByModality):
    """``y = x / sqrt(psi2 + eps) * g + b`` with a running mean ``psi2`` of ``x^2`` for each channel and modality; nothing is centred.

    ``psi2 <- a psi2 + (1 - a) mean(x^2)`` after its use. Backward, with the gradient ``h`` of ``z = x / psi``: ``dx = (h - nu z) / psi``
    and then ``nu <- nu (1 - (1 - a) mean(z^2)) + (1 - a) mean(h z)``. The first batches of a modality use their own statistics and exact
    gradient; ``psi2`` is their plain mean. Each token's groups of channels are brought to unit root mean square beforehand.

    Args:
        width: D, a multiple of ``groups``.
        frame: knows M.
        eps: added to the mean square.
        decay: a.
        warmup: so many batches of a modality use their own statistics.
        groups: G; 0 leaves tokens unscaled.
    """

    psi2: Tensor
    nu: Tensor

    def __init__(
        self, *, width: int, frame: Frame, eps: Positive = 1e-5, decay: Fraction = 0.9, warmup: Index = 100, groups: Index = 1
    ) -> None:
        super().__init__(width=width, frame=frame, eps=eps)
        if groups and width % groups:
            raise ConfigError(f"power: the width {width} is no multiple of {groups} groups")
        self.decay, self.warmup, self.groups = decay, warmup, groups
        self.register_buffer("psi2", torch.ones(self.num, width))
        self.register_buffer("nu", torch.zeros(self.num, width))

    def forward(self, x_TD: Tensor, plan: Any) -> Tensor:
        """Normalise (T, D) by the modalities (T,)."""
        x = wide(x_TD)
        if self.groups:
            x = group_scaled(x, self.groups, self.eps)
        return self.affine(self._scaled(x, plan), x_TD)

    def _scaled(self, x: Tensor, index: Tensor) -> Tensor:
        if not self.training:
            return x * torch.rsqrt(self.psi2 + self.eps)[index]
        with torch.no_grad():
            count, (square_MD,) = count_and_means([x * x], index, self.num, gradient=False)
            seen, early = (count > 0).unsqueeze(1), (self.batches < self.warmup).unsqueeze(1)
            used = torch.where(early, square_MD.to(self.psi2.dtype), self.psi2)
            self.batches += seen.squeeze(1)
            rate = torch.where(early, self.rate(0.0), torch.full_like(self.psi2[:, :1], 1 - self.decay))
            self.psi2.copy_(torch.where(seen, torch.lerp(self.psi2, square_MD.to(self.psi2.dtype), rate), self.psi2))
            scale = torch.rsqrt(used + self.eps).to(x.dtype)

        def settle(square: Tensor, along: Tensor) -> Tensor:
            nu = torch.where(early, along, self.nu.to(along.dtype))
            a = 1 - self.decay
            self.nu.copy_(torch.where(seen, self.nu * (1 - a * square) + a * along, self.nu))
            return nu

        return scaled(x, index, scale, settle)
