"""One space for all sources: every cell of every source as a unit vector, made by a projector of the source's own.

A list cell gives one vector an item, so that several captions of a picture are several vectors of one row.

Letters: B rows, T tokens, D width of the trunk, E width of the space, N vectors of a source, K tokens of a source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from unisono.core.registry import Count, Registry
from unisono.core.tokens import Meta
from unisono.ops.segment import segment_max, segment_mean


@dataclass(frozen=True)
class Side:
    """What a batch shows of one source.

    Attributes:
        vectors: (N, E) of unit length, in order of row and item.
        row: (N,) int64, the row of the batch that each belongs to.
        place: (N,) int64, its place in a list cell.
        tokens: (K, E) of unit length, or None where the space keeps none.
        owner: (K,) int64, the vector that each token belongs to.
        content: (N,) int64, equal for equal cells; None where nobody asked.
    """

    vectors: Tensor
    row: Tensor
    place: Tensor
    tokens: Tensor | None = None
    owner: Tensor | None = None
    content: Tensor | None = None

    def __len__(self) -> int:
        return len(self.row)

    def of_rows(self, rows: int) -> tuple[Tensor, Tensor]:
        """One unit vector a row, (B, E), the normalised mean over its items; and which rows have any, (B,) bool."""
        has = torch.bincount(self.row, minlength=rows) > 0
        if len(self) == rows and bool(has.all()):
            return self.vectors, has
        return unit(segment_mean(self.vectors, self.row, rows)), has


#: Source -> what a batch shows of it; every source of the model is there.
Shown = Mapping[str, Side]


def unit(x: Tensor) -> Tensor:
    """``x / |x|`` over the last axis, in float32 or better; zero stays zero."""
    return nn.functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def mean_of_sources(shown: Shown, rows: int) -> Tensor:
    """A row's vector (B, E): the normalised mean of its sources' vectors; zero for a row without any."""
    parts = [side.of_rows(rows) for side in shown.values()]
    total = torch.stack([vectors * has[:, None] for vectors, has in parts]).sum(0)
    return unit(total)


def join(parts: Sequence[Shown], rows: Sequence[int]) -> dict[str, Side]:
    """Micro-batches as one batch, their rows one behind the other.

    Args:
        parts: what each shows.
        rows: how many rows each has.
    """
    found = {}
    for name in parts[0]:
        sides, begin, units = [], 0, 0
        for shown, count in zip(parts, rows, strict=True):
            side = shown[name]
            owner = None if side.owner is None else side.owner + units
            sides.append(replace(side, row=side.row + begin, owner=owner))
            begin, units = begin + count, units + len(side)
        tokens = [s.tokens for s in sides if s.tokens is not None]
        owners = [s.owner for s in sides if s.owner is not None]
        found[name] = Side(
            torch.cat([s.vectors for s in sides]),
            torch.cat([s.row for s in sides]),
            torch.cat([s.place for s in sides]),
            torch.cat(tokens) if tokens else None,
            torch.cat(owners) if owners else None,
        )
    return found


class Projector(nn.Module):
    """``P(x) - c``: a linear map, or two with a GELU between them, less a centre that is set once, before training.

    Vectors of an untrained network all point one way, and what is to be told apart is small beside what is alike; less their mean they
    point every way. (Scenes by picture, caption and sound stay at chance without it.)

    Args:
        width: D.
        to: E.
        layers: 1 or 2.
    """

    centre: Tensor

    def __init__(self, width: int, to: int, layers: int) -> None:
        super().__init__()
        inner = [nn.Linear(width, 2 * width), nn.GELU()] if layers == 2 else []
        self.map = nn.Sequential(*inner, nn.Linear(2 * width if inner else width, to))
        self.register_buffer("centre", torch.zeros(to))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., E)."""
        projected: Tensor = self.map(x)
        return projected - self.centre.to(projected.dtype)

    def set_centre(self, x: Tensor) -> None:
        """Take what is said of x (N, D) on average for the centre."""
        with torch.no_grad():
            if len(x) > 1:
                self.centre.copy_(self.map(x).mean(0))


