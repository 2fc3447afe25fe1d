"""Masked tokens: hide some, and tell from the others which of a few prototypes each was.

Prototypes are k-means centres of the tokens' raw values (patches, frames), fitted on training rows; the code of a token is its nearest one.

Letters: N values, P numbers of a value, V codes, T tokens, D width, B rows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import ConfigError, ShapeError
from unisono.core.registry import Count, Probability
from unisono.core.tokens import Meta
from unisono.objectives.base import Objective, objectives
from unisono.objectives.losses import cross_entropy

Values = NDArray[np.float64]


def fit_codes(values: NDArray[np.floating], codes: int, *, seed: int = 0, rounds: int = 50) -> Values:
    """Lloyd's k-means from k-means++ (doi:10.1109/TIT.1982.1056489, doi:10.5555/1283383.1283494).

    Args:
        values: (N, P) of training rows.
        codes: V.
        seed: of the first centres.
        rounds: at most so many; it ends earlier where no value changes its code.

    Returns:
        (V, P) centres, each the mean of its values, in an order that the seed fixes.

    Raises:
        ConfigError: there are fewer distinct values than codes.
    """
    wide = np.asarray(values, np.float64)
    distinct = len(np.unique(wide, axis=0))
    if distinct < codes:
        raise ConfigError(f"{codes} codes for only {distinct} distinct values; ask for fewer")
    centres = _first_centres(wide, codes, np.random.default_rng(seed))
    chosen = np.full(len(wide), -1)
    for _ in range(rounds):
        distance = _distances(wide, centres)
        new = distance.argmin(1)
        if np.array_equal(new, chosen):
            break
        chosen = new
        counts = np.bincount(chosen, minlength=codes)
        far = np.argsort(-distance[np.arange(len(wide)), chosen], kind="stable")
        for empty, value in zip(np.flatnonzero(counts == 0), far, strict=False):
            chosen[value] = empty
        counts = np.bincount(chosen, minlength=codes)
        total = np.zeros_like(centres)
        np.add.at(total, chosen, wide)
        centres = np.where(counts[:, None] > 0, total / np.maximum(counts, 1)[:, None], centres)
    return centres


def _first_centres(values: Values, codes: int, rng: np.random.Generator) -> Values:
    """k-means++: each next centre is a value, drawn by its squared distance from those before."""
    centres = [values[rng.integers(len(values))]]
    nearest = ((values - centres[0]) ** 2).sum(1)
    while len(centres) < codes:
        centres.append(values[rng.choice(len(values), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, ((values - centres[-1]) ** 2).sum(1))
    return np.stack(centres)


def _distances(values: Values, centres: Values) -> Values:
    """Squared distances (N, V), a slice of values at a time."""
    parts = [((values[k : k + 1024, None] - centres[None]) ** 2).sum(2) for k in range(0, len(values), 1024)]
    return np.concatenate(parts) if parts else np.zeros((0, len(centres)))


def code_of(values: NDArray[np.floating], centres: Values) -> NDArray[np.int64]:
    """The nearest centre of each value, (N,); the first of several.

    Raises:
        ShapeError: values and centres have different lengths.
    """
    if values.ndim != 2 or values.shape[1] != centres.shape[1]:
        raise ShapeError(f"values of shape {values.shape} have no centres of {centres.shape[1]} numbers")
    nearest: NDArray[np.int64] = _distances(np.asarray(values, np.float64), centres).argmin(1)
    return nearest


def choose_masked(meta: Meta, rate: float, draw: Draw) -> Tensor:
    """Which tokens are hidden: of the n tokens of a row ``round(rate n)``, at least one and never all; none of a row of one token.

    It depends on row, epoch and seed, and not on the physical order of tokens that have places; inserted tokens are never hidden.

    Args:
        meta: tokens of B rows.
        rate: the share.
        draw: the random numbers of the B rows.

    Returns:
        (T,) bool.
    """
    row, real = meta.sample.numpy(), meta.column.numpy() >= 0
    keys = [*meta.place.numpy().T[::-1], meta.level.numpy(), meta.item.numpy(), meta.column.numpy(), ~real, row]
    order = np.lexsort(keys)
    counts = np.bincount(row[real], minlength=meta.num_samples)
    starts = np.searchsorted(row[order], np.arange(meta.num_samples))
    hide = np.clip(np.round(rate * counts), 1, np.maximum(counts - 1, 0)).astype(np.int64)
    uniform = draw.uniform("masked tokens", int(counts.max(initial=0)))
    masked = np.zeros(len(meta), np.bool_)
    for b in np.flatnonzero(hide):
        places = np.argsort(uniform[b, : counts[b]], kind="stable")[: hide[b]]
        masked[order[starts[b] + places]] = True
    return torch.from_numpy(masked)


@objectives.register("masked_codes", source="arXiv:2106.07447")
class MaskedCodes(Objective):
    """Cross-entropy of the codes of hidden tokens, the mean over them: ``-log softmax(W h_t + b)[c_t]``.

    ``hide`` puts one learned vector in the place of every hidden token; where the token stood must be known from elsewhere: a position
    that is added behind, rotary positions, or a bias of the attention.

    Args:
        width: D.
        codes: V.
        rate: share of a row's tokens that ``choose_masked`` should hide.
    """

    def __init__(self, *, width: int, codes: Count, rate: Probability = 0.4) -> None:
        super().__init__()
        self.rate = rate
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.head = nn.Linear(width, codes)

    def hide(self, x_TD: Tensor, masked: Tensor) -> Tensor:
        """The tokens (T, D) with the learned vector in place of the hidden ones."""
        return torch.where(masked[:, None], self.blank.to(x_TD.dtype), x_TD)

    def forward(self, states_TD: Tensor, codes: Tensor, masked: Tensor) -> Tensor:
        """The loss of states (T, D) of a trunk that has read what ``hide`` left."""
        losses = cross_entropy(self.head(states_TD), codes, masked)
        return losses.sum() / masked.sum().clamp(min=1)
