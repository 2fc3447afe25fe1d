"""Objectives over the states of single tokens: next token, masked codes, masks; against loops, and in a trunk."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.tokens import block, cells, rich_meta, with_inserted
from unisono.core.draw import Draw
from unisono.core.errors import ConfigError, ShapeError
from unisono.core.tokens import Meta, concatenate
from unisono.nn.grammar import build_trunk
from unisono.objectives.codes import MaskedCodes, choose_masked, code_of, fit_codes
from unisono.objectives.dense import Cell, Mask, label_counts, mask_loss, pixel_tokens, to_pixels
from unisono.objectives.sequence import NextToken, following, next_token
from unisono.tasks.measures import mean_iou

D = torch.float64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def key(meta: Meta, t: int) -> tuple[int, ...]:
    return (int(meta.sample[t]), int(meta.column[t]), int(meta.item[t]))


# -- next token -------------------------------------------------------------------------------------------------------------


def test_the_token_behind_is_the_next_of_the_cell() -> None:
    meta = with_inserted(rich_meta(shuffle=3), 2)
    behind = following(meta)
    for t in range(len(meta)):
        mine, place = key(meta, t), meta.place[t].tolist()
        later = [u for u in range(len(meta)) if key(meta, u) == mine and meta.place[u].tolist() > place]
        first = min(later, key=lambda u: meta.place[u].tolist()) if later and mine[1] >= 0 else -1
        assert int(behind[t]) == first
    assert bool((behind[meta.modality == 4] == -1).all())
    assert bool((behind[meta.column < 0] == -1).all())


def test_next_token_is_the_equation() -> None:
    meta = concatenate([cells(0, 1, block(4), samples=2), cells(1, 1, block(2), samples=2)])
    behind, scores, codes = following(meta), rand(6, 3), torch.tensor([0, 2, 1, 1, 0, 2])
    by_hand = []
    for t in range(6):
        if t in {3, 5}:
            by_hand.append(0.0)
            continue
        e = [math.exp(float(v)) for v in scores[t]]
        by_hand.append(-math.log(e[int(codes[t + 1])] / sum(e)))
    assert next_token(scores, codes, behind).tolist() == pytest.approx(by_hand, abs=1e-12)
    head = NextToken(width=5, codes=3).double()
    states = rand(6, 5, seed=1)
    assert head(states, codes, behind).item() == pytest.approx(next_token(head.head(states), codes, behind).sum().item() / 4, abs=1e-12)
    assert gradcheck(lambda x: next_token(x, codes, behind), (scores.requires_grad_(),))
    assert next_token(scores[:0], codes[:0], behind[:0]).shape == (0,)
    with pytest.raises(ShapeError, match="codes"):
        next_token(scores, codes[:3], behind)


def sequences(rows: int, length: int) -> Meta:
    return concatenate([cells(b, 1, block(length), samples=rows) for b in range(rows)])


def test_a_causal_trunk_does_not_see_what_it_tells() -> None:
    torch.manual_seed(0)
    meta = sequences(2, 6)
    trunk = build_trunk(
        [{"repeat": 2, "scope": "sample & causal(sequence)"}, {"read": "mean"}], {"mixer": "attention(heads=2)"}, width=8, num_modalities=5
    )
    trunk.double().eval()
    x, changed = rand(12, 8), rand(12, 8)
    changed[4:6] += 1
    before, after = (trunk.run(v, trunk.plan(meta)).tokens for v in (x, changed))
    torch.testing.assert_close(after[:4], before[:4], rtol=0, atol=1e-12)
    torch.testing.assert_close(after[6:], before[6:], rtol=0, atol=1e-12)
    assert not torch.allclose(after[4], before[4])


def test_a_causal_trunk_learns_a_rule() -> None:
    """Each letter is the sum of the two before it, modulo 5: nothing but both tells it."""
    torch.manual_seed(0)
    rows, length = 32, 8
    meta = sequences(rows, length)
    trunk = build_trunk(
        [{"repeat": 2, "scope": "sample & causal(sequence)"}, {"read": "mean"}],
        {"mixer": {"type": "attention", "heads": 2, "rotary": 1}}, width=32, num_modalities=5,
    )  # fmt: skip
    head, letters = NextToken(width=32, codes=5), torch.nn.Embedding(5, 32)
    optimiser = torch.optim.Adam([*trunk.parameters(), *head.parameters(), *letters.parameters()], 5e-3)
    behind, plan = following(meta), trunk.plan(meta)
    for _ in range(150):
        codes = torch.randint(0, 5, (rows, length))
        for k in range(2, length):
            codes[:, k] = (codes[:, k - 1] + codes[:, k - 2]) % 5
        flat = codes.reshape(-1)
        states = trunk.run(letters(flat), plan).tokens
        optimiser.zero_grad()
        head(states, flat, behind).backward()
        optimiser.step()
    said = head.head(states).argmax(1).view(rows, length)[:, 1:-1]
    assert (said == codes[:, 2:]).float().mean() > 0.95


# -- masked codes -----------------------------------------------------------------------------------------------------------


def test_centres_are_the_means_of_their_values() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(c, 0.1, (40, 3)) for c in (0.0, 3.0, -3.0, 6.0)])
    centres = fit_codes(values, 4, seed=1)
    codes = code_of(values, centres)
    for v in range(len(values)):
        assert codes[v] == min(range(4), key=lambda k: sum((values[v, p] - centres[k, p]) ** 2 for p in range(3)))
    for k in range(4):
        np.testing.assert_allclose(centres[k], values[codes == k].mean(0), atol=1e-12)
    assert sorted(np.bincount(codes).tolist()) == [40] * 4
    assert np.array_equal(fit_codes(values, 4, seed=1), centres)


def test_it_is_as_good_as_another_library() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    values = np.random.default_rng(3).normal(size=(300, 2))

    def inertia(centres: np.ndarray) -> float:
        return float(((values[:, None] - centres[None]) ** 2).sum(2).min(1).sum())

    ours = min(inertia(fit_codes(values, 6, seed=s)) for s in range(5))
    theirs = cluster.KMeans(6, n_init=5, random_state=0).fit(values).inertia_
    assert ours < 1.05 * theirs


def test_no_code_is_empty_and_too_many_are_refused() -> None:
    values = np.repeat(np.arange(5.0)[:, None], 10, 0)
    assert len(np.unique(code_of(values, fit_codes(values, 5)))) == 5
    with pytest.raises(ConfigError, match="5 distinct"):
        fit_codes(values, 6)
    with pytest.raises(ShapeError, match="2 numbers"):
        code_of(values, np.zeros((3, 2)))


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.99])
def test_as_many_tokens_are_hidden_as_were_asked_for(rate: float) -> None:
    meta = with_inserted(rich_meta(), 2)
    draw = Draw(0, 1, np.arange(4))
    masked = choose_masked(meta, rate, draw)
    for b in range(4):
        real = (meta.sample == b) & (meta.column >= 0)
        n = int(real.sum())
        assert int(masked[meta.sample == b].sum()) == (0 if n < 2 else min(max(round(rate * n), 1), n - 1))
    assert not bool(masked[meta.column < 0].any())
    order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(1))
    placed = meta.place[:, 0] >= 0
    again = choose_masked(meta.select(order), rate, draw)
    assert bool((again == masked[order])[placed[order]].all())
    assert not torch.equal(choose_masked(meta, 0.3, Draw(0, 2, np.arange(4))), choose_masked(meta, 0.3, draw))
    few = meta.select(torch.nonzero(meta.sample == 1).squeeze(1))
    assert int(choose_masked(few, rate, draw).sum()) == int(masked[meta.sample == 1].sum())


def test_the_loss_is_over_what_was_hidden() -> None:
    head = MaskedCodes(width=4, codes=3).double()
    x, codes = rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    masked = torch.tensor([False, True, False, True, True])
    hidden = head.hide(x, masked)
    assert torch.equal(hidden[~masked], x[~masked])
    assert torch.equal(hidden[masked], head.blank.expand(3, 4))
    by_hand = []
    for t in (1, 3, 4):
        e = [math.exp(float(v)) for v in head.head(x[t])]
        by_hand.append(-math.log(e[int(codes[t])] / sum(e)))
    assert head(x, codes, masked).item() == pytest.approx(sum(by_hand) / 3, abs=1e-12)
    assert head(x, codes, torch.zeros(5, dtype=torch.bool)).item() == 0
    assert gradcheck(lambda v: head(head.hide(v, masked) * v, codes, masked), (x.requires_grad_(),))


def test_a_trunk_tells_hidden_tokens_from_the_others() -> None:
    """A row's values all lie near one of three centres, so any seen token tells the hidden ones."""
    torch.manual_seed(0)
    rng, rows = np.random.default_rng(0), 32
    meta = sequences(rows, 6)
    middle = rng.normal(size=(3, 8)) * 2
    values = np.repeat(middle[rng.integers(0, 3, rows)], 6, 0) + 0.3 * rng.normal(size=(6 * rows, 8))
    codes = torch.from_numpy(code_of(values, fit_codes(values, 3)))
    trunk = build_trunk([{"repeat": 1}, {"read": "mean"}], {"mixer": "attention(heads=2)"}, width=8, num_modalities=5)
    head = MaskedCodes(width=8, codes=3)
    optimiser = torch.optim.Adam([*trunk.parameters(), *head.parameters()], 1e-2)
    x, plan = torch.from_numpy(values).float(), trunk.plan(meta)
    for epoch in range(60):
        masked = choose_masked(meta, head.rate, Draw(0, epoch, np.arange(rows)))
        states = trunk.run(head.hide(x, masked), plan).tokens
        optimiser.zero_grad()
        head(states, codes, masked).backward()
        optimiser.step()
    assert (head.head(states).argmax(1) == codes)[masked].float().mean() > 0.95


