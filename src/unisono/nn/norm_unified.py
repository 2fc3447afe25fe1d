"""Unified normalisation: smoothed statistics in training, fixed ones in evaluation that fold into the next linear map.

Letters: T tokens, D width, M modalities, W batches of the window.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unisono.core.registry import Count, Fraction, Index, Positive, Traits
from unisono.nn.moments import IN_TRAINING, ByModality, count_and_means, scaled, wide
from unisono.nn.norm import norms
from unisono.nn.part import Frame

#: How far the gradient may be corrected for the batch's scale being another than the running one.
_MOST = 5.0
#: Below this share of the arithmetic mean its distance from the geometric one is rounding.
_ROUNDING = 1e-6


def outlier(window_WD: Tensor, square_D: Tensor, oldest: int, eps: float = 0.0) -> Tensor:
    """Whether a batch's second moments fall out of the last ones: in any channel ``A - G > W Var(sqrt(window))``.

    A and G are the arithmetic and geometric mean of the window in which the batch has taken the oldest one's place; the variance, over
    batches and channels, is that of the window before.

    Args:
        window_WD: second moments of the last W batches.
        square_D: those of the batch.
        oldest: the batch that would leave the window.
        eps: of the geometric mean.

    Returns:
        A boolean scalar.
    """
    spread = window_WD.sqrt().var(unbiased=window_WD.numel() > 1)
    after = window_WD.clone()
    after[oldest] = square_D
    arithmetic = after.mean(0)
    distance = arithmetic - geometric_mean(after, eps)
    return (distance > len(window_WD) * spread + _ROUNDING * arithmetic).any()


def geometric_mean(window_WD: Tensor, eps: float = 0.0) -> Tensor:
    """``exp(mean(log(x + eps))) - eps`` over the first axis; with an eps, one zero does not make all of it zero."""
    return (window_WD + eps).log().mean(0).exp() - eps


@norms.register(
    "unified",
    source="arXiv:2208.01313",
    traits=Traits(exempt={"samples": IN_TRAINING, "gradient": "in training the statistics' part in the gradient is a moving average"}),
)
class UnifiedNorm(ByModality):
    """``y = x / sqrt(s2 + eps) * g + b``: in training ``s2`` is the geometric mean of a channel's last W second moments, later a fixed one.

    Backward, with the gradient ``h`` of ``z = x / s``: ``dx = (r h - nu z) / s``, where ``nu`` is the mean of ``mean(r h z)`` over the
    last W batches and ``r = sqrt(s2 + eps) / sqrt(running + eps)``, within [1/5, 5], corrects for evaluation's scale. A batch that
    ``outlier`` finds, and every one before the window is full and the warm-up over, is normalised by its own moments with its own exact
    gradient; an outlier enters neither window nor running moments. All of it for each modality by itself.

    ``fixed`` gives what folds into the next linear map in evaluation.

    Args:
        width: D.
        frame: knows M.
        eps: added to the second moment.
        momentum: weight of the newest moments in the running ones.
        window: W.
        warmup: so many batches of a modality are normalised by their own moments.
        filtering: whether outliers are left out.
    """

    moments: Tensor
    along: Tensor
    running: Tensor

    def __init__(
        self, *, width: int, frame: Frame, eps: Positive = 1e-5, momentum: Fraction = 0.1, window: Count = 4, warmup: Index = 20,
        filtering: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(width=width, frame=frame, eps=eps)
        self.momentum, self.window, self.warmup, self.filtering = momentum, window, warmup, filtering
        self.register_buffer("moments", torch.ones(self.num, window, width))
        self.register_buffer("along", torch.zeros(self.num, window, width))
        self.register_buffer("running", torch.ones(self.num, width))

    def fixed(self) -> tuple[Tensor, Tensor]:
        """Scale and shift in evaluation: ``y = x s[m] + t[m]`` for a token of modality m; (M, D) each."""
        scale = self.weight * torch.rsqrt(self.running + self.eps)
        return scale, self.bias.expand_as(scale)

    def forward(self, x_TD: Tensor, plan: Any) -> Tensor:
        """Normalise (T, D) by the modalities (T,)."""
        x = wide(x_TD)
        if not self.training:
            return self.affine(x * torch.rsqrt(self.running + self.eps)[plan], x_TD)
        return self.affine(self._trained(x, plan), x_TD)

    def _trained(self, x: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            count, (square_MD,) = count_and_means([x * x], index, self.num, gradient=False)
            used_MD, own_M, kept_M, place_M = self._moments(count, square_MD.to(self.running.dtype))
            r_MD = ((used_MD + self.eps) / (self.running + self.eps)).sqrt().clamp(1 / _MOST, _MOST)
            r_MD = torch.where(own_M.unsqueeze(1), torch.ones_like(r_MD), r_MD)
            rate = torch.where(kept_M.unsqueeze(1), self.rate(self.momentum), torch.zeros_like(r_MD[:, :1]))
            self.running.lerp_(used_MD, rate)
            scale = torch.rsqrt(used_MD + self.eps).to(x.dtype)

        def settle(square: Tensor, along: Tensor) -> Tensor:
            rows = torch.nonzero(kept_M).squeeze(1)
            self.along[rows, place_M[rows]] = along[rows].to(self.along.dtype)
            return torch.where(own_M.unsqueeze(1), along, self.along.mean(1).to(along.dtype))

        return scaled(x, index, scale, settle, r_MD.to(x.dtype))

    def _moments(self, count: Tensor, square_MD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The moments (M, D) to divide by; which modalities go by their own batch alone, which are recorded, and where in the window."""
        used = square_MD.clone()
        kept, place = count > 0, self.batches % self.window
        own = torch.ones_like(kept)
        ripe = kept & (self.batches >= max(self.window, self.warmup))
        for m in torch.nonzero(ripe).squeeze(1).tolist():
            oldest = int(place[m])
            if self.filtering and bool(outlier(self.moments[m], square_MD[m], oldest, self.eps)):
                kept[m] = False
                continue
            self.moments[m, oldest] = square_MD[m]
            used[m] = geometric_mean(self.moments[m], self.eps).clamp(min=0)
            own[m] = False
        early = torch.nonzero(kept & own).squeeze(1)
        self.moments[early, place[early]] = square_MD[early]
        self.batches += kept
        return used, own, kept, place
