"""Figures of retrieval and of a space against their definitions in loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from unisono.core.errors import ShapeError
from unisono.retrieve import measures


def whole(rng: np.random.Generator, n: int, width: int = 3) -> np.ndarray:
    """Vectors of small whole numbers: many exact ties."""
    return rng.integers(-2, 3, (n, width)).astype(np.float32)


def slow_ranks(queries: np.ndarray, gallery: np.ndarray, belongs: np.ndarray) -> tuple[list[int], list[float]]:
    """Sort every query's gallery by score, positives last among equals."""
    first, precision = [], []
    for q, own in zip(queries, belongs, strict=True):
        order = sorted(range(len(gallery)), key=lambda j: (-float(q @ gallery[j]), bool(own[j])))
        at = [place + 1 for place, j in enumerate(order) if own[j]]
        first.append(at[0] if at else 0)
        precision.append(sum((n + 1) / r for n, r in enumerate(at)) / len(at) if at else math.nan)
    return first, precision


@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_those_of_a_sorted_gallery_with_ties_against_the_query(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = whole(rng, 23), whole(rng, 31)
    query_items, gallery_items = rng.integers(0, 12, 23), rng.integers(2, 40 if seed % 2 else 12, 31)
    belongs = query_items[:, None] == gallery_items[None, :]
    first, precision = slow_ranks(queries, gallery, belongs)
    monkeypatch.setattr(measures, "BLOCK", 31 * 5)
    found = measures.rank(queries, gallery, measures.Positives.of(query_items, gallery_items))
    assert found.first.tolist() == first
    np.testing.assert_allclose(found.precision, precision, rtol=1e-12)
    pairs = measures.Positives.of_pairs(*np.nonzero(belongs), belongs.shape)
    np.testing.assert_array_equal(measures.rank(queries, gallery, pairs).first, first)
    np.testing.assert_array_equal(pairs.counts(), belongs.sum(1))


def test_a_chain_of_relations_is_followed() -> None:
    words = measures.links([0, 1, 1], [0, 0, 1], (2, 2))
    pictures = measures.links([0, 1, 1], [2, 0, 0], (2, 3))
    offsets, items = measures.Positives((words, pictures)).block(0, 2)
    assert [items[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [[2], [0, 2]]


def test_figures_are_means_and_a_median_over_queries_that_have_something_to_find() -> None:
    ranks = measures.Ranks(np.array([1, 0, 3, 7, 20]), np.array([1.0, np.nan, 0.5, 0.25, 0.05]))
    found = measures.retrieval_figures(ranks)
    assert found == pytest.approx({"r@1": 0.25, "r@5": 0.5, "r@10": 0.75, "median_rank": 5.0, "map": 0.45})
    odd = measures.retrieval_figures(measures.Ranks(np.array([9, 1, 4]), np.ones(3)))
    assert odd["median_rank"] == 4.0
    assert all(math.isnan(v) for v in measures.retrieval_figures(measures.Ranks(np.zeros(2, np.int64), np.full(2, np.nan))).values())


def test_intervals_hold_the_figures_and_the_loop_agrees() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(1, 15, 60)
    ranks = measures.Ranks(first, 1 / first)
    found, point = measures.retrieval_intervals(ranks, seed=3, replicates=400), measures.retrieval_figures(ranks)
    assert all(found[k][0] <= point[k] <= found[k][1] for k in measures.FIGURES)
    drawn = [np.median(first[np.random.default_rng(s).integers(0, 60, 60)]) for s in range(400)]
    np.testing.assert_allclose(found["median_rank"], np.quantile(drawn, [0.025, 0.975]), atol=1.0)


def test_a_space_in_which_all_are_alike_finds_nothing() -> None:
    same = np.ones((20, 4), np.float32)
    found = measures.rank(same, same, measures.Positives.of(np.arange(20), np.arange(20)))
    assert measures.retrieval_figures(found) == pytest.approx({"r@1": 0, "r@5": 0, "r@10": 0, "median_rank": 20, "map": 1 / 20})
    assert measures.hubness(same, same) == 0.0
    assert measures.uniformity(same) == pytest.approx(0.0, abs=1e-6)
    assert measures.effective_rank(same) == pytest.approx(1.0, abs=1e-6)


def test_figures_of_a_space_are_their_definitions() -> None:
    rng = np.random.default_rng(1)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 17, 5)).astype(np.float32))
    assert measures.alignment(a, b).mean() == pytest.approx(np.mean([((x - y) ** 2).sum() for x, y in zip(a, b, strict=True)]), rel=1e-6)
    kernel = [math.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i in range(17) for j in range(17) if i != j]
    assert measures.uniformity(a) == pytest.approx(math.log(np.mean(kernel)), rel=1e-5)
    assert measures.gaussian_kernel(a).sum() == pytest.approx(sum(kernel), rel=1e-5)
    assert measures.modality_gap(a, b) == pytest.approx(np.linalg.norm(a.mean(0) - b.mean(0)), rel=1e-5)
    values = np.linalg.svd(a.astype(np.float64), compute_uv=False)
    p = values / values.sum()
    assert measures.effective_rank(a) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-5)
    assert measures.effective_rank(np.eye(6)) == pytest.approx(6.0)


def test_occurrences_count_neighbours_and_share_ties() -> None:
    rng = np.random.default_rng(2)
    q, g = rng.normal(size=(30, 4)), rng.normal(size=(12, 4))
    counts = np.zeros(12)
    for row in q.astype(np.float32):
        counts[np.argsort(-(g.astype(np.float32) @ row))[:3]] += 1
    np.testing.assert_allclose(measures.occurrences(q, g, 3), counts)
    off = counts - counts.mean()
    assert measures.hubness(q, g, 3) == pytest.approx((off**3).mean() / (off**2).mean() ** 1.5)
    np.testing.assert_allclose(measures.nearest_shares(np.array([[3.0, 1.0, 1.0, 1.0, 0.0]], np.float32), 2), [[1, 1 / 3, 1 / 3, 1 / 3, 0]])
    assert measures.occurrences(q, g, 50).tolist() == [30.0] * 12


def test_intervals_of_a_space_lie_around_their_figures_and_narrow_with_rows() -> None:
    rng = np.random.default_rng(3)
    wide = []
    for n in (40, 640):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, n, 6)) + 0.3)
        for (low, high), point in (
            (measures.uniformity_interval(a), measures.uniformity(a)),
            (measures.gap_interval(a, b), measures.modality_gap(a, b)),
            (measures.hubness_interval(a, b), measures.hubness(a, b)),
            (measures.mean_interval(measures.alignment(a, b)), measures.alignment(a, b).mean()),
        ):
            assert low <= point <= high
            wide.append(high - low)
    assert all(few > many for few, many in zip(wide[:4], wide[4:], strict=True))


def test_classes_are_unit_means_of_their_phrasings() -> None:
    found = measures.class_vectors([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -2.0]]])
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0, -1]], atol=1e-6)
    with pytest.raises(ShapeError, match="class 1"):
        measures.class_vectors([[[1.0]], np.zeros((0, 1))])


def test_what_does_not_fit_is_refused() -> None:
    one = np.ones((2, 3))
    with pytest.raises(ShapeError, match="there are"):
        measures.rank(one, one, measures.Positives.of([0], [0, 1]))
    with pytest.raises(ShapeError, match="3 channels"):
        measures.hubness(one, np.ones((2, 2)))
    with pytest.raises(ShapeError, match="row 1"):
        measures.uniformity(np.array([[1.0], [np.nan]]))
    with pytest.raises(ShapeError, match="one shape"):
        measures.alignment(one, np.ones((3, 3)))