# -- masks ------------------------------------------------------------------------------------------------------------------


def test_a_pixel_has_the_token_it_lies_in() -> None:
    meta = rich_meta(shuffle=4)
    token = pixel_tokens(meta, Cell(0, 2), (7, 9), 2)
    for y in range(7):
        for x in range(9):
            here = [t for t in range(len(meta)) if key(meta, t) == (0, 2, 0) and meta.place[t, :2].tolist() == [y // 2, x // 2]]
            assert token[y, x] == (here[0] if here else -1)
    assert (token[6] == -1).all()
    assert (token[:, 8] == -1).all()
    other = pixel_tokens(meta, Cell(0, 2, 1), (4, 4), 2)
    assert sorted(np.unique(other)) == sorted(t for t in range(len(meta)) if key(meta, t) == (0, 2, 1))
    assert (pixel_tokens(meta, Cell(2, 2), (3, 3), 1) == -1).all()
    with pytest.raises(ShapeError, match="side"):
        pixel_tokens(meta, Cell(0, 2), (3, 3), 0)


def test_coarser_tokens_cover_more_pixels_and_finer_ones_come_first() -> None:
    meta = cells(0, 2, block(4, 4))
    trunk = build_trunk([{}, {"resample": "pool(2, keep=true)"}, {"read": "mean"}], {"mixer": "none"}, width=4, num_modalities=5)
    both = trunk.plan(meta).last
    assert np.array_equal(pixel_tokens(both, Cell(0, 2), (8, 8), 2), pixel_tokens(meta, Cell(0, 2), (8, 8), 2))
    coarse = both.select(torch.nonzero(both.level == 1).squeeze(1))
    token = pixel_tokens(coarse, Cell(0, 2), (8, 8), 2)
    assert len(np.unique(token)) == 4
    for y in range(8):
        for x in range(8):
            assert coarse.place[token[y, x], :2].tolist() == [y // 4, x // 4]
    mixed = concatenate([coarse, both.select(torch.tensor([5]))])
    assert (pixel_tokens(mixed, Cell(0, 2), (8, 8), 2) == 4).sum() == 4


def test_the_mask_loss_is_the_mean_over_pixels() -> None:
    rng = np.random.default_rng(0)
    token, label = rng.integers(-1, 4, (5, 6)), rng.integers(-1, 3, (5, 6))
    scores = rand(4, 3)
    counts = label_counts(token, label, 4, 3)
    by_hand = []
    for y in range(5):
        for x in range(6):
            if token[y, x] >= 0 and label[y, x] >= 0:
                e = [math.exp(float(v)) for v in scores[token[y, x]]]
                by_hand.append(-math.log(e[label[y, x]] / sum(e)))
    assert mask_loss(scores, counts).item() == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-12)
    assert mask_loss(scores, counts * 0).item() == 0
    assert gradcheck(lambda s: mask_loss(s, counts), (scores.requires_grad_(),))
    pixels = to_pixels(scores, token)
    for y in range(5):
        for x in range(6):
            expected = scores[token[y, x]] if token[y, x] >= 0 else torch.zeros(3, dtype=D)
            assert torch.equal(pixels[y, x], expected)
    assert to_pixels(scores[:0], np.full((2, 2), -1)).shape == (2, 2, 3)
    with pytest.raises(ShapeError, match="class 2 of 2"):
        label_counts(token, label, 4, 2)
    with pytest.raises(ShapeError, match="pixels"):
        label_counts(token, label[:2], 4, 3)
    with pytest.raises(ShapeError, match="scores"):
        mask_loss(scores, counts[:2])


def test_mean_iou_is_the_equation() -> None:
    rng = np.random.default_rng(1)
    truth, said = rng.integers(-1, 3, 200), rng.integers(0, 4, 200)
    by_hand = []
    for k in range(5):
        hits = sum(1 for t, s in zip(truth, said, strict=True) if t == k and s == k)
        union = sum(1 for t, s in zip(truth, said, strict=True) if t >= 0 and (t == k or s == k))
        if union:
            by_hand.append(hits / union)
    assert len(by_hand) == 4
    assert mean_iou(truth, said, 5) == pytest.approx(sum(by_hand) / 4)
    assert mean_iou(truth, truth.clip(0), 5) == 1
    assert math.isnan(mean_iou(np.full(3, -1), np.zeros(3, int), 2))


def test_a_trunk_paints_what_it_sees_through_a_coarser_level_and_back() -> None:
    """Dark and bright squares: the class of a pixel is that of its patch; the trunk goes down a level and comes back."""
    torch.manual_seed(0)
    meta = concatenate([cells(b, 2, block(4, 4), samples=8) for b in range(8)])
    steps = [{"save": "fine"}, {}, {"resample": "pool(2)"}, {}, {"resample": "expand(fine)"}, {"read": "mean"}]
    trunk = build_trunk(steps, {"mixer": "attention(heads=2)", "norm": "rms"}, width=8, num_modalities=5)
    head = Mask(width=8, classes=2)
    optimiser = torch.optim.Adam([*trunk.parameters(), *head.parameters()], 1e-2)
    plan = trunk.plan(meta)
    token = np.stack([pixel_tokens(plan.last, Cell(b, 2), (8, 8), 2) for b in range(8)])
    for _ in range(40):
        bright = torch.randint(0, 2, (8, 4, 4))
        label = bright.repeat_interleave(2, 1).repeat_interleave(2, 2).numpy()
        x = torch.randn(len(meta), 8) * 0.3
        x[:, 0] = 2.0 * bright.reshape(-1) - 1
        states = trunk.run(x, plan).tokens
        optimiser.zero_grad()
        head(states, label_counts(token, label, len(plan.last), 2)).backward()
        optimiser.step()
    said = to_pixels(head.head(states), token).argmax(-1).numpy()
    assert mean_iou(label.reshape(-1), said.reshape(-1), 2) > 0.95
