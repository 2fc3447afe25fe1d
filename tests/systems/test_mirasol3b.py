"""``mirasol3b``: snippets of sound and moving pictures as a few tokens each, and a causal model over them (arXiv:2311.05698)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.systems.trunks import recipe_trunk, values_of
from unisono.core.names import Names
from unisono.core.tokens import Meta
from unisono.nn.part import Frame
from unisono.nn.read import Read

SECONDS, NUM = 0.5, 4
NAMES = Names(("text", "video", "audio"), ("title", "clip", "sound"), ("title", "clip", "sound"))
FRAME = Frame(NAMES, num_modalities=4)


def tokens(snippets: int, frames: int = 2, patches: int = 3, windows: int = 5, words: int = 2) -> Meta:
    """One sample: so many video frames and sound windows in each snippet, and a text."""
    video = [(1, (f, p, 0), f * SECONDS / frames) for f in range(snippets * frames) for p in range(patches)]
    audio = [(2, (w, -1, -1), w * SECONDS / windows) for w in range(snippets * windows)]
    text = [(0, (w, -1, -1), float("nan")) for w in range(words)]
    found = [*text, *video, *audio]
    column = torch.tensor([c for c, _, _ in found])
    zero = torch.zeros_like(column)
    place, time = torch.tensor([p for _, p, _ in found]), torch.tensor([t for _, _, t in found])
    return Meta(zero, column, zero, column, column, zero, place, torch.full((len(column), 3), torch.nan), time, 1, 3)


def leaving(meta: Meta, x: Tensor) -> tuple[Tensor, Meta]:
    trunk = recipe_trunk("mirasol3b", frame=FRAME)
    plan = trunk.plan(meta)
    return trunk.run(x, plan).tokens, plan.last


@pytest.mark.parametrize("snippet", [0, 1, 2, 3])
def test_a_snippet_has_no_gradient_to_later_ones(snippet: int) -> None:
    meta = tokens(4)
    x = values_of(meta).requires_grad_()
    out, left = leaving(meta, x)
    mine = (left.time / SECONDS).floor() == snippet
    assert int(mine.sum()) == NUM
    (out[mine] ** 2).sum().backward()
    assert x.grad is not None
    size, of = x.grad.abs().sum(1), (meta.time / SECONDS).floor()
    assert bool((size[of > snippet] == 0).all())
    assert bool((size[of <= snippet] > 0).all())
    assert bool((size[meta.column == 0] == 0).all())


@pytest.mark.parametrize(("frames", "patches", "windows"), [(1, 1, 1), (2, 3, 5), (5, 16, 20)])
@pytest.mark.parametrize("snippets", [1, 3])
def test_there_are_num_tokens_a_snippet_however_many_there_were(snippets: int, frames: int, patches: int, windows: int) -> None:
    meta = tokens(snippets, frames, patches, windows)
    _, left = leaving(meta, values_of(meta))
    timed = ~left.time.isnan()
    assert int(timed.sum()) == NUM * snippets
    assert int((~timed).sum()) == 2
    assert sorted(set(left.time[timed].tolist())) == [SECONDS * k for k in range(snippets)]


def test_what_has_no_time_looks_at_every_snippet() -> None:
    meta = tokens(3)
    x = values_of(meta).requires_grad_()
    out, left = leaving(meta, x)
    (out[left.column == 0] ** 2).sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(1) > 0).all())


def test_snippets_of_two_sources_are_read_though_they_belong_to_no_column() -> None:
    meta = tokens(2)
    timed = torch.nonzero(meta.column > 0).squeeze(1)
    x = values_of(meta)[timed]
    trunk = recipe_trunk("mirasol3b", frame=FRAME)
    few = replace(meta.select(timed))
    out = trunk(x, trunk.plan(few))
    read = trunk.steps[-1]
    assert isinstance(read, Read)
    assert not torch.allclose(out[0], read.nothing.detach())
    assert not torch.allclose(out, trunk(2 * x[torch.randperm(len(x))], trunk.plan(few)))
