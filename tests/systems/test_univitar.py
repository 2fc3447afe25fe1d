"""``univitar``: pictures and videos as they are, a still being a video of one frame (arXiv:2504.01792)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.examples import column_of
from tests.systems.grids import VIDEO, WIDTH, after, close, layer, pictures, recipe_trunk, values
from tests.tokens import FRAME, block, cells
from unisono.core.tokens import concatenate
from unisono.modalities.base import tokenisers
from unisono.modalities.video import Clip
from unisono.nn.mixer import Attention
from unisono.nn.part import Known
from unisono.nn.scope import relate
from unisono.recipe import load_recipe, recipe_names


def test_the_recipe_is_listed_and_reads_pictures_at_their_own_size() -> None:
    assert "univitar" in recipe_names()
    tokens = load_recipe("univitar")["tokens"]
    assert tokens["image"] == tokens["video"]
    assert tokens["image"].startswith("native")


def test_packed_pictures_are_pictures_one_by_one() -> None:
    trunk, sizes = recipe_trunk("univitar").float(), [(2, 7), (5, 3), (1, 1), (6, 6)]
    meta = concatenate([pictures(*sizes), *(cells(k, VIDEO, block(2, 3, 1 + k), samples=4) for k in range(4))])
    x = values(meta).float()
    together = after(trunk, x, meta)
    for k in range(4):
        for column in (2, VIDEO):
            mine = torch.nonzero((meta.sample == k) & (meta.column == column)).flatten()
            close(after(trunk, x[mine], meta.select(mine)), together[mine], 1e-5)


def logits(meta: Any, x: torch.Tensor) -> torch.Tensor:
    """Scores of all pairs, from queries and keys as the attention turns them."""
    step: Any = layer("attention(heads=2, rotary=2, qk_norm=true)", "cell").steps[0]
    mixer: Attention = step.mixer
    relation = relate("cell", meta, FRAME)
    plan = mixer.plan(Known(meta), relation, "cell")
    turned = mixer._prepared(mixer.project(x, None).view(len(x), 6, -1), plan)
    return torch.einsum("qhk,nhk->qnh", turned[:, :2], turned[:, 2:4])


def test_scores_depend_on_relative_offsets_alone() -> None:
    meta = pictures((4, 5))
    x = torch.randn(1, WIDTH, dtype=torch.float64).expand(20, WIDTH)
    found = logits(meta, x)
    offset = meta.place[None, :, :2] - meta.place[:, None, :2]
    for d in {tuple(o) for o in offset.reshape(-1, 2).tolist()}:
        same = found[(offset == torch.tensor(d)).all(-1)]
        close(same, same[:1].expand_as(same), 1e-12)
    far = replace(meta, place=meta.place + torch.tensor([11, 7, 0]))
    content = values(meta)
    close(logits(far, content), logits(meta, content), 1e-12)


def test_a_still_is_a_clip_of_one_frame_from_its_pixels_to_the_end() -> None:
    rng = np.random.default_rng(0)
    stills = [rng.integers(0, 256, size, np.uint8) for size in ((16, 40, 3), (24, 9, 3))]
    clips = [Clip(p[None], np.zeros(1, np.float32)) for p in stills]
    tokeniser = tokenisers.build(load_recipe("univitar")["tokens"]["image"])
    found = {}
    torch.manual_seed(0)
    column = replace(column_of("image"), statistics=tokeniser.fit(column_of("image"), [stills]))
    module, trunk = tokeniser.module([column], WIDTH).double(), recipe_trunk("univitar")
    for word, cell in (("image", stills), ("video", clips)):
        mine = replace(column_of(word), statistics=column.statistics)
        packed = tokeniser.pack([mine], {word: cell}, None)
        packed.inputs["patches"] = packed.inputs["patches"].double()
        column_number = {"image": 2, "video": VIDEO}[word]
        meta = concatenate(
            [
                replace(cells(s, column_number, [()] * int((packed.sample == s).sum()), samples=2), place=packed.place[packed.sample == s])
                for s in range(2)
            ]
        )
        x = module(packed)
        plan = trunk.plan(meta)
        found[word] = torch.cat([trunk.run(x, plan).tokens, trunk(x, plan)])
    assert len(found["image"]) > 10
    close(found["image"], found["video"], 1e-12)


def test_stills_and_clips_of_several_frames_in_one_batch_do_not_meet() -> None:
    trunk, meta = recipe_trunk("univitar"), concatenate([pictures((3, 3)), cells(0, VIDEO, block(3, 2, 2))])
    x = values(meta)
    changed = torch.where((meta.column == VIDEO)[:, None], x + 1.0, x)
    still = meta.column == 2
    close(after(trunk, changed, meta)[still], after(trunk, x, meta)[still], 1e-12)
