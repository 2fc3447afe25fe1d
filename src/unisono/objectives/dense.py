"""Masks: a class for every pixel, told by the token that the pixel lies in.

Letters: T tokens, D width, K classes, H and W height and width of a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.errors import ShapeError
from unisono.core.registry import Count
from unisono.core.tokens import Meta
from unisono.objectives.base import Objective, objectives


class Cell(NamedTuple):
    """One item of a batch's cells.

    Attributes:
        sample: the row.
        column: the column's index.
        item: its place in a list cell.
    """

    sample: int
    column: int
    item: int = 0


def pixel_tokens(meta: Meta, cell: Cell, size: tuple[int, int], side: int, step: int = 2) -> NDArray[np.int64]:
    """The token that each pixel of a picture lies in, (H, W); -1 where there is none.

    A token at place (i, j) of level l covers the pixels of rows ``i c .. (i + 1) c - 1`` and columns ``j c .. (j + 1) c - 1`` with
    ``c = side step^l``; where several levels cover a pixel, the finest has it.

    Args:
        meta: the tokens as they leave a trunk (``Plan.last``), or as they were at a tap.
        cell: the picture.
        size: H, W.
        side: pixels along a side of a token of level 0.
        step: how many places of a level become one of the next.

    Raises:
        ShapeError: a side is not positive.
    """
    if side < 1 or step < 1 or min(size) < 0:
        raise ShapeError(f"pixels {size} in tokens of side {side}, merged by {step}")
    mine = (meta.sample == cell.sample) & (meta.column == cell.column) & (meta.item == cell.item)
    mine &= (meta.place[:, 0] >= 0) & (meta.place[:, 1] >= 0)
    if meta.task is not None:
        mine &= meta.task <= 0
    tokens = torch.nonzero(mine).squeeze(1).numpy()
    found = np.full(size, -1, np.int64)
    place, level = meta.place.numpy()[tokens], meta.level.numpy()[tokens]
    for at in np.unique(level)[::-1]:
        here, cover = level == at, side * step ** int(at)
        grid = np.full(place[here, :2].max(0) + 1, -1, np.int64)
        grid[place[here, 0], place[here, 1]] = tokens[here]
        row, column = (np.arange(n) // cover for n in size)
        inside = np.ix_(row < grid.shape[0], column < grid.shape[1])
        part = grid[np.ix_(row[row < grid.shape[0]], column[column < grid.shape[1]])]
        found[inside] = np.where(part >= 0, part, found[inside])
    return found


def label_counts(token: NDArray[np.int64], label: NDArray[np.int64], tokens: int, classes: int) -> Tensor:
    """How many pixels of each class lie in each token, (T, K) float32; pixels without a token or of a class below 0 do not count.

    Args:
        token: the token of each pixel, any shape.
        label: the class of each pixel, the same shape.
        tokens: T.
        classes: K.

    Raises:
        ShapeError: the shapes differ, or a class is none of K.
    """
    if token.shape != label.shape:
        raise ShapeError(f"pixels {token.shape} have classes of shape {label.shape}")
    if label.size and int(label.max()) >= classes:
        raise ShapeError(f"a pixel has the class {int(label.max())} of {classes}")
    known = (token >= 0) & (label >= 0)
    flat = np.bincount(token[known] * classes + label[known], minlength=tokens * classes)
    return torch.from_numpy(flat.reshape(tokens, classes).astype(np.float32))


def mask_loss(scores: Tensor, counts: Tensor) -> Tensor:
    """The mean over pixels of ``-log softmax(scores of the pixel's token)[class]`` (arXiv:1411.4038), from the pixels of each class.

    Args:
        scores: (T, K).
        counts: (T, K) what ``label_counts`` gives.

    Returns:
        Nats a pixel; zero without any.

    Raises:
        ShapeError: the shapes differ.
    """
    if scores.shape != counts.shape:
        raise ShapeError(f"scores {tuple(scores.shape)}, but pixels {tuple(counts.shape)}")
    wide = scores if scores.dtype == torch.float64 else scores.float()
    any_pixel = counts.sum(1, keepdim=True) > 0
    log_p = torch.log_softmax(torch.where(any_pixel, wide, torch.zeros_like(wide)), 1)
    n = counts.to(log_p)
    return -(n * log_p).sum() / n.sum().clamp(min=1)


def to_pixels(scores: Tensor, token: NDArray[np.int64]) -> Tensor:
    """The scores (T, K) of each pixel's token, (H, W, K); zeros where there is none."""
    index = torch.from_numpy(token).to(scores.device)
    if not len(scores):
        return scores.new_zeros(*token.shape, scores.shape[1])
    return torch.where((index >= 0)[..., None], scores[index.clamp(min=0)], torch.zeros((), dtype=scores.dtype, device=scores.device))


@objectives.register("mask", source="arXiv:2105.05633")
class Mask(Objective):
    """``mask_loss`` of a linear map of the states: a class for each token, and so for each pixel.

    Args:
        width: D.
        classes: K.
    """

    def __init__(self, *, width: int, classes: Count) -> None:
        super().__init__()
        self.head = nn.Linear(width, classes)

    def forward(self, states_TD: Tensor, counts: Tensor) -> Tensor:
        """The loss of states (T, D), given the pixels of each class in each token (T, K)."""
        return mask_loss(self.head(states_TD), counts)
