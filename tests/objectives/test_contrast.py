"""InfoNCE and matching against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.tokens import meta_of, rich_meta
from unisono.core.errors import ConfigError, ShapeError
from unisono.nn.grammar import build_trunk
from unisono.objectives.base import objectives
from unisono.objectives.contrast import InfoNCE, cosines, info_nce, same
from unisono.objectives.matching import Matching, hard_partners, matching_loss, paired_with

D = torch.float64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def loop(s: Tensor, positive: Tensor, t: float) -> list[float]:
    out = []
    for i in range(len(s)):
        total = sum(math.exp(float(s[i, j]) / t) for j in range(s.shape[1]))
        mine = [math.log(math.exp(float(s[i, p]) / t) / total) for p in range(s.shape[1]) if positive[i, p]]
        out.append(-sum(mine) / len(mine) if mine else 0.0)
    return out


POSITIVE = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)


def test_info_nce_is_the_equation() -> None:
    s = rand(4, 5)
    got = info_nce(s, POSITIVE, 0.3)
    assert got.tolist() == pytest.approx(loop(s, POSITIVE, 0.3), abs=1e-12)
    assert got[2].item() == 0


def test_a_row_without_a_positive_gets_no_gradient_not_even_from_what_is_infinite() -> None:
    s = rand(4, 5)
    s[2, 1] = torch.inf
    s.requires_grad_()
    info_nce(s, POSITIVE, 0.3).sum().backward()
    assert s.grad is not None
    assert bool((s.grad[2] == 0).all())
    assert bool(torch.isfinite(s.grad).all())


def test_gradients() -> None:
    s, t = rand(4, 5).requires_grad_(), torch.tensor(0.4, dtype=D, requires_grad=True)
    assert gradcheck(lambda x, y: info_nce(x, POSITIVE, y), (s, t))
    module = InfoNCE(temperature=0.2).double()
    a, b = rand(4, 3).requires_grad_(), rand(5, 3, seed=1).requires_grad_()
    assert gradcheck(lambda x, y, raw: _with(module, raw, x, y), (a, b, module.learned.raw.detach().clone().requires_grad_()))


def _with(module: InfoNCE, raw: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.func.functional_call(module, {"learned.raw": raw}, (a, b, POSITIVE))  # type: ignore[no-any-return]


def test_both_directions_are_averaged() -> None:
    a, b, t = rand(4, 3), rand(5, 3, seed=1), 0.2
    module = InfoNCE(temperature=t).double()
    assert module.temperature.item() == pytest.approx(t, rel=1e-6)
    s = cosines(a, b)
    for i in range(4):
        for j in range(5):
            assert s[i, j].item() == pytest.approx(float(a[i] @ b[j] / (a[i].norm() * b[j].norm())), abs=1e-12)
    there, back = loop(s, POSITIVE, module.temperature.item()), loop(s.T, POSITIVE.T, module.temperature.item())
    assert module(a, b, POSITIVE).item() == pytest.approx((sum(there) / 3 + sum(back) / 5) / 2, abs=1e-12)


def test_the_temperature_stays_within_its_bounds_and_comes_back() -> None:
    module = InfoNCE(temperature=0.07, lowest=0.01, highest=0.5)
    for raw, bound in ((1e3, 0.5), (-1e3, 0.01)):
        with torch.no_grad():
            module.learned.raw.fill_(raw)
        assert module.temperature.item() == pytest.approx(bound)
    with torch.no_grad():
        module.learned.raw.fill_(4.0)
    module(torch.eye(4), torch.eye(4)).backward()
    assert module.learned.raw.grad is not None
    assert module.learned.raw.grad.abs().item() > 0
    with pytest.raises(ConfigError, match="bounds"):
        InfoNCE(temperature=2.0)
    with pytest.raises(ConfigError, match="infonce"):
        objectives.build("infonce(temperature=0.005)")


def test_identities_say_what_belongs_together() -> None:
    assert same(torch.tensor([3, 4, -1]), torch.tensor([4, -1, 3])).int().tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    with pytest.raises(ShapeError, match="belong together"):
        InfoNCE()(rand(3, 2), rand(4, 2))
    with pytest.raises(ShapeError, match="positives"):
        info_nce(rand(3, 2), POSITIVE, 1.0)


def test_hard_partners_are_drawn_by_likeness_among_those_that_do_not_belong() -> None:
    s, together = rand(4, 4), torch.eye(4, dtype=torch.bool)
    together[1] = True
    together[2, 3] = True
    n = 4000
    uniform = (torch.arange(n, dtype=D) + 0.5) / n
    drawn = torch.stack([hard_partners(s, together, u.expand(4), 0.7) for u in uniform])
    assert bool((drawn[:, 1] == -1).all())
    for i in (0, 2, 3):
        weight = [0.0 if together[i, j] else math.exp(float(s[i, j]) / 0.7) for j in range(4)]
        shares = np.bincount(drawn[:, i].numpy(), minlength=4) / n
        assert shares == pytest.approx(np.array(weight) / sum(weight), abs=1e-3)
    assert hard_partners(s, together, torch.full((4,), 1 - 1e-16, dtype=D))[2].item() in {0, 1}


def test_matching_is_the_equation() -> None:
    a, b = rand(3), rand(4, seed=1)
    by_hand = [math.log(1 + math.exp(-float(x))) for x in a] + [math.log(1 + math.exp(float(x))) for x in b]
    assert matching_loss(a, b).item() == pytest.approx(sum(by_hand) / 7, abs=1e-12)
    assert matching_loss(a[:0], b[:0]).item() == 0
    assert gradcheck(matching_loss, (a.requires_grad_(), b.requires_grad_()))
    head = Matching(width=5).double()
    assert gradcheck(lambda x: head(x, 2 * x), (rand(3, 5).requires_grad_(),))


def test_pairs_hold_one_side_of_each_row() -> None:
    meta = rich_meta(shuffle=2)
    other = (meta.modality == 2) | (meta.modality == 4)
    index, pairs = paired_with(meta, other, torch.tensor([1, 3, 0, -1]))
    for row, partner in enumerate([1, 3, 0]):
        mine = index[pairs.sample == row].tolist()
        expected = [t for t in range(len(meta)) if int(meta.sample[t]) == (partner if other[t] else row)]
        assert sorted(mine) == expected
    assert not bool((pairs.sample == 3).any())
    assert pairs.edges is not None
    assert bool((pairs.sample[pairs.edges[0]] == pairs.sample[pairs.edges[1]]).all())
    assert pairs.edges.shape[1] == 4
    assert bool((pairs.column == meta.column[index]).all())


def test_a_trunk_learns_whether_two_sides_match() -> None:
    torch.manual_seed(0)
    rows = 32
    meta = meta_of([[1, 1]] * rows)
    trunk = build_trunk([{"repeat": 1}, {"read": "mean"}], {"mixer": "attention(heads=2)"}, width=16, num_modalities=2)
    head = Matching(width=16)
    side = torch.nn.Embedding(2, 16)
    optimiser = torch.optim.Adam([*trunk.parameters(), *head.parameters(), *side.parameters()], 5e-3)
    for _ in range(120):
        code = torch.randint(0, 4, (rows,))
        code[:4] = torch.arange(4)
        x = torch.nn.functional.one_hot(code, 16)[meta.sample].float() + side(meta.source)
        together = code[:, None] == code[None, :]
        partner = hard_partners(torch.zeros(rows, rows), together, torch.rand(rows))
        index, pairs = paired_with(meta, meta.source == 1, partner)
        matched, mismatched = (trunk.run(v, trunk.plan(m)).pooled for v, m in ((x, meta), (x[index], pairs)))
        loss = head(matched, mismatched)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = torch.cat([head.scores(matched) > 0, head.scores(mismatched) < 0])
    assert right.float().mean() > 0.95, loss
