from __future__ import annotations

import decimal
import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.modalities.shape_helpers import WIDTH, by_cell, check_alone_equals_batched, check_empty, check_every_gradient, fitted
from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, modalities, tokenisers
from unisono.modalities.scalars import quantile_edges, robust_scale, smooth_clip, token_slots

NUMBER = modalities.build("number")
COLUMN = Column("x", "number", "table", 0)


def sample(array: pa.Array, name: str = "x") -> ColumnSample:
    return ColumnSample(name, array.type, array, [v for v in array.to_pylist() if v is not None])


def decode_all(array: pa.Array, **options: object) -> tuple[list[float | None], dict[int, str], dict[int, str]]:
    decoded = NUMBER.decode_many(array, Column("x", "number", "table", 0, options=options), Context())
    return [None if np.isnan(v) else float(v) for v in decoded.cells], dict(decoded.bad), dict(decoded.odd)


def decode(array: pa.Array, **options: object) -> tuple[list[float | None], dict[int, str]]:
    return decode_all(array, **options)[:2]


def test_numeric_types_decode_with_nan_missing_and_infinity_unreadable() -> None:
    assert decode(pa.array([1, None, 3])) == ([1.0, None, 3.0], {})
    assert decode(pa.array([decimal.Decimal("1.5"), None])) == ([1.5, None], {})
    assert decode(pa.array([True, False])) == ([1.0, 0.0], {})
    assert decode(pa.nulls(2)) == ([None, None], {})
    values, bad = decode(pa.array([1.0, np.nan, np.inf, -np.inf]))
    assert values == [1.0, None, None, None]
    assert bad == {2: "the number is infinite", 3: "the number is infinite"}


def test_text_decodes_and_names_what_is_no_number() -> None:
    values, bad, odd = decode_all(pa.array([" 1.5 ", "-2e3", "+4", ".5", "nan", None, "abc", "inf", "1,5", ""]))
    assert values == [1.5, -2000.0, 4.0, 0.5, None, None, None, None, None, None]
    assert bad == {7: "'inf' is infinite", 8: "'1,5' is no number"}
    assert odd == {6: "'abc' is no number", 9: "'' is no number"}


def test_words_and_thousands_are_options_that_detection_finds() -> None:
    texts = pa.array(["1,234", "12", "1,234,567.5"] * 20 + ["n/a"])
    guess = NUMBER.detect(sample(texts))
    assert guess is not None and guess.options == {"thousands": True, "words": ["n/a"]}
    assert "count as missing" in guess.reason and guess.doubt
    values, bad = decode(texts, **guess.options)
    assert values[:3] == [1234.0, 12.0, 1234567.5] and values[-1] is None and not bad


@pytest.mark.parametrize(("array", "low", "doubt"), [
    (pa.array([0.5, 1.5]), 0.9, ""),
    (pa.array([1, 2, 3] * 20), 0.8, "could be a category"),
    (pa.array(["007", "008"] * 10), 0.6, "could be codes"),
    (pa.array(["1", "2.5"] * 10), 0.85, ""),
])  # fmt: skip
def test_detection(array: pa.Array, low: float, doubt: str) -> None:
    guess = NUMBER.detect(sample(array))
    assert guess is not None and guess.confidence >= low
    assert (doubt in guess.doubt) if doubt else guess.doubt == ""


@pytest.mark.parametrize("array", [pa.array(["a", "b", "1"]), pa.array([[1.0]]), pa.array([True]), pa.array(["x"])])
def test_detection_leaves_other_columns(array: pa.Array) -> None:
    assert NUMBER.detect(sample(array)) is None


def test_lists_are_unreadable() -> None:
    values, bad = decode(pa.array([[1.0], None]))
    assert values == [None, None] and "is no number" in bad[0] and list(bad) == [0]
    with pytest.raises(Unreadable, match="infinite"):
        NUMBER.decode(float("inf"), COLUMN, Context())


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53)), max_size=20))
def test_text_of_a_number_decodes_to_the_number(values: list[float | None]) -> None:
    texts = pa.array([None if v is None else repr(v) for v in values], pa.string())
    assert decode(texts) == ([None if v is None else float(v) for v in values], {})


