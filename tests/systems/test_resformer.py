"""``resformer``: one model for many resolutions, by replicas that agree and positions made by convolution (arXiv:2212.00776)."""

from __future__ import annotations

import pytest
import torch

from tests.systems.grids import WIDTH, after, close, pictures, recipe_trunk, trunk_of, values
from unisono.core.errors import ShapeError
from unisono.nn.position import Position
from unisono.objectives.replicas import scale_consistency
from unisono.recipe import recipe_names

CODE = [{"mixer": "convolution(3)", "ffn": "none", "norm": "none"}, {"read": "mean"}]


def test_the_recipe_is_listed() -> None:
    assert "resformer" in recipe_names()


def test_identical_replicas_are_consistent() -> None:
    states = torch.randn(1, 5, 8, dtype=torch.float64)
    assert torch.equal(scale_consistency(states.expand(3, 5, 8)), torch.zeros(5, dtype=torch.float64))
    assert torch.equal(scale_consistency(states), torch.zeros(5, dtype=torch.float64))
    with pytest.raises(ShapeError, match="replicas, rows, width"):
        scale_consistency(states[0])


def test_the_consistency_is_its_definition_and_teaches_the_smaller_replicas_alone() -> None:
    states = (torch.randn(3, 4, 6, dtype=torch.float64) * 2).requires_grad_()
    loss = scale_consistency(states, beta=0.5)
    for b in range(4):
        total = 0.0
        for r in (1, 2):
            for d in range(6):
                e = abs(float(states[r, b, d].detach() - states[0, b, d].detach()))
                total += (e * e if e < 0.5 else e - 0.25) / 12
        assert float(loss[b].detach()) == pytest.approx(total, rel=1e-12)
    loss.sum().backward()
    assert states.grad is not None
    assert not bool(states.grad[0].any())
    assert bool(states.grad[1:].all())


def test_the_position_code_needs_no_table_and_fits_every_size() -> None:
    """Sines and cosines through a convolution: what a place gets does not depend on the size, away from the border."""
    torch.manual_seed(0)
    position, trunk = Position(2, WIDTH).double(), trunk_of(CODE, {})
    wide = pictures((11, 17))
    whole = after(trunk, position(wide.place[:, :2]), wide).view(11, 17, WIDTH)
    for h, w in ((1, 1), (3, 7), (8, 5), (11, 16)):
        meta = pictures((h, w))
        code = after(trunk, position(meta.place[:, :2]), meta).view(h, w, WIDTH)
        assert bool(torch.isfinite(code).all())
        close(code[: h - 1, : w - 1], whole[: h - 1, : w - 1])
    shapes = [p.shape for p in (*position.parameters(), *trunk.parameters())]
    assert max(s.numel() for s in shapes) == position.linear.weight.numel()


def test_the_local_part_commutes_with_translation_away_from_the_border() -> None:
    trunk, meta = trunk_of(CODE, {}), pictures((9, 10))
    picture = torch.zeros(9, 10, WIDTH, dtype=torch.float64)
    picture[2:5, 2:6] = values(pictures((3, 4))).view(3, 4, WIDTH)
    out = after(trunk, picture.view(-1, WIDTH), meta).view(9, 10, WIDTH)
    for down, across in ((1, 0), (0, 2), (2, 2), (-1, 1)):
        moved = torch.roll(picture, (down, across), (0, 1))
        close(after(trunk, moved.view(-1, WIDTH), meta).view(9, 10, WIDTH), torch.roll(out, (down, across), (0, 1)))


def test_one_trunk_reads_every_resolution() -> None:
    trunk, sizes = recipe_trunk("resformer"), [(3, 3), (4, 4), (10, 12)]
    meta = pictures(*sizes)
    x = values(meta)
    together = after(trunk, x, meta)
    for k in range(len(sizes)):
        mine = torch.nonzero(meta.sample == k).flatten()
        close(after(trunk, x[mine], meta.select(mine)), together[mine])
