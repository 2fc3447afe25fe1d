"""Resampling between layers: fewer or more tokens, with the sparse map from the old to the new ones.

Letters: T tokens before, T' after, D width, K places merged into one, G groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.plan import Segments
from unisono.core.registry import Count, NonNegative, Registry
from unisono.core.relation import Members, blocks_of, combine
from unisono.core.tokens import Meta, concatenate
from unisono.nn.insert import blank_tokens
from unisono.nn.norm import LayerNorm
from unisono.nn.part import Flow, Frame
from unisono.nn.scope import Partition, Scoping
from unisono.nn.scope_grid import grid_map
from unisono.nn.step import Step, Walk
from unisono.ops.attention import attend
from unisono.ops.segment import segment_max, segment_mean


class Resample(Step):
    """Changes how many tokens there are."""

    #: Whether tokens rise to the next level, so that one more level has to be reckoned with.
    rises = False


resamples: Registry[Resample] = Registry("resample", Resample, package="unisono.nn", runtime=("width", "frame"))


class Merged(NamedTuple):
    """Tokens of one grid by the coarser place they fall into.

    Attributes:
        meta: the new tokens.
        group: (T,) the new token each old one goes into.
        gridless: (T',) bool, new tokens that are an old one without a grid.
    """

    meta: Meta
    group: NDArray[np.int64]
    gridless: NDArray[np.bool_]


def merge_places(meta: Meta, size: int) -> Merged:
    """Divide every place by ``size``; the new level is one higher, tokens without a grid stay as they are."""
    place, here = meta.place.numpy(), meta.place.numpy() >= 0
    nowhere = np.asarray(~here.any(1))
    coarse = np.where(here, place // size, -1)
    alone = np.where(nowhere, np.arange(len(meta)) + 1, 0)
    label = combine([grid_map(meta), alone, *coarse.T])
    _, first, group = np.unique(label, return_index=True, return_inverse=True)
    group = group.reshape(-1).astype(np.int64)
    new = meta.select(torch.from_numpy(first))
    mean: dict[str, Any] = {name: _mean_known(getattr(meta, name), group, len(first)) for name in ("coords", "time")}
    gridless = nowhere[first]
    level = new.level + torch.from_numpy(~gridless).long()
    edges = None if meta.edges is None else torch.from_numpy(np.stack([group[e] for e in meta.edges.numpy()]))
    new = replace(new, place=torch.from_numpy(coarse[first]), level=level, edges=edges, edge_values=meta.edge_values, **mean)
    return Merged(new, group, gridless)


def _mean_known(values: Tensor, group: NDArray[np.int64], count: int) -> Tensor:
    """The mean of the known values of each group, NaN where none is known."""
    flat = values.reshape(len(values), values.shape[1] if values.dim() > 1 else 1).numpy()
    known = ~np.isnan(flat)
    total, number = np.zeros((count, flat.shape[1])), np.zeros((count, flat.shape[1]))
    np.add.at(total, group, np.where(known, flat, 0.0))
    np.add.at(number, group, known)
    with np.errstate(invalid="ignore"):
        mean = (total / number).astype(np.float32)
    return torch.from_numpy(mean).reshape(count, *values.shape[1:])


@resamples.register("merge", source="arXiv:2103.14030")
class Merge(Resample):
    """Patch merging: ``size`` neighbours along every axis become one, ``W norm(concat of them)``; a place without a token adds nothing.

    Tokens without a grid stay as they are.

    Args:
        width: D.
        size: places merged along each axis.
        axes: most axes a grid has.
    """

    rises = True

    def __init__(self, *, width: int, size: Count = 2, axes: Count = 2) -> None:
        super().__init__()
        if axes > 3:
            raise ConfigError(f"merge: a grid has at most 3 axes, not {axes}")
        self.size, self.axes = size, axes
        self.norm = LayerNorm(width=width)
        self.maps = nn.Parameter(torch.randn(size**axes, width, width) * (width * size**axes) ** -0.5)

    def plan(self, walk: Walk) -> tuple[Any, ...]:
        """Tokens by slot, the new token each goes into, and those that are passed on."""
        merged = merge_places(walk.meta, self.size)
        place = walk.meta.place.numpy()
        if len(place) and int((place >= 0).sum(1).max()) > self.axes:
            raise ConfigError(f"merge: the tokens' grid has {int((place >= 0).sum(1).max())} axes; write merge({self.size}, axes=3)")
        old = merged.gridless[merged.group]
        slot = _slots(place, self.size, self.axes)
        tokens = np.flatnonzero(~old)
        tokens = tokens[np.argsort(slot[tokens], kind="stable")]
        sizes = tuple(np.bincount(slot[tokens], minlength=self.size**self.axes).tolist())
        walk.become(merged.meta, merged.group)
        passed = np.flatnonzero(old)
        return (
            torch.from_numpy(tokens), sizes, torch.from_numpy(merged.group[tokens]),
            torch.from_numpy(passed), torch.from_numpy(merged.group[passed]), len(merged.meta),
        )  # fmt: skip

    def forward(self, x_TD: Tensor, plan: tuple[Any, ...], flow: Flow) -> Tensor:
        """Merge (T, D) to (T', D)."""
        tokens, sizes, group, passed, to, count = plan
        pieces = torch.split(self.norm(x_TD[tokens]), list(sizes))
        mapped = torch.cat([piece @ self.maps[k].to(piece.dtype) for k, piece in enumerate(pieces)])
        merged = mapped.new_zeros(count, x_TD.shape[1]).index_add(0, group, mapped)
        return merged.index_copy(0, to, x_TD[passed].to(merged.dtype)) if len(passed) else merged


def _slots(place: NDArray[np.int64], size: int, axes: int) -> NDArray[np.int64]:
    """The place of a token among those it is merged with, along its first axes that exist."""
    within = np.where(place >= 0, place % size, 0)[:, :axes]
    slot = np.zeros(len(place), np.int64)
    for axis in range(within.shape[1]):
        slot = slot * size + within[:, axis]
    return slot


@resamples.register("pool", source="arXiv:2104.11227")
class Pool(Resample):
    """The mean or maximum of ``size`` neighbours along every axis; with ``keep`` the finer tokens stay beside the coarser ones.

    Args:
        size: places pooled along each axis.
        by: mean or maximum.
        keep: whether the tokens stay, so that a sample has both levels: a pyramid.
    """

    rises = True

    def __init__(self, *, size: Count = 2, by: Literal["mean", "max"] = "mean", keep: bool = False) -> None:
        super().__init__()
        self.size, self.pool, self.keep = size, segment_mean if by == "mean" else segment_max, keep

    def plan(self, walk: Walk) -> tuple[Segments, Tensor | None]:
        """The new token each old one goes into; in a pyramid, the new tokens that have a grid."""
        merged, meta = merge_places(walk.meta, self.size), walk.meta
        segments = Segments(torch.from_numpy(merged.group), None, len(merged.meta))
        if not self.keep:
            walk.become(merged.meta, merged.group)
            return segments, None
        fresh = torch.from_numpy(np.flatnonzero(~merged.gridless))
        walk.become(concatenate([meta, merged.meta.select(fresh)]), np.arange(len(meta)))
        return segments, fresh

    def forward(self, x_TD: Tensor, plan: tuple[Segments, Tensor | None], flow: Flow) -> Tensor:
        """Pool (T, D) to (T', D)."""
        segments, fresh = plan
        pooled = self.pool(x_TD, segments.index, segments.num)
        return pooled if fresh is None else torch.cat([x_TD, pooled[fresh]])


@resamples.register("expand", source="arXiv:2105.05537")
class Expand(Resample):
    """Back to the tokens of a tap: each gets ``y + W x``, x the token it has become; tokens put in since stay behind them.

    Args:
        width: D.
        tap: the name that a ``save`` gave.
    """

    def __init__(self, *, width: int, tap: str) -> None:
        super().__init__()
        self.tap = tap
        self.project = nn.Linear(width, width)

    def plan(self, walk: Walk) -> tuple[Tensor, Tensor, Tensor]:
        """For each token of the tap the one it has become, whether there is one, and the tokens that the tap does not have."""
        tap, meta = walk.tap(self.tap), walk.meta
        met = np.zeros(len(meta), np.bool_)
        met[tap.now[tap.now >= 0]] = True
        rest = torch.from_numpy(np.flatnonzero(~met))
        now = tap.now.copy()
        moved = np.full(len(meta), -1, np.int64)
        moved[rest.numpy()] = len(tap.meta) + np.arange(len(rest))
        first = np.full(len(meta), -1, np.int64)
        there = np.flatnonzero(now >= 0)
        first[now[there[::-1]]] = there[::-1]
        moved = np.where(first >= 0, first, moved)
        walk.become(concatenate([tap.meta, meta.select(rest)]), moved)
        tap.now = np.arange(len(tap.meta))
        return torch.from_numpy(np.maximum(now, 0)), torch.from_numpy(now >= 0), rest

    def forward(self, x_TD: Tensor, plan: tuple[Tensor, Tensor, Tensor], flow: Flow) -> Tensor:
        """Expand (T, D) to (T', D)."""
        now, there, rest = plan
        given = flow.taps[self.tap]
        if not len(x_TD):
            return given
        coarse = self.project(x_TD)[now]
        finer = given + torch.where(there.unsqueeze(1), coarse, torch.zeros((), dtype=coarse.dtype, device=coarse.device)).to(given.dtype)
        return torch.cat([finer, x_TD[rest].to(finer.dtype)]) if len(rest) else finer


@resamples.register("latents", source="arXiv:2103.03206")
class Latents(Resample):
    """Every group of tokens becomes ``num``: learned queries attend to the group, ``m_i = softmax(q_i (W_k x)' / sqrt(D)) W_v x``.

    Groups are the blocks of ``by``, a scope that is a partition; with ``seconds`` they are cut in time too, so that what happens
    together becomes ``num`` tokens of one time (arXiv:2311.05698).

    Args:
        width: D.
        frame: the model around it.
        num: tokens a group becomes.
        by: the groups.
        seconds: length of a snippet; 0 for no cut in time.
    """

    def __init__(self, *, width: int, frame: Frame, num: Count = 4, by: str = "sample", seconds: NonNegative = 0.0) -> None:
        super().__init__()
        scope = Scoping(by, "latents", frame)
        if len(scope.of(Partition)) != len(scope.words):
            raise ConfigError(f"latents: {by!r} is no partition of the tokens")
        self.scope, self.num, self.seconds = scope, num, seconds
        self.asks = nn.Parameter(torch.randn(num, width) * 0.5)
        self.norm, self.see, self.out = LayerNorm(width=width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def plan(self, walk: Walk) -> tuple[Any, Tensor]:
        """Blocks of learned queries and the groups' tokens, and which learned query each is."""
        meta, known = walk.meta, walk.known
        labels = [meta.groups.numpy(), *(label for word in self.scope.of(Partition) for label in word.labels(known.meta))]
        if self.seconds:
            snippet = np.nan_to_num(meta.time.numpy() / self.seconds, nan=-1.0)
            labels.append(np.floor(snippet).astype(np.int64))
        group = combine(labels)
        _, first, group = np.unique(group, return_index=True, return_inverse=True)
        group = group.reshape(-1).astype(np.int64)
        fresh = blank_tokens(meta, torch.from_numpy(first), self.num, -1 - walk.inserted)
        time = _mean_known(meta.time, group, len(first)).repeat_interleave(self.num)
        if self.seconds:
            time = torch.floor(time / self.seconds) * self.seconds
        modality, source = (getattr(meta, name)[torch.from_numpy(first)].repeat_interleave(self.num) for name in ("modality", "source"))
        mixed = np.zeros(len(first), np.bool_)
        np.logical_or.at(mixed, group, meta.source.numpy() != meta.source.numpy()[first][group])
        whole = torch.from_numpy(~mixed).repeat_interleave(self.num)
        column = meta.column[torch.from_numpy(first)].repeat_interleave(self.num)
        new = replace(
            fresh, time=time, column=torch.where(whole, column, fresh.column), source=torch.where(whole, source, fresh.source),
            modality=torch.where(whole, modality, fresh.modality), level=fresh.level + 1,
        )  # fmt: skip
        asks = np.arange(len(new))
        t = len(new)
        blocks = blocks_of(Members(asks, asks // self.num), Members(t + np.arange(len(meta)), group), t + len(meta))
        walk.inserted += 1
        walk.become(new, group * self.num)
        assert blocks.key is not None
        return replace(blocks, key=blocks.key - t), torch.arange(self.num).repeat(len(first))

    def forward(self, x_TD: Tensor, plan: tuple[Any, Tensor], flow: Flow) -> Tensor:
        """Gather (T, D) into (T', D)."""
        blocks, slot = plan
        k, v = self.see(self.norm(x_TD)).unsqueeze(1).chunk(2, -1)
        q = self.asks.to(k.dtype)[slot].unsqueeze(1)
        query = blocks.query if blocks.query is not None else torch.arange(len(slot), device=x_TD.device)
        gathered = attend(q[query], k[blocks.key], v[blocks.key], blocks.calls)
        done: Tensor = self.out(torch.zeros_like(gathered).index_copy(0, query, gathered))
        return done + self.asks.to(done.dtype)[slot]
