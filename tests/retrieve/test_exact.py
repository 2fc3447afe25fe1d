"""Exact search finds what float64 finds, whatever the vectors look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import ShapeError
from unisono.retrieve import exact
from unisono.retrieve.exact import search
from unisono.retrieve.scan import CHUNK, Copies, Frame, Gallery


def reference(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    return (vectors.astype(np.float64) * query.astype(np.float64)).sum(1)


def check(vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, gallery: Gallery | None = None) -> None:
    """The k best of float64: the same rows unless scores tie, each with its own score, best first, ties by row."""
    scores, rows = search(gallery or Gallery.of(vectors), queries, k, allowed)
    assert scores.shape == rows.shape == (len(queries), k)
    may = np.ones(len(vectors), bool) if allowed is None else allowed
    top = min(k, int(may.sum()))
    for query, score, row in zip(queries, scores, rows, strict=True):
        assert (row[top:] == -1).all() and np.isneginf(score[top:]).all()
        score, row = score[:top], row[:top]
        truth = reference(vectors, query)
        size = np.linalg.norm(query.astype(np.float64)) * np.linalg.norm(vectors.astype(np.float64), axis=1).max(initial=0)
        assert len(set(row.tolist())) == top and may[row].all()
        np.testing.assert_allclose(score, truth[row], rtol=0, atol=1e-14 * size)
        best = np.sort(truth[may])[::-1][:top]
        np.testing.assert_allclose(score, best, rtol=0, atol=1e-14 * size)
        assert all(a > b or (a == b and r < s) for a, b, r, s in zip(score, score[1:], row, row[1:], strict=False))


@st.composite
def galleries(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, np.ndarray | None]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, e, p = draw(st.integers(1, 600)), draw(st.sampled_from([1, 2, 17, 33])), draw(st.sampled_from([1, 3, 6]))
    vectors = rng.normal(size=(n, e))
    kind = draw(st.sampled_from(["isotropic", "cone", "duplicates", "alike", "outlier", "near", "mixed"]))
    if kind == "cone":
        vectors = 0.05 * vectors + rng.normal(size=e)
    elif kind == "duplicates":
        vectors = vectors[rng.integers(0, max(1, n // 20), n)]
    elif kind == "alike":
        vectors[:] = vectors[0]
    elif kind == "outlier":
        vectors[rng.integers(n)] *= 1e4
    elif kind == "near":
        vectors = vectors[0] * (1 + 1e-7 * rng.integers(-3, 4, (n, 1)))
    elif kind == "mixed":
        vectors *= 10.0 ** rng.uniform(-20, 10, (n, 1))
    vectors[rng.random(n) < draw(st.sampled_from([0.0, 0.3, 1.0]))] *= draw(st.sampled_from([0.0, 1.0]))
    queries = vectors[rng.integers(0, n, p)] + 0.3 * rng.normal(size=(p, e)) * draw(st.sampled_from([0.0, 1.0]))
    power = draw(st.sampled_from([1.0, 1e-38, 1e-30, 1e27]))
    allowed = rng.random(n) < draw(st.sampled_from([0.02, 0.5, 0.97])) if draw(st.booleans()) else None
    return (vectors * power).astype(np.float32), queries.astype(np.float32), draw(st.sampled_from([1, 3, 10, 700])), allowed


@settings(max_examples=150, deadline=None)
@given(galleries())
def test_any_gallery(case: tuple[np.ndarray, np.ndarray, int, np.ndarray | None]) -> None:
    vectors, queries, k, allowed = case
    before = exact.SMALL
    exact.SMALL = 0  # every look is taken
    try:
        check(vectors, queries, k, allowed)
    finally:
        exact.SMALL = before


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def cone(n: int, e: int, seed: int) -> np.ndarray:
    """Unit vectors with a mean cosine of 0.99."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=e) / np.sqrt(e) + 0.1 * rng.normal(size=(n, e)) / np.sqrt(e))


@pytest.mark.parametrize("shape", ["isotropic", "cone"])
def test_larger_galleries_in_several_blocks(shape: str) -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(9000, 64))) if shape == "isotropic" else cone(9000, 64, 2)
    if shape == "cone":
        assert 0.985 < float((vectors[:500] @ vectors[500:1000].T).mean()) < 0.995
    gallery = Gallery.of(vectors)
    for count in (1, 5, 70):
        check(vectors, unit(vectors[:count] + 0.2 * rng.normal(size=(count, 64)).astype(np.float32)), 10, None, gallery)
    check(vectors, vectors[:3], 10, rng.random(9000) < 0.5, gallery)
    check(vectors, vectors[:3], 10, rng.random(9000) < 0.01, gallery)
    check(vectors, vectors[:2], 2000, None, gallery)


