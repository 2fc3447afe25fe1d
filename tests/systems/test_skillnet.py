"""SkillNet (arXiv:2205.06126): blocks by skill, declared and not learned, their outputs averaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.systems.whole import after, of_modalities, tokens, trunk_of
from unisono.nn.part import Part
from unisono.nn.skills import Skills
from unisono.nn.trunk import Trunk


def blocks(trunk: Trunk) -> list[Skills]:
    return [m for m in trunk.modules() if isinstance(m, Skills)]


class Gone(Part):
    """A block that was deleted."""

    def forward(self, *_: Any) -> torch.Tensor:
        raise AssertionError("a deleted block was run")


#: Modalities by number, and the skills that their tokens have together.
CASES = [((1,), {"text"}), ((3,), {"video", "image"}), ((1, 2), {"text", "image", "cross"})]


@pytest.mark.parametrize(("wanted", "skills"), CASES)
def test_inactive_skills_get_no_gradient_and_can_be_deleted(wanted: tuple[int, ...], skills: set[str]) -> None:
    trunk, (values, meta) = trunk_of("skillnet"), tokens(of_modalities(*wanted))
    whole = after(trunk, values, meta)
    whole.square().sum().backward()
    for part in blocks(trunk):
        for name, block in zip(part.names, list(part.parts), strict=True):
            grads = [0.0 if p.grad is None else float(p.grad.abs().sum()) for p in block.parameters()]
            assert all(g > 0 for g in grads) if name in skills else not any(grads), name
        for number, name in enumerate(part.names):
            if name not in skills:
                part.parts._modules[str(number)] = Gone()
    assert torch.equal(after(trunk, values, meta), whole)


def test_one_active_skill_is_a_dense_transformer() -> None:
    trunk, dense, (values, meta) = trunk_of("skillnet"), trunk_of("base"), tokens(of_modalities(2))
    number = blocks(trunk)[0].names.index("image")
    own = {k.replace(f"parts.{number}.", ""): v for k, v in trunk.state_dict().items() if "parts." not in k or f"parts.{number}." in k}
    dense.load_state_dict(own)
    torch.testing.assert_close(after(trunk, values, meta), after(dense, values, meta), rtol=0, atol=1e-12)


def test_a_model_says_how_many_weights_each_modality_uses() -> None:
    part = blocks(trunk_of("skillnet"))[0]
    each = sum(p.numel() for p in part.parts[0].parameters())
    assert part.sizes()["video"] == (2 * each, len(part.parts) * each)
    assert f"video: video + image, {2 * each:,} of {len(part.parts) * each:,} weights" in repr(part)
    assert sum(p.numel() for p in part.parameters()) == len(part.parts) * each