@given(st.lists(st.text(max_size=8), max_size=10))
def test_any_text_is_a_number_missing_or_named(texts: list[str]) -> None:
    values, bad, odd = decode_all(pa.array(texts, pa.string()))
    for row, (text, value) in enumerate(zip(texts, values, strict=True)):
        assert value is not None or row in bad or row in odd or text.strip().lower() == "nan"


def test_scale_is_not_set_by_wild_values() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(5, 2, 1000), [1e9]])
    centre, scale = robust_scale(values)
    assert abs(centre - 5) < 0.3 and abs(scale - 2) < 0.3
    assert robust_scale(np.full(5, 3.0)) == (3.0, 1.0)


def test_edges_of_few_distinct_values_are_these() -> None:
    assert quantile_edges(np.array([1.0, 1, 2, 4]), 8).tolist() == [1, 2, 4]
    assert quantile_edges(np.array([1.0]), 8).tolist() == [0, 2]


def make(name: str, n: int = 5, rows: int = 7, **settings: object):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    cells = {f"c{i}": rng.normal(i, i + 1, rows) for i in range(n)}
    for i in range(n):
        cells[f"c{i}"][i % rows] = np.nan
    tokeniser = tokenisers.build({"type": name, **settings})
    columns = fitted(tokeniser, [Column(f"c{i}", "number", "table", i + 2) for i in range(n)], cells)
    torch.manual_seed(0)
    return tokeniser, columns, cells, tokeniser.module(columns, WIDTH).eval()


@pytest.mark.parametrize("name", ["piecewise", "periodic"])
@pytest.mark.parametrize("most", [2, 16])
def test_contracts(name: str, most: int) -> None:
    tokeniser, columns, cells, module = make(name, max_tokens=most)
    check_alone_equals_batched(tokeniser, columns, cells, module)
    check_every_gradient(module, tokeniser.pack(columns, cells, None))
    check_empty(tokeniser, columns, {k: np.full(3, np.nan) for k in cells}, module)


@pytest.mark.parametrize("name", ["piecewise", "periodic"])
@pytest.mark.parametrize("most", [2, 16])
def test_missing_is_absent(name: str, most: int) -> None:
    tokeniser, columns, cells, module = make(name, max_tokens=most)
    without = {k: v for k, v in cells.items() if k != "c1"}
    empty = without | {"c1": np.full(7, np.nan)}
    one, two = tokeniser.pack(columns, without, None), tokeniser.pack(columns, empty, None)
    assert one.sample.tolist() == two.sample.tolist() and one.column.tolist() == two.column.tolist()
    assert torch.equal(module(one), module(two))


@pytest.mark.parametrize("most", [2, 16])
def test_piecewise_equals_a_loop_over_cells(most: int) -> None:
    tokeniser, columns, cells, module = make("piecewise", max_tokens=most, bins=4)
    packed = tokeniser.pack(columns, cells, None)
    found = by_cell(packed, module(packed))
    slots = token_slots(columns, most)
    weight = module.project.weight.detach().reshape(module.project.count, module.project.shared, -1, WIDTH)
    expected: dict[tuple[int, int], torch.Tensor] = {}
    for c, column in enumerate(columns):
        edges = column.statistics["edges"]
        rank = int((slots[:c] == slots[c]).sum())
        for row, value in enumerate(cells[column.name]):
            if np.isnan(value):
                continue
            z = (value - column.statistics["centre"]) / column.statistics["scale"]
            bins = [min(max((z - a) / (b - a), 0), 1) for a, b in itertools.pairwise(edges)]
            bins += [0.0] * (module.encode.bins - len(bins))
            features = torch.tensor([*bins, z / (1 + (z / 4) ** 2) ** 0.5, 1.0], dtype=torch.float32)
            key = (row, int(slots[c]))
            expected[key] = expected.get(key, torch.zeros(WIDTH)) + features @ weight[slots[c], rank]
    assert len(found) == len(expected) == len(packed)
    first = {int(s): columns[int(np.flatnonzero(slots == s)[0])].index for s in slots}
    for (row, slot), value in expected.items():
        torch.testing.assert_close(found[(row, first[slot], 0, -1, -1, -1)], value, atol=1e-5, rtol=1e-4)


