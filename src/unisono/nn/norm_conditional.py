"""Conditional normalisation: gain and shift that depend on what is known of a token besides its value.

Letters: T tokens, D width, M modalities, F frequencies, P static places, Q places, K places of a neighbourhood.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.names import Selection
from unisono.core.registry import Count, Fraction, Positive, Traits
from unisono.core.schema import AXES
from unisono.core.tokens import Meta
from unisono.nn.moments import IN_TRAINING
from unisono.nn.norm import LayerNorm, Norm, norms
from unisono.nn.norm_batch import BatchNorm
from unisono.nn.part import Frame
from unisono.nn.position import fourier_features
from unisono.ops.segment import segment_mean

#: Wavelengths of places, in places.
_WAVES = torch.logspace(np.log10(4.0), np.log10(256.0), 8)
Places = NDArray[np.int64]


def modulated(y_TD: Tensor, change_T2D: Tensor) -> Tensor:
    """``y (1 + gamma) + beta`` with the two side by side, (T, 2 D)."""
    gamma, beta = change_T2D.chunk(2, 1)
    return y_TD * (1 + gamma.to(y_TD.dtype)) + beta.to(y_TD.dtype)


@norms.register("conditional", source="arXiv:1707.00683")
class ConditionalNorm(Norm):
    """``y = n(x) (1 + gamma(c)) + beta(c)`` with a plain norm n, and a condition c that is known of each token.

    For ``place``, gamma and beta are linear in Fourier features of the grid place, zero where it has none; for ``modality`` they are
    looked up. They are zero at first, so that it begins as its plain norm.

    Args:
        width: D.
        frame: knows M.
        on: what the condition is.
        of: n.
    """

    def __init__(self, *, width: int, frame: Frame, on: Literal["place", "modality"] = "place", of: Norm | None = None) -> None:
        super().__init__()
        self.on, self.of = on, LayerNorm(width=width) if of is None else of
        self.num = frame.num_modalities if on == "modality" else 6 * len(_WAVES)
        self.change = nn.Parameter(torch.zeros(self.num, 2 * width))

    def plan_key(self) -> Hashable:
        """The condition, and what n needs."""
        return ("conditional", self.on, self.of.plan_key())

    def plan(self, meta: Meta) -> tuple[Tensor, Any]:
        """Features (T, 6 F) or modalities (T,), and n's plan."""
        condition = meta.modality if self.on == "modality" else fourier_features(meta.place, _WAVES)
        return condition, None if self.of.plan_key() is None else self.of.plan(meta)

    def forward(self, x_TD: Tensor, plan: Any) -> Tensor:
        """Normalise (T, D)."""
        condition, need = plan
        change = self.change[condition] if self.on == "modality" else condition.to(self.change.dtype) @ self.change
        return modulated(self.of(x_TD, need), change)


@dataclass(frozen=True)
class StaticPlan:
    """Where each token finds the static features around it.

    Attributes:
        modality: (T,).
        static: (P',) the static tokens.
        point: (P',) which of P places each lies at.
        points: P.
        around: (Q, K) the static places around each of the Q places of other tokens, P for none.
        place: (T,) which of the Q places a token lies at, Q for none.
    """

    modality: Tensor
    static: Tensor
    point: Tensor
    points: int
    around: Tensor
    place: Tensor


def rows_and_columns(meta: Meta, modalities: Sequence[str]) -> Places:
    """(T, 2) row and column of each token's place, -1 where it has none; which axes these are is the modality's to say."""
    place, modality = meta.place.numpy(), meta.modality.numpy()
    found = np.full((len(meta), 2), -1, np.int64)
    for k, word in enumerate(modalities):
        axes = AXES.get(word, ())
        if "row" in axes and "column" in axes:
            mine = modality == k
            found[mine] = place[mine][:, [axes.index("row"), axes.index("column")]]
    found[(found < 0).any(1)] = -1
    return found