@pytest.mark.parametrize("kind", [exact._Low, exact._Coarse, exact._Single])
@pytest.mark.parametrize("shape", ["isotropic", "cone"])
def test_one_look_decides_alone_where_scores_differ(shape: str, kind: type) -> None:
    """On such data hardly a query needs a second pass, and no row that float64 finds is lost in the first."""
    vectors = unit(np.random.default_rng(1).normal(size=(9000, 64))) if shape == "isotropic" else cone(9000, 64, 2)
    gallery, queries = Gallery.of(vectors), exact.Queries.of(vectors[:50])
    query, row, left = exact._survivors(kind(gallery, queries), gallery, 10, None, 50)
    assert len(row) < 50 * 320
    assert len(left) == 0 or kind is exact._Coarse, "int8 is too coarse for a cone, and says so"
    for p in sorted(set(range(50)) - set(left.tolist())):
        truth = set(np.argsort(-reference(vectors, vectors[p]), kind="stable")[:10].tolist())
        assert truth <= set(row[query == p].tolist())


@pytest.mark.parametrize("kind", [exact._Low, exact._Coarse])
def test_the_bound_holds_and_is_not_idle(kind: type) -> None:
    rng = np.random.default_rng(0)
    for vectors in (unit(rng.normal(size=(3000, 48))), cone(3000, 48, 3), rng.normal(size=(3000, 48)).astype(np.float32) * 1e-30):
        gallery, queries = Gallery.of(vectors), exact.Queries.of(rng.normal(size=(20, 48)).astype(np.float32))
        look = kind(gallery, queries)
        low = look.scores(0, 3000).double().numpy()
        true = queries.exact @ ((vectors.astype(np.float64) - gallery.frame.centre) * gallery.frame.scale).T
        error, bound = np.abs(low - true), look.errors(gallery.bounds).double().numpy() + look.relative * np.abs(low)
        assert (error <= bound).all()
        assert (error / bound).max() > 0.1


def test_all_alike_gives_the_first_rows() -> None:
    vectors = np.tile(np.float32([[0.6, 0.8]]), (5000, 1))
    scores, rows = search(Gallery.of(vectors), np.float32([[1, 0], [0, 0]]), 4)
    assert rows.tolist() == [[0, 1, 2, 3]] * 2
    np.testing.assert_allclose(scores, [[np.float32(0.6)] * 4, [0] * 4])


def test_rows_that_are_appended_keep_the_frame() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(3000, 16)).astype(np.float32), 50 + rng.normal(size=(2500, 16)).astype(np.float32)
    gallery = Gallery.of(old)
    copies = Copies.of(new.astype(np.float64), gallery.frame)
    joined = [np.concatenate([getattr(gallery, name), getattr(copies, name)]) for name in ("low", "coarse", "bounds")]
    both = Gallery(np.concatenate([old, new]), *joined, gallery.frame)
    check(both.vectors, np.concatenate([old[:3], new[:3]]), 10, None, both)


def test_without_bfloat16_and_with_coarse_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(5000, 32)))
    gallery = Gallery.of(vectors)
    check(vectors, vectors[:3], 10, None, gallery.rows(np.arange(5000)))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert exact._looks(gallery.rows(np.arange(5000)), 1) == []


def test_int8_is_used_where_it_is_exact_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(5000, 32)))
    gallery = Gallery.of(vectors)
    monkeypatch.setattr(exact, "int8_is_exact", lambda size: False)
    assert exact._Coarse not in exact._looks(gallery, 1)
    monkeypatch.undo()
    assert not exact.int8_is_exact(1)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.to(torch.int32) @ b.to(torch.int32)).clamp(-32768, 32767))
    assert not exact.int8_is_exact.__wrapped__(32)


def test_the_mean_counts_only_rows_that_are_there() -> None:
    vectors = np.zeros((CHUNK // 2 + 10, 2), np.float32)
    present = np.zeros(len(vectors), bool)
    vectors[-4:], present[-4:] = [3, 4], True
    frame = Frame.of(vectors, present)
    assert frame.centre.tolist() == [3, 4]
    assert frame.scale == 1 / 8


def test_shapes_that_do_not_fit() -> None:
    gallery = Gallery.of(np.ones((3, 2), np.float32))
    one = np.ones((1, 2), np.float32)
    for call in (
        lambda: search(gallery, np.ones((1, 3), np.float32), 1),
        lambda: search(gallery, one, 0),
        lambda: search(gallery, one, 1, np.ones(2, bool)),
        lambda: search(gallery, np.float32([[np.nan, 1]]), 1),
        lambda: Gallery.of(np.ones((3, 2))),
        lambda: Gallery.of(np.float32([[1, np.inf]])),
    ):
        with pytest.raises(ShapeError):
            call()
    assert search(gallery, one[:0], 2)[0].shape == (0, 2)
    assert search(gallery, one, 2, np.zeros(3, bool))[1].tolist() == [[-1, -1]]