def test_tokens_are_bounded_and_sources_stay_apart() -> None:
    columns = [Column(f"c{i}", "number", "table" if i < 40 else "lab", i) for i in range(100)]
    slots = token_slots(columns, 16)
    assert slots.max() == 31 and np.unique(slots).tolist() == list(range(32))
    assert not set(slots[:40]) & set(slots[40:])


def test_statistics_see_no_missing_cells_and_survive_none_at_all() -> None:
    tokeniser = tokenisers.build("piecewise")
    one = tokeniser.fit(COLUMN, [np.array([1.0, np.nan]), np.array([2.0, 3.0])])
    assert one == tokeniser.fit(COLUMN, [np.array([1.0, 2.0, 3.0])])
    assert tokeniser.fit(COLUMN, [np.array([np.nan])])["edges"] == [-1.0, 1.0]


def test_smooth_clip_is_bounded_and_the_identity_near_zero() -> None:
    z = torch.tensor([-1e6, -0.01, 0.0, 0.01, 1e6])
    out = smooth_clip(z)
    assert out.abs().max() <= 4 and torch.allclose(out[1:4], z[1:4], atol=1e-6)


def noisy(rows: list[int], epoch: int = 3, **settings: float) -> torch.Tensor:
    """Values and presence of rows of one fixed table, (B, 2, C), as packed for training."""
    table = np.random.default_rng(0).normal(size=(200, 3))
    table[::7, 1] = np.nan
    tokeniser = tokenisers.build({"type": "piecewise", **settings})
    columns = [Column(name, "number", "table", i) for i, name in enumerate("abc")]
    columns = [replace(c, statistics=tokeniser.fit(c, [table[:, i]])) for i, c in enumerate(columns)]
    at = np.array(rows, np.int64)
    packed = tokeniser.pack(columns, {c.name: table[at, i] for i, c in enumerate(columns)}, Draw(5, epoch, at))
    for part in (tokeniser.module(columns, 8).train(), (wide := tokeniser.wide(columns, 2)) and wide.train()):
        given = (packed,) if part is not wide else (packed, len(rows))
        assert torch.equal(part(*given), part(*given)), "a second pass must not draw anew"
    return torch.stack([packed.inputs["value"], packed.inputs["present"].float()], 1)


def test_noise_of_a_row_is_the_same_whatever_its_batch_mates() -> None:
    together = noisy([4, 7, 90, 12, 55])
    assert torch.equal(together[[2, 0]], noisy([90, 4]))
    assert torch.equal(together[3:4], noisy([12]))
    assert not torch.equal(together, noisy([4, 7, 90, 12, 55], epoch=4))


def test_noise_and_dropout_have_the_spread_and_the_rate_asked_for() -> None:
    rows = list(range(200))
    plain = noisy(rows, noise=0.0, dropout=0.0)
    found = torch.stack([noisy(rows, epoch=e, noise=0.5, dropout=0.2) for e in range(20)])
    there = plain[:, 1].bool()
    off = (found[:, :, 0] - plain[:, 0])[:, there]
    assert abs(float(off.mean())) < 0.02 and abs(float(off.std()) - 0.5) < 0.02
    assert abs(float(found[:, :, 1][:, there].mean()) - 0.8) < 0.02
    assert not found[:, :, 1][:, ~there].any()
    assert abs(float(torch.corrcoef(found[:, :, 0].reshape(-1, 3)[:, [0, 2]].T - plain[:, 0].repeat(20, 1)[:, [0, 2]].T)[0, 1])) < 0.05
