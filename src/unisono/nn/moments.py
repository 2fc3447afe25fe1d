"""Statistics of each modality's tokens over a batch and over all processes, and norms that are made of them.

A modality without tokens in a batch leaves its statistics as they are. Sums of all modalities travel between processes in one exchange.

Letters: T tokens, D width, M modalities, G groups of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unisono.core.registry import Positive
from unisono.core.tokens import Meta
from unisono.nn.norm import Norm
from unisono.nn.part import Frame
from unisono.ops.segment import segment_sum

#: Why contracts of single samples do not hold of batch statistics while a model trains.
IN_TRAINING = "in training only: statistics are of the whole batch; evaluation uses running ones"


def wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.float() if x.dtype in {torch.bfloat16, torch.float16} else x


def in_groups(x_TD: Tensor, groups: int) -> Tensor:
    """Channels in groups, (T, G, D / G)."""
    return x_TD.reshape(len(x_TD), groups, x_TD.shape[1] // groups)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, where there are several; not differentiable."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.contiguous().clone()
        torch.distributed.all_reduce(values)
    return values


class _SumOverAll(torch.autograd.Function):
    """``y = sum over processes of x``; the gradient of x is the sum over processes of that of y."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        result: Tensor = _SumOverAll.apply(grads[0])  # type: ignore[no-untyped-call]
        return result


def sum_over_all(values: Tensor) -> Tensor:
    """The sum over all processes, with gradient: each process is credited with what it changed in the others' losses."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    result: Tensor = _SumOverAll.apply(values)  # type: ignore[no-untyped-call]
    return result


def count_and_means(parts: list[Tensor], index: Tensor, num: int, *, gradient: bool = True) -> tuple[Tensor, list[Tensor]]:
    """How many tokens each modality has over all processes, and the means of some of their values, in one exchange.

    Args:
        parts: (T, D) each, at least float32.
        index: (T,) modality.
        num: M.
        gradient: whether gradient flows between processes.

    Returns:
        (M,) counts, and for each of ``parts`` (M, D) means; zero for a modality without tokens.
    """
    first = parts[0]
    packed = torch.cat([first.new_ones(len(first), 1), *parts], 1)
    sums = segment_sum(packed, index, num)
    sums = sum_over_all(sums) if gradient else summed(sums)
    count = sums[:, 0].detach()
    means = sums[:, 1:] / count.clamp(min=1).unsqueeze(1)
    return count, list(torch.split(means, [p.shape[1] for p in parts], 1))


class ByModality(Norm):
    """A norm whose statistics are a modality's: ``forward`` takes the modality of each token.

    Args:
        width: D.
        frame: knows M, inserted tokens counted as a modality of their own.
        eps: added to the statistic under the root.
    """

    #: Statistics are summed over processes in every training pass, so that all have to make equally many.
    batch_statistics = True
    #: (M,) batches in which each modality had tokens.
    batches: Tensor

    def __init__(self, *, width: int, frame: Frame, eps: Positive) -> None:
        super().__init__()
        self.num, self.eps = frame.num_modalities, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("batches", torch.zeros(self.num, dtype=torch.int64))

    def plan_key(self) -> Hashable:
        """All such norms need the same."""
        return "modality"

    def plan(self, meta: Meta) -> Tensor:
        """The modality of each token, (T,)."""
        return meta.modality

    def rate(self, slowest: float) -> Tensor:
        """(M, 1) the weight of the newest batch in a running mean: ``max(slowest, 1 / batches)``, the plain mean at first."""
        return (1.0 / self.batches.clamp(min=1).to(self.weight.dtype)).clamp(min=slowest).unsqueeze(1)

    def affine(self, z_TD: Tensor, like: Tensor) -> Tensor:
        """``g z + b`` in the type of ``like``."""
        return (z_TD * self.weight + self.bias).to(like.dtype)


Nu = Callable[[Tensor, Tensor], Tensor]


class _Scaled(torch.autograd.Function):
    """``z = x s`` with a scale s that came from statistics, whose part in the gradient is not the exact one but ``nu``.

    ``dx = s (r g - nu z)`` with ``nu = settle(mean(z^2), mean(r g z))``, means over each modality and all processes.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, index: Tensor, scale_MD: Tensor, r_MD: Tensor, settle: Nu) -> Tensor:
        z_TD = x_TD * scale_MD[index]
        ctx.save_for_backward(z_TD, index, scale_MD, r_MD)
        ctx.settle = settle
        return z_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        z_TD, index, scale_MD, r_MD = ctx.saved_tensors
        g_TD = grads[0] * r_MD[index]
        _, (square_MD, along_MD) = count_and_means([z_TD * z_TD, g_TD * z_TD], index, len(scale_MD), gradient=False)
        nu_MD = ctx.settle(square_MD, along_MD)
        return scale_MD[index] * (g_TD - nu_MD[index] * z_TD), None, None, None, None


def scaled(x_TD: Tensor, index: Tensor, scale_MD: Tensor, settle: Nu, r_MD: Tensor | None = None) -> Tensor:
    """``z = x s`` with ``dx = s (r g - nu z)``, the backward pass of norms with running statistics (arXiv:2003.07845, arXiv:2208.01313).

    Args:
        x_TD: (T, D), at least float32.
        index: (T,) modality.
        scale_MD: (M, D) s, taken as a constant.
        settle: from the means of ``z^2`` and of ``r g z`` to ``nu``, (M, D) each; may keep what it is given.
        r_MD: (M, D) r; None for 1.
    """
    r_MD = torch.ones_like(scale_MD) if r_MD is None else r_MD
    result: Tensor = _Scaled.apply(x_TD, index, scale_MD, r_MD, settle)  # type: ignore[no-untyped-call]
    return result
