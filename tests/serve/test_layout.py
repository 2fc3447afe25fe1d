from __future__ import annotations

import numpy as np
import pytest

from unisono.serve import layout


def clusters(count: int, groups: int = 4, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres, labels = random.standard_normal((groups, 16)), np.arange(count) % groups
    found = centres[labels] + spread * random.standard_normal((count, 16))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), labels


def same_share(places: np.ndarray, labels: np.ndarray) -> float:
    """The share of items whose nearest neighbour on the map is of their cluster."""
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return float((labels[distance.argmin(1)] == labels).mean())


def test_the_principal_plane_is_that_of_the_largest_variance() -> None:
    vectors = (np.random.default_rng(1).standard_normal((300, 8)) * [5, 3, 1, 1, 1, 1, 1, 1]).astype(np.float32)
    centred = vectors.astype(np.float64) - vectors.mean(0)
    places = layout.principal(vectors)
    for axis, direction in enumerate(np.linalg.svd(centred)[2][:2]):
        assert abs(np.corrcoef(places[:, axis], centred @ direction)[0, 1]) > 1 - 1e-6
    assert (np.abs(places).max(1) <= 1.3).mean() > 0.98


@pytest.mark.parametrize("landmarks", [500, 60])
def test_neighbours_stay_together(landmarks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LANDMARKS", landmarks)
    vectors, labels = clusters(120)
    places = layout.neighbourly(vectors)
    assert places.shape == (120, 2)
    assert np.isfinite(places).all()
    assert same_share(places, labels) > 0.95
    assert np.array_equal(places, layout.neighbourly(vectors))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 12])
def test_few_items_and_items_all_alike_have_places(count: int) -> None:
    vectors = np.tile(np.eye(1, 5, dtype=np.float32), (count, 1))
    for places in (layout.principal(vectors), layout.neighbourly(vectors)) if count else (layout.principal(vectors),):
        assert places.shape == (count, 2)
        assert np.isfinite(places).all()


def by_loops(vectors: np.ndarray, threshold: float) -> set[frozenset[int]]:
    """Groups by joining pair after pair."""
    group = list(range(len(vectors)))
    for a in range(len(vectors)):
        for b in range(a):
            if vectors[a] @ vectors[b] >= threshold:
                group = [group[a] if g == group[b] else g for g in group]
    whole = [frozenset(k for k, g in enumerate(group) if g == name) for name in set(group)]
    return {g for g in whole if len(g) > 1}


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.97])
def test_near_duplicates_are_the_groups_of_close_pairs(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_PAIR_BLOCK", 7)
    vectors, _ = clusters(50, groups=9, spread=0.25)
    groups, exact = layout.near_duplicates(vectors, threshold)
    assert exact
    assert {frozenset(g.tolist()) for g in groups} == by_loops(vectors, threshold)
    assert [len(g) for g in groups] == sorted((len(g) for g in groups), reverse=True)


def test_many_items_are_compared_by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ALL_PAIRS", 100)
    vectors, _ = clusters(400, groups=200, spread=0.001)
    groups, exact = layout.near_duplicates(vectors, 0.99)
    assert not exact
    assert len(groups) >= 0.95 * 200
    assert all(vectors[g[0]] @ vectors[g[1]] >= 0.99 for g in groups)


def test_all_alike_is_one_group() -> None:
    groups, _ = layout.near_duplicates(np.tile(np.eye(1, 4, dtype=np.float32), (900, 1)), 0.99)
    assert [g.tolist() for g in groups] == [list(range(900))]


def test_a_crowded_cell_stays_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ALL_PAIRS", 100)
    monkeypatch.setattr(layout, "_CROWD", 64)
    vectors = np.tile(np.eye(1, 4, dtype=np.float32), (501, 1))
    groups, exact = layout.near_duplicates(vectors, 0.99)
    assert not exact
    assert [len(g) for g in groups] == [501]
