"""Supervised losses, one value a row, in float32 whatever the scores' type.

Letters: B rows, K classes or labels.

``keep`` (B,) says which rows have a target. The others give exactly zero and no gradient, whatever stands in their place: their
scores are replaced before the loss is taken, so that not even an infinite score reaches the gradient as NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from unisono.core.errors import ShapeError


def kept(scores: Tensor, keep: Tensor) -> Tensor:
    """Scores in float32 (float64 stays), zero where there is no target."""
    if keep.shape != scores.shape[:1]:
        raise ShapeError(f"{scores.shape[0]} rows of scores, but {tuple(keep.shape)} say which have a target")
    wide = scores if scores.dtype == torch.float64 else scores.float()
    return torch.where(keep.view(-1, *[1] * (scores.dim() - 1)), wide, torch.zeros((), dtype=wide.dtype, device=wide.device))


def cross_entropy(
    scores: Tensor, codes: Tensor, keep: Tensor, *, offset: Tensor | None = None, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy with a fixed offset, class weights and label smoothing.

    ``w_y * [(1 - s) * -log p_y + s * mean_k(-log p_k)]`` with ``p = softmax(scores + offset)``. With the offset ``log prior`` this is
    the logit-adjusted loss of arXiv:2007.07314 (eq. 10, tau 1); smoothing after arXiv:1512.00567, section 7.

    Args:
        scores: (B, K) raw scores.
        codes: (B,) class codes; read only where ``keep``.
        keep: (B,) bool, rows with a target.
        offset: (K,) added to the scores.
        weights: (K,) weight of a row by its class.
        smoothing: s, 0 to 1.

    Returns:
        (B,) nats.
    """
    wide = kept(scores, keep)
    if offset is not None:
        wide = wide + offset.to(wide)
    log_p = F.log_softmax(wide, dim=1)
    place = torch.where(keep, codes.long(), 0)
    loss = -log_p.gather(1, place[:, None])[:, 0]
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * log_p.mean(1)
    if weights is not None:
        loss = loss * weights.to(loss)[place]
    return torch.where(keep, loss, torch.zeros_like(loss))


def squared(scores: Tensor, values: Tensor, keep: Tensor) -> Tensor:
    """Half the squared error, ``(s - v)^2 / 2``; scores and values (B,)."""
    error = _error(scores, values, keep)
    return 0.5 * error * error


def huber(scores: Tensor, values: Tensor, keep: Tensor, *, delta: float = 1.0) -> Tensor:
    """Huber's loss: ``e^2 / 2`` within ``delta``, ``delta * (|e| - delta / 2)`` beyond.

    Source: Huber, Robust estimation of a location parameter, 1964.

    Args:
        scores: (B,) predictions.
        values: (B,) truths, on the same scale.
        keep: (B,) bool, rows with a target.
        delta: where the square becomes a line, in units of the values.
    """
    error = _error(scores, values, keep)
    size = error.abs()
    return torch.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))


def gaussian(scores: Tensor, values: Tensor, keep: Tensor) -> Tensor:
    """Negative log-likelihood of a normal distribution, its constant left out: ``(e^2 exp(-a) + a) / 2`` with ``a`` the log variance.

    Args:
        scores: (B, 2), mean and log variance; the log variance is held in [-10, 10].
        values: (B,) truths, on the same scale.
        keep: (B,) bool, rows with a target.
    """
    error = _error(scores[:, 0], values, keep)
    log_variance = kept(scores[:, 1], keep).clamp(-10.0, 10.0)
    return torch.where(keep, 0.5 * (error * error * torch.exp(-log_variance) + log_variance), torch.zeros_like(error))


def _error(scores: Tensor, values: Tensor, keep: Tensor) -> Tensor:
    wide = kept(scores, keep)
    return wide - torch.where(keep, values.to(wide), torch.zeros_like(wide))


def binary_cross_entropy(
    scores: Tensor, values: Tensor, keep: Tensor, *, offset: Tensor | None = None, focus: float = 0.0, smoothing: float = 0.0
) -> Tensor:
    """Binary cross-entropy, the mean over K labels, optionally asymmetric.

    With ``focus`` g the loss of an absent label is multiplied by ``sigmoid(score)^g``: easy negatives count less
    (arXiv:2009.14119, eq. 4, without its margin).

    Args:
        scores: (B, K) raw scores.
        values: (B, K), 1 where the label applies, else 0.
        keep: (B,) bool, rows with a target.
        offset: (K,) added to the scores.
        focus: g, 0 for the plain loss.
        smoothing: moves truths towards a half: ``v (1 - s) + s / 2``.

    Returns:
        (B,) nats a label.
    """
    wide = kept(scores, keep)
    if offset is not None:
        wide = wide + offset.to(wide)
    truth = torch.where(keep[:, None], values.to(wide), torch.zeros_like(wide)) * (1 - smoothing) + 0.5 * smoothing
    negative = F.softplus(wide)
    if focus:
        negative = negative * torch.sigmoid(wide) ** focus
    loss = (truth * F.softplus(-wide) + (1 - truth) * negative).mean(1)
    return torch.where(keep, loss, torch.zeros_like(loss))
