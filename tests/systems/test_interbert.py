"""``interbert``: common layers, then layers of each source's own (arXiv:2003.13198)."""

from __future__ import annotations

import torch

from tests.systems.trunks import close, gradients, recipe_trunk, values_of
from tests.tokens import NAMES, rich_meta
from unisono.nn.fork import Within

TEXT, IMAGE = NAMES.sources.index("title"), NAMES.sources.index("photo")


def test_with_pictures_absent_texts_do_not_depend_on_the_pictures_weights() -> None:
    meta = rich_meta(shuffle=1)
    text = torch.nonzero(meta.column == 1).squeeze(1)
    x, few = values_of(meta)[text], meta.select(text)
    trunk = recipe_trunk("interbert")
    before = trunk(x, trunk.plan(few))
    (before**2).sum().backward()
    sizes = gradients(trunk)
    for k, name in enumerate(NAMES.sources):
        of_source = {n: v for n, v in sizes.items() if n.startswith(f"steps.{1 + k}.")}
        assert of_source
        assert all(v > 0 for v in of_source.values()) if name == "title" else all(v == 0 for v in of_source.values())
    with torch.no_grad():
        for p in trunk.steps[1 + IMAGE].parameters():
            p.normal_()
    assert torch.equal(trunk(x, trunk.plan(few)), before)


def test_with_pictures_present_a_texts_own_stream_uses_its_own_weights_alone() -> None:
    meta = rich_meta(shuffle=1)
    x, trunk = values_of(meta), recipe_trunk("interbert")
    text = meta.column == 1
    before = trunk.run(x, trunk.plan(meta)).tokens
    with torch.no_grad():
        for k, step in enumerate(trunk.steps):
            if isinstance(step, Within) and k != 1 + TEXT:
                for p in step.parameters():
                    p.normal_()
        after = trunk.run(x, trunk.plan(meta)).tokens
        other = x.clone()
        other[meta.column == 2] = values_of(meta, 2)[meta.column == 2]
        through = trunk.run(other, trunk.plan(meta)).tokens
    close(after[text], before[text])
    assert not torch.allclose(after[~text], before[~text])
    assert not torch.allclose(through[text & (meta.sample == 0)], before[text & (meta.sample == 0)])