def static_plan(meta: Meta, static: NDArray[np.bool_], at: Places, size: int) -> StaticPlan:
    """Match tokens and static tokens of the same sample (and task) by place, within a neighbourhood of ``size`` x ``size`` places."""
    group, reach = meta.groups.numpy(), size // 2
    own = np.flatnonzero(static & (at[:, 0] >= 0))
    others = np.flatnonzero(~static & (at[:, 0] >= 0) & np.isin(group, group[own]))
    # every row and column is moved by the reach, so that the neighbours of the first are no other row's last
    rows, columns = (int(at[:, k].max(initial=-1)) + 1 + 2 * reach for k in (0, 1))

    def key(index: Places) -> Places:
        name: Places = (group[index] * rows + at[index, 0] + reach) * columns + at[index, 1] + reach
        return name

    points, point = np.unique(key(own), return_inverse=True)
    asked, where = np.unique(key(others), return_inverse=True)
    place = np.full(len(meta), len(asked), np.int64)
    place[others] = where.reshape(-1)
    steps = np.arange(-reach, reach + 1)
    wanted = asked[:, None] + (steps[:, None] * columns + steps).reshape(1, -1)
    found = np.searchsorted(points, wanted)
    there = np.append(points, -1)[found] == wanted
    return StaticPlan(
        meta.modality,
        torch.from_numpy(own),
        torch.from_numpy(point.reshape(-1)),
        len(points),
        torch.from_numpy(np.where(there, found, len(points))),
        torch.from_numpy(place),
    )


@norms.register("loan", source="arXiv:2212.08208", traits=Traits(exempt={"samples": IN_TRAINING}))
class LocationAwareNorm(BatchNorm):
    """``y = n(x) (1 + gamma) + beta``: a static map says at every place how the features of things that change are to be read.

    n is batch normalisation without gain and shift, ``s = relu(batch norm(static tokens))``, and gamma and beta are convolutions of s over
    rows and columns, the same at all times. Only tokens at a place of a sample that has the map are modulated, and static tokens are not;
    these are normalised with g and b. Several static tokens at one place are averaged. The convolutions are zero at first.

    Args:
        width: D.
        frame: knows M, and the names.
        static: the modality, source or column of the static map.
        size: places along an axis that a convolution sees, odd.
        eps: added to variances.
        momentum: weight of the newest batch in the running statistics.
    """

    def __init__(self, *, width: int, frame: Frame, static: str, size: Count = 3, eps: Positive = 1e-5, momentum: Fraction = 0.1) -> None:
        super().__init__(width=width, frame=frame, eps=eps, momentum=momentum)
        if size % 2 == 0:
            raise ConfigError(f"loan: size: a neighbourhood around a place is odd, not {size}")
        self.size, self.modalities = size, frame.names.modalities
        self.static = Selection.of(static, frame.names, "loan: static")
        self.convolution = nn.Linear(size * size * width, 2 * width)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)

    def plan_key(self) -> Hashable:
        """The static map and the neighbourhood."""
        return ("loan", str(self.static), self.size)

    def plan(self, meta: Meta) -> Any:
        """Static features around each token."""
        return static_plan(meta, self.static.mask(meta), rows_and_columns(meta, self.modalities), self.size)

    def forward(self, x_TD: Tensor, plan: StaticPlan) -> Tensor:
        """Normalise (T, D)."""
        z_TD = self.normalised(x_TD, plan.modality)
        static = z_TD[plan.static] * self.weight + self.bias
        s_PD = segment_mean(torch.relu(static), plan.point, plan.points)
        s_PD = torch.cat([s_PD, s_PD.new_zeros(1, s_PD.shape[1])])
        change_Q2D = self.convolution(s_PD[plan.around].flatten(1).to(self.convolution.weight.dtype))
        change_Q2D = torch.cat([change_Q2D, change_Q2D.new_zeros(1, change_Q2D.shape[1])])
        y_TD = modulated(z_TD, change_Q2D[plan.place])
        return y_TD.index_copy(0, plan.static, static.to(y_TD.dtype)).to(x_TD.dtype)

    def fixed(self) -> None:
        """None: scale and shift differ from place to place."""
        return None
