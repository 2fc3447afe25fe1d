"""Convolution against torch on whole rectangles, and against its definition, token by token, on everything else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tokens import FRAME, block, cells, net, rich_meta, with_inserted
from unisono.core.errors import ConfigError
from unisono.core.tokens import Meta, concatenate
from unisono.nn.convolution import Canvases, Convolution, Neighbours
from unisono.nn.part import Known
from unisono.nn.scope import relate
from unisono.nn.share import Sharing, sharings

WIDTH = 3


def convolution(sharing: str = "all", **settings: Any) -> Convolution:
    torch.manual_seed(0)
    given: Sharing = sharings.build(sharing)
    mixer = Convolution(width=WIDTH, sharing=given, frame=FRAME, **settings).double()
    with torch.no_grad():
        for p in mixer.parameters():
            p.copy_(torch.randn_like(p))
    return mixer


def mixed(mixer: Convolution, x: Tensor, meta: Meta, scope: str = "sample") -> tuple[Tensor, Any]:
    relation = relate(scope, meta, FRAME)
    plan = mixer.plan(Known(meta), relation, scope)
    return mixer(x, relation, plan), plan.laid


def kernel(mixer: Convolution, modality: int | None = None) -> tuple[Tensor, Tensor]:
    """The taps as full matrices (K, D out, D in), and the bias."""
    taps: Any = mixer.taps if modality is None else mixer.taps.parts[modality]
    weight = torch.diag_embed(taps.weight) if taps.depthwise else taps.weight.movedim(1, 0)
    return weight.detach(), taps.bias.detach()


def reference(mixer: Convolution, x: Tensor, meta: Meta, scope: str, by_modality: bool = False) -> Tensor:
    """Every token and offset in a loop; a kernel's axes are the last ones of a token's grid."""
    sees = relate(scope, meta, FRAME).pairs().numpy()
    axes, radius = len(mixer.sides), mixer.sides[0] // 2
    offsets = list(itertools.product(range(-radius, radius + 1), repeat=axes))
    cell = list(zip(*(getattr(meta, f).tolist() for f in ("sample", "column", "item", "level")), strict=True))
    place = [tuple(p for p in row if p >= 0) for row in meta.place.tolist()]
    at = {(cell[n], place[n]): n for n in range(len(meta)) if place[n]}
    kernels = [kernel(mixer, m) for m in range(FRAME.num_modalities)] if by_modality else [kernel(mixer)]
    out = torch.zeros_like(x)
    for t in range(len(meta)):
        weights, bias = kernels[int(meta.modality[t]) if by_modality else 0]
        out[t] = bias + weights[offsets.index((0,) * axes)] @ x[t]
        has = len(place[t])
        for k, offset in enumerate(offsets):
            if not has or not any(offset) or any(offset[: max(axes - has, 0)]):
                continue
            step = (0,) * (has - axes) + offset[max(axes - has, 0) :]
            n = at.get((cell[t], tuple(p + s for p, s in zip(place[t], step, strict=True))))
            if n is not None and sees[t, n]:
                out[t] += weights[k] @ x[n]
    return out


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize(("axes", "sides"), [(1, (7,)), (2, (4, 5)), (3, (3, 2, 4))])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_rectangles_are_torchs_convolution(axes: int, sides: tuple[int, ...], size: int, depthwise: bool) -> None:
    column = {1: 1, 2: 2, 3: 3}[axes]
    meta = concatenate([cells(s, column, block(*sides), samples=2) for s in range(2)])
    mixer = convolution(size=size, axes=axes, depthwise=depthwise)
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    weights, bias = kernel(mixer)
    weight = weights.reshape(*mixer.sides, WIDTH, WIDTH).movedim((-2, -1), (0, 1))
    picture = x.view(2, *sides, WIDTH).movedim(-1, 1)
    expected = getattr(torch.nn.functional, f"conv{axes}d")(picture, weight, bias, padding=size // 2).movedim(1, -1).reshape(-1, WIDTH)
    out, laid = mixed(mixer, x, meta)
    assert isinstance(laid, Canvases)
    assert laid.slot is None  # rectangles side by side are not moved
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


SCOPES = ["sample", "cell", "window(2, shift=1)", "grid(2)", "source", "causal(place)", "context(2)", "cell & causal(place)", "neighbours"]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_kind_of_token_follows_the_definition(scope: str, axes: int) -> None:
    mixer, meta = convolution(axes=axes, depthwise=axes == 2), with_inserted(rich_meta(shuffle=4), 1)
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    torch.testing.assert_close(mixed(mixer, x, meta, scope)[0], reference(mixer, x, meta, scope), rtol=0, atol=1e-12)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 999),
    sides=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4),
    keep=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    scope=st.sampled_from(["sample", "window(2)", "window(3, shift=1)", "cell & causal(place)"]),
)
def test_ragged_grids_with_holes_follow_the_definition(seed: int, sides: list[tuple[int, int]], keep: float, scope: str) -> None:
    rng = np.random.default_rng(seed)
    meta = concatenate([cells(s, 2, block(*side), samples=len(sides)) for s, side in enumerate(sides)])
    meta = meta.select(torch.from_numpy(rng.permutation(np.flatnonzero(rng.random(len(meta)) < keep))))
    x = torch.from_numpy(rng.normal(size=(len(meta), WIDTH)))
    mixer = convolution(size=3)
    torch.testing.assert_close(mixed(mixer, x, meta, scope)[0], reference(mixer, x, meta, scope), rtol=0, atol=1e-12)


@pytest.mark.parametrize("depthwise", [True, False])
def test_canvases_and_gathered_neighbours_agree(depthwise: bool) -> None:
    meta = rich_meta(shuffle=2)
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    one, many = convolution(depthwise=depthwise), convolution("modality", depthwise=depthwise)
    for part in many.taps.parts:  # type: ignore[union-attr]
        part.load_state_dict(one.taps.state_dict())
    (a, canvases), (b, table) = mixed(one, x, meta), mixed(many, x, meta)
    assert isinstance(canvases, Canvases)
    assert isinstance(table, Neighbours)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_kernels_of_its_own_for_each_modality() -> None:
    mixer, meta = convolution("modality"), rich_meta(shuffle=2)
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    torch.testing.assert_close(mixed(mixer, x, meta)[0], reference(mixer, x, meta, "sample", by_modality=True), rtol=0, atol=1e-12)


def test_tokens_without_a_grid_get_the_centre_tap() -> None:
    mixer, meta = convolution(depthwise=False), concatenate([cells(0, 0, [()]), cells(0, 0, [()]), net(0, 3, [(0, 1)])])
    x = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    weights, bias = kernel(mixer)
    torch.testing.assert_close(mixed(mixer, x, meta)[0], x @ weights[4].T + bias, rtol=0, atol=1e-12)


def test_a_still_is_a_clip_of_one_frame() -> None:
    mixer, x = convolution(axes=3), torch.randn(6, WIDTH, dtype=torch.float64)
    still, clip = cells(0, 2, block(2, 3)), cells(0, 3, block(1, 2, 3))
    torch.testing.assert_close(mixed(mixer, x, still)[0], mixed(mixer, x, clip)[0], rtol=0, atol=1e-12)


def test_boxes_of_like_shape_share_a_call() -> None:
    meta = concatenate([cells(s, 2, block(6 + s % 2, 6), samples=8) for s in range(8)])
    _, laid = mixed(convolution(), torch.zeros(len(meta), WIDTH, dtype=torch.float64), meta)
    assert isinstance(laid, Canvases)
    assert laid.shapes == ((8, 7, 6),)
    far = concatenate([cells(0, 2, block(2, 2), samples=9), *(cells(s, 2, block(30, 30), samples=9) for s in range(1, 9))])
    _, laid = mixed(convolution(), torch.zeros(len(far), WIDTH, dtype=torch.float64), far)
    assert isinstance(laid, Canvases)
    assert laid.shapes == ((1, 2, 2), (8, 30, 30))


def test_a_few_tokens_of_a_wide_grid_are_gathered() -> None:
    meta = cells(0, 2, [(0, 0), (0, 1), (900, 900)])
    out, laid = mixed(mixer := convolution(), x := torch.randn(3, WIDTH, dtype=torch.float64), meta)
    assert isinstance(laid, Neighbours)
    torch.testing.assert_close(out, reference(mixer, x, meta, "sample"), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("given_settings", "message"), [({"size": 4}, "has to be odd"), ({"axes": 4}, "at most 3 axes")])
def test_what_is_refused(given_settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convolution(**given_settings)
