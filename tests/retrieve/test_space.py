"""Searching across sources: what counts as found, the shape of the answer, and the figures of a space."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from unisono.core.errors import SchemaError
from unisono.retrieve.space import Space, retrieval, search_of, space_figures, zero_shot


def space(n: int = 40, width: int = 8, noise: float = 0.0, seed: int = 0, **changes: np.ndarray) -> Space:
    """Two sources whose vectors are the row's own direction, with noise on the second."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, width))
    sides = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, a + noise * rng.normal(size=a.shape))]
    there = {"a": np.ones(n, bool), "b": np.ones(n, bool)}
    contents = {"a": np.arange(n), "b": np.arange(n)}
    for name, value in changes.items():
        kind, _, source = name.partition("_")
        if kind != "items":
            {"present": there, "contents": contents}[kind][source] = value
    vectors = {s: v.astype(np.float32) for s, v in zip("ab", sides, strict=True)}
    return Space(vectors, there, contents, changes.get("items", np.arange(n)))


def found(made: Space, a: str, b: str) -> list[set[int]]:
    """The rows that belong to each query."""
    search = search_of(made, a, b)
    offsets, items = search.positives.block(0, len(search.queries))
    return [set(search.gallery[items[s:e]].tolist()) for s, e in itertools.pairwise(offsets)]


def test_the_same_row_equal_cells_and_one_item_belong_together() -> None:
    three = {"n": 4}
    assert found(space(**three), "a", "b") == [{0}, {1}, {2}, {3}]
    same_picture = space(**three, contents_a=np.array([7, 7, 8, 9]))
    assert found(same_picture, "a", "b") == [{0, 1}, {0, 1}, {2}, {3}]
    assert found(same_picture, "b", "a") == [{0, 1}, {0, 1}, {2}, {3}]
    assert found(space(**three, contents_b=np.array([5, 6, 6, 5])), "a", "b") == [{0, 3}, {1, 2}, {1, 2}, {0, 3}]
    grouped = space(**three, items=np.array([0, 1, 0, 2]), present_b=np.array([True, True, True, False]))
    assert found(grouped, "a", "b") == [{0, 2}, {1}, {0, 2}, set()]


def test_every_ordered_pair_is_measured() -> None:
    made = retrieval(space(noise=0.6, present_b=np.arange(40) >= 10))
    assert [(r["from"], r["to"], r["n"], r["gallery"]) for r in made] == [("a", "b", 30, 30), ("b", "a", 30, 40)]
    for row in made:
        assert set(row) == {"from", "to", "r@1", "r@5", "r@10", "median_rank", "map", "n", "gallery", "ci95"}
        assert set(row["ci95"]) == {"r@1", "r@5", "r@10", "median_rank", "map"}
        assert all(low <= row[name] <= high for name, (low, high) in row["ci95"].items())
        assert row["r@1"] <= row["r@5"] <= row["r@10"]
    assert [r["r@1"] for r in retrieval(space())] == [1.0, 1.0]


def test_a_source_that_no_row_has_is_measured_as_nothing() -> None:
    nothing = space(present_b=np.zeros(40, bool))
    made = retrieval(nothing)
    assert [(r["r@1"], r["n"], r["ci95"]["map"]) for r in made] == [(None, 0, None)] * 2
    figures = space_figures(nothing)
    assert figures["alignment"] is None
    assert figures["sources"][1]["uniformity"] == {"value": None, "ci95": None}
    assert figures["uniformity"] == figures["sources"][0]["uniformity"]["value"]


def test_figures_of_a_good_and_of_a_torn_space() -> None:
    good, made = space_figures(space(200, noise=0.2)), space(200, noise=0.2)
    torn = {**made.vectors, "b": made.vectors["b"] + np.float32(3) * np.eye(8, dtype=np.float32)[0]}
    torn["b"] /= np.linalg.norm(torn["b"], axis=1, keepdims=True)
    bad = space_figures(Space(torn, made.present, made.contents, made.items))
    for name in ("alignment", "uniformity", "modality_gap"):
        assert good[name] < bad[name]
    for entry in (*good["pairs"], *bad["pairs"]):
        low, high = entry["modality_gap"]["ci95"]
        assert low <= entry["modality_gap"]["value"] <= high


def test_classes_are_found_by_their_nearest_name() -> None:
    classes = np.eye(6, dtype=np.float32)
    labels = np.array([0, 1, 2, 3, 3])
    rows = classes[[0, 1, 2, 3, 4]]
    made = zero_shot(rows, labels, classes)
    assert (made["accuracy"], made["n"], made["classes"]) == (0.8, 5, 6)
    assert made["ci95"]["accuracy"][0] <= 0.8 <= made["ci95"]["accuracy"][1]


def test_one_row_or_one_source_is_refused() -> None:
    with pytest.raises(SchemaError, match="at least two rows, there is 1"):
        retrieval(space(1))
    one = space()
    with pytest.raises(SchemaError, match="only a"):
        retrieval(Space({"a": one.vectors["a"]}, one.present, one.contents, one.items))