class Space(nn.Module):
    """Normalises tokens, and projects what they say of each source by a projector of that source.

    Args:
        width: D.
        to: E.
        sources: their names, in the order of ``Meta.source``.
        layers: of each projector.
    """

    #: What its vectors are: ``global``, ``tokens`` or ``lexical``.
    word = "global"

    def __init__(self, *, width: int, to: int, sources: Sequence[str], layers: int) -> None:
        super().__init__()
        self.sources, self.size = tuple(sources), to
        self.norm = nn.LayerNorm(width)
        self.project = nn.ModuleList(Projector(width, to, layers) for _ in self.sources)

    def forward(self, x_TD: Tensor, meta: Meta) -> dict[str, Side]:
        """What tokens (T, D) show of each source; inserted tokens show nothing."""
        real = torch.nonzero(meta.source >= 0).squeeze(1)
        source, row, place = meta.source[real], meta.sample[real], meta.item[real]
        items = int(place.max()) + 1 if len(place) else 1
        rows = max(meta.num_samples, 1)
        key, owner = torch.unique((source * rows + row) * items + place, return_inverse=True)
        x = self.norm(x_TD)[real]
        of, found = key // (items * rows), {}
        for k, name in enumerate(self.sources):
            mine, tokens = torch.nonzero(of == k).squeeze(1), torch.nonzero(source == k).squeeze(1)
            first = int(mine[0]) if len(mine) else 0
            vectors, kept = self.make(k, x[tokens], owner[tokens] - first, len(mine))
            where = key[mine]
            kept_owner = None if kept is None else owner[tokens] - first
            found[name] = Side(vectors, where // items % rows, where % items, kept, kept_owner)
        return found

    def make(self, source: int, x_KD: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
        """Unit vectors (N, E) of one source, and its tokens where they are kept.

        Args:
            source: its number.
            x_KD: its normalised tokens.
            owner: (K,) the vector that each belongs to.
            count: N.
        """
        return unit(self.project[source](segment_mean(x_KD, owner, count))), None

    def centre(self, x_TD: Tensor, meta: Meta) -> None:
        """Set every projector's centre by what tokens (T, D) of some rows show."""
        x = self.norm(x_TD)
        for k, project in enumerate(self.project):
            mine = torch.nonzero(meta.source == k).squeeze(1)
            _, owner = torch.unique(meta.sample[mine], return_inverse=True)
            assert isinstance(project, Projector)
            project.set_centre(self.seen(x[mine], owner))

    def seen(self, x_KD: Tensor, owner: Tensor) -> Tensor:
        """What projectors are given of a source's tokens: one vector a row, the mean of its tokens."""
        return segment_mean(x_KD, owner, int(owner.max()) + 1 if len(owner) else 0)


spaces: Registry[Space] = Registry("space", Space, package="unisono.nn", runtime=("width", "sources"))


@spaces.register("global", source="arXiv:2103.00020")
class GlobalSpace(Space):
    """One vector a cell, of its tokens' mean: ``z = P_s(mean_t norm(x_t)) / |.|``.

    Args:
        width: D.
        sources: their names.
        size: E.
        layers: of each projector, 1 or 2.
    """

    def __init__(self, *, width: int, sources: Sequence[str], size: Count = 128, layers: Literal[1, 2] = 1) -> None:
        super().__init__(width=width, to=size, sources=sources, layers=layers)


@spaces.register("tokens", source="arXiv:2111.07783")
class TokenSpace(Space):
    """One unit vector a token, ``z_t = P_s(norm(x_t)) / |.|``; a cell's vector is their normalised mean.

    Args:
        width: D.
        sources: their names.
        size: E.
        layers: of each projector, 1 or 2.
    """

    word = "tokens"

    def __init__(self, *, width: int, sources: Sequence[str], size: Count = 64, layers: Literal[1, 2] = 1) -> None:
        super().__init__(width=width, to=size, sources=sources, layers=layers)

    def make(self, source: int, x_KD: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
        """Tokens first, then their mean."""
        tokens = unit(self.project[source](x_KD))
        return unit(segment_mean(tokens, owner, count)), tokens

    def seen(self, x_KD: Tensor, owner: Tensor) -> Tensor:
        """Every token by itself."""
        return x_KD


@spaces.register("lexical", source="arXiv:2407.17827")
class LexicalSpace(Space):
    """Non-negative weights over ``words`` that all sources share: ``z_v = max_t (ELU(P_s(norm(x_t)))_v + 1) / |.|``.

    The inner product of two cells is the sum over words of the products of their weights, so that it can be told which words made it.

    Args:
        width: D.
        sources: their names.
        words: E, the size of the vocabulary.
        layers: of each projector, 1 or 2.
    """

    word = "lexical"

    def __init__(self, *, width: int, sources: Sequence[str], words: Count = 512, layers: Literal[1, 2] = 1) -> None:
        super().__init__(width=width, to=words, sources=sources, layers=layers)

    def make(self, source: int, x_KD: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
        """The largest weight of each word."""
        return unit(segment_max(nn.functional.elu(self.project[source](x_KD)) + 1.0, owner, count)), None

    def centre(self, x_TD: Tensor, meta: Meta) -> None:
        """Nothing: weights that are never negative have no centre to be off."""
