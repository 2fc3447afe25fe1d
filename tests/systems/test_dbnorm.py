"""Dual inverted softmax (arXiv:2310.11612) against its equation in loops, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unisono.core.errors import ConfigError, ShapeError
from unisono.recipe import load_recipe
from unisono.retrieve.hubness import DBNorm, corrections, found_by, unit

RNG = np.random.default_rng(0)
QUERIES, GALLERY, QUERY_BANK, GALLERY_BANK = (unit(RNG.normal(size=(n, 6)) + 0.4) for n in (7, 11, 9, 8))


def scores(queries: np.ndarray = QUERIES, *, query_bank: np.ndarray = QUERY_BANK, **settings: object) -> np.ndarray:
    made = DBNorm(**settings).fit(GALLERY, query_bank=query_bank, gallery_bank=GALLERY_BANK)  # type: ignore[arg-type]
    return made.queries(queries) @ made.gallery.T


def test_scores_rank_as_the_product_of_two_softmaxes() -> None:
    a, b = 12.0, 7.0
    slow = np.empty((7, 11))
    for i, q in enumerate(QUERIES.astype(float)):
        for j, g in enumerate(GALLERY.astype(float)):
            over_queries = sum(math.exp(a * (p @ g)) for p in QUERY_BANK.astype(float))
            over_items = sum(math.exp(b * (h @ g)) for h in GALLERY_BANK.astype(float))
            slow[i, j] = math.log(math.exp(a * (q @ g)) / over_queries * math.exp(b * (q @ g)) / over_items)
    found = scores(query_beta=a, gallery_beta=b, dynamic=False)
    np.testing.assert_allclose((a + b) * (found - found[:1, :1]), slow - slow[:1, :1], atol=2e-5)


def test_without_the_gallerys_factor_it_is_the_inverted_softmax() -> None:
    found = scores(query_beta=9.0, gallery_beta=0.0, dynamic=False)
    inverted = np.exp(9 * QUERIES @ GALLERY.T) / np.exp(9 * QUERY_BANK @ GALLERY.T).sum(0)
    np.testing.assert_array_equal(np.argsort(-found, 1), np.argsort(-inverted, 1))


def test_banks_to_which_all_items_are_alike_keep_the_ranking() -> None:
    flat = np.concatenate([GALLERY, np.zeros((11, 1), np.float32)], 1)
    bank = np.eye(7, dtype=np.float32)[6:]
    made = DBNorm(dynamic=False).fit(flat, query_bank=bank, gallery_bank=bank)
    queries = np.concatenate([QUERIES, np.zeros((7, 1), np.float32)], 1)
    np.testing.assert_allclose(made.queries(queries) @ made.gallery.T, queries @ flat.T, atol=1e-6)


@pytest.mark.parametrize("dynamic", [True, False])
def test_each_query_is_scored_by_itself(dynamic: bool) -> None:
    whole = scores(dynamic=dynamic)
    alone = np.concatenate([scores(QUERIES[k : k + 1], dynamic=dynamic) for k in range(7)])
    np.testing.assert_allclose(whole, alone, atol=1e-6)


def test_the_dynamic_kind_leaves_queries_alone_that_find_what_no_bank_query_finds() -> None:
    hub = found_by(QUERY_BANK, GALLERY, 1)
    tops = (QUERIES @ GALLERY.T).argmax(1)
    slow = {int((q @ GALLERY.T).argmax()) for q in QUERY_BANK}
    assert set(np.flatnonzero(hub)) == slow
    assert 0 < hub[tops].sum() < 7
    found, always = scores(dynamic=True), scores(dynamic=False)
    np.testing.assert_allclose(found[~hub[tops]], (QUERIES @ GALLERY.T)[~hub[tops]], atol=1e-6)
    np.testing.assert_allclose(found[hub[tops]], always[hub[tops]], atol=1e-6)


def test_the_recipe_names_it_and_what_makes_no_sense_is_refused() -> None:
    made = corrections.build(load_recipe("dbnorm", kind="index")["index"]["correction"])
    assert isinstance(made, DBNorm)
    with pytest.raises(ConfigError, match="above 0"):
        DBNorm(query_beta=0.0, gallery_beta=0.0)
    with pytest.raises(ShapeError, match="bank of queries is empty"):
        scores(query_bank=np.zeros((0, 6)))
    with pytest.raises(ShapeError, match="2 channels"):
        scores(query_bank=np.ones((1, 2)))
