"""Pictures at their own size, and a still beside a video of one frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import column_of
from tests.modalities.shape_helpers import check_alone_equals_batched
from unisono.core.schema import Column
from unisono.modalities.native import Native, native_grid
from unisono.modalities.video import Clip

SIZES = [(8, 8), (8, 24), (30, 7), (17, 12)]


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in SIZES]


def fitted(tokeniser: Native, word: str, cells: list[Any]) -> Column:
    column = column_of(word)
    return replace(column, statistics=tokeniser.fit(column, [cells]))


@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.integers(1, 16), most=st.integers(1, 40))
def test_the_grid_keeps_the_ratio_and_the_bound(height: int, width: int, side: int, most: int) -> None:
    h, w = native_grid(height, width, side, most)
    assert h >= 1
    assert w >= 1
    assert h * w <= most
    small = max(1, round(height / side)) * max(1, round(width / side)) <= most
    if height * width <= most * side * side and small:
        assert (h, w) == (max(1, round(height / side)), max(1, round(width / side)))


def test_patches_are_the_picture_cut_up() -> None:
    tokeniser, cells = Native(side=4, augment=0.0), [np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)]
    column = fitted(tokeniser, "image", cells)
    packed = tokeniser.pack([column], {"image": cells}, None)
    assert packed.place[:, :2].tolist() == [[i, j] for i in range(2) for j in range(3)]
    mean, std = (np.array(column.statistics[k]) for k in ("mean", "std"))
    for (i, j), patch in zip(packed.place[:, :2].tolist(), packed.inputs["patches"], strict=True):
        expected = (cells[0][4 * i : 4 * i + 4, 4 * j : 4 * j + 4] - mean) / std
        np.testing.assert_allclose(patch.numpy(), expected.reshape(-1), atol=1e-5)


@pytest.mark.parametrize("position", ["place", "step", "none"])
def test_a_still_is_a_video_of_one_frame(position: Any) -> None:
    tokeniser, stills = Native(side=8, augment=0.0, position=position), pictures()
    clips = [Clip(p[None], np.zeros(1, np.float32)) for p in stills]
    still, clip = fitted(tokeniser, "image", stills), fitted(tokeniser, "video", clips)
    assert still.statistics == clip.statistics
    module = tokeniser.module([still], 16)
    a, b = tokeniser.pack([still], {"image": stills}, None), tokeniser.pack([clip], {"video": clips}, None)
    assert torch.equal(module(a), module(b))
    assert torch.equal(a.place[:, :2], b.place[:, 1:])
    assert bool((b.place[:, 0] == 0).all())


def test_every_picture_has_its_own_number_of_tokens_alone_and_among_others() -> None:
    tokeniser, cells = Native(side=8), pictures()
    column = fitted(tokeniser, "image", cells)
    packed = tokeniser.pack([column], {"image": cells}, None)
    assert torch.bincount(packed.sample).tolist() == [1, 3, 4, 4]
    check_alone_equals_batched(tokeniser, [column], {"image": cells}, tokeniser.module([column], 16))
