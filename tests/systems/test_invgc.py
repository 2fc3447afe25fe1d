"""Inverse graph convolution (arXiv:2310.13366) against its equation in loops, and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from unisono.recipe import load_recipe
from unisono.retrieve.hubness import InvGC, corrections, inverse_convolution, unit

RNG = np.random.default_rng(0)
GALLERY, QUERY_BANK, GALLERY_BANK = (unit(RNG.normal(size=(n, 6)) + 0.4) for n in (11, 9, 8))


@pytest.mark.parametrize("nearest", [1, 3, 50, None])
def test_every_item_moves_away_from_its_neighbours(nearest: int | None) -> None:
    slow = []
    for x in GALLERY.astype(float):
        s = GALLERY_BANK.astype(float) @ x
        near = range(8) if nearest is None else np.argsort(-s)[:nearest]
        weights = s - s.mean() if nearest is None else s
        moved = x - 0.7 / len(near) * sum(weights[j] * GALLERY_BANK[j].astype(float) for j in near)
        slow.append(moved / np.linalg.norm(moved))
    np.testing.assert_allclose(inverse_convolution(GALLERY, GALLERY_BANK, rate=0.7, nearest=nearest), slow, atol=1e-6)


def test_both_banks_count_alike_and_lengths_are_one() -> None:
    made = InvGC(rate=0.7, nearest=3).fit(GALLERY, query_bank=QUERY_BANK, gallery_bank=GALLERY_BANK)
    parts = [inverse_convolution(GALLERY, bank, rate=0.7, nearest=3) for bank in (QUERY_BANK, GALLERY_BANK)]
    np.testing.assert_allclose(made.gallery, unit(parts[0] + parts[1]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made.gallery, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(made.queries(QUERY_BANK), QUERY_BANK)


def test_at_rate_zero_the_gallery_is_as_it_was() -> None:
    made = InvGC(rate=0.0).fit(GALLERY, query_bank=QUERY_BANK, gallery_bank=GALLERY_BANK)
    np.testing.assert_allclose(made.gallery, GALLERY, atol=1e-6)
    np.testing.assert_array_equal(np.argsort(-QUERY_BANK @ made.gallery.T), np.argsort(-QUERY_BANK @ GALLERY.T))


def test_neighbours_without_similarity_move_nothing() -> None:
    flat = unit(np.concatenate([GALLERY, np.zeros((11, 1))], 1))
    bank = np.eye(7, dtype=np.float32)[6:]
    np.testing.assert_allclose(inverse_convolution(flat, bank, rate=5.0, nearest=1), flat, atol=1e-6)


def test_the_recipe_names_it() -> None:
    assert isinstance(corrections.build(load_recipe("invgc", kind="index")["index"]["correction"]), InvGC)
