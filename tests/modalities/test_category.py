from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.modalities.shape_helpers import WIDTH, check_alone_equals_batched, check_empty, check_every_gradient, fitted
from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, modalities, tokenisers
from unisono.modalities.category import FIRST, RARE, UNSEEN, unseen_categories

CATEGORY, BOOLEAN = modalities.build("category"), modalities.build("boolean")
COLUMN = Column("x", "category", "table", 0)


def sample(array: pa.Array) -> ColumnSample:
    return ColumnSample("x", array.type, array, [v for v in array.to_pylist() if v is not None])


def decode(modality, array: pa.Array):  # type: ignore[no-untyped-def]
    decoded = modality.decode_many(array, COLUMN, Context())
    return list(decoded.cells), dict(decoded.bad)


def test_values_of_any_type_are_names() -> None:
    assert decode(CATEGORY, pa.array([1, None, 3])) == (["1", None, "3"], {})
    assert decode(CATEGORY, pa.array([1.0, np.nan, 2.5])) == (["1", None, "2.5"], {})
    assert decode(CATEGORY, pa.array(["a", "", None])) == (["a", "", None], {})
    assert decode(CATEGORY, pa.array(["a", None, "a"]).dictionary_encode()) == (["a", None, "a"], {})
    assert decode(CATEGORY, pa.array([True, None])) == (["true", None], {})
    assert decode(CATEGORY, pa.nulls(2)) == ([None, None], {})


def test_lists_bytes_and_long_texts_are_unreadable() -> None:
    cells, bad = decode(CATEGORY, pa.array([["a"], None]))
    assert cells == [None, None] and list(bad) == [0] and "is no category" in bad[0]
    assert "bytes are no category" in decode(CATEGORY, pa.array([b"a"]))[1][0]
    assert "300 characters" in decode(CATEGORY, pa.array(["a" * 300]))[1][0]
    with pytest.raises(Unreadable, match="is no category"):
        CATEGORY.decode(["a"], COLUMN, Context())


def test_booleans_read_the_usual_words_and_name_others() -> None:
    cells, bad = decode(BOOLEAN, pa.array(["Yes", "no", "T", "0", None, "maybe"]))
    assert cells == ["true", "false", "true", "false", None, None]
    assert list(bad) == [5] and "'maybe' is neither true nor false" in bad[5]
    assert decode(BOOLEAN, pa.array([1, 0, None])) == (["true", "false", None], {})
    assert decode(BOOLEAN, pa.array([1.0, 0.0])) == (["true", "false"], {})


@pytest.mark.parametrize(("array", "boolean", "category"), [
    (pa.array([True, False]), True, False),
    (pa.array(["yes", "no"] * 9), True, True),
    (pa.array([0, 1] * 9), True, False),
    (pa.array([0, 2] * 9), False, False),
    (pa.array(["red", "blue"] * 9), False, True),
    (pa.array(["red", "blue"] * 9).dictionary_encode(), False, True),
    (pa.array([f"a long text number {i} of many words that never repeats" for i in range(50)]), False, False),
    (pa.array([f"id{i}" for i in range(50)]), False, False),
    (pa.array([1.5, 2.5]), False, False),
])  # fmt: skip
def test_detection(array: pa.Array, boolean: bool, category: bool) -> None:
    assert (BOOLEAN.detect(sample(array)) is not None) == boolean
    assert (CATEGORY.detect(sample(array)) is not None) == category


def test_vocabulary_counts_and_bounds() -> None:
    tokeniser = tokenisers.build("embedding(most=2, rare=2)")
    cells = np.array(["b"] * 3 + ["a"] * 4 + ["c"] * 2 + ["d", None], object)
    statistics = tokeniser.fit(COLUMN, [cells[:5], cells[5:]])
    assert statistics == {"vocabulary": ["a", "b"], "counts": [4, 3], "rare": ["c", "d"]}
    many = tokeniser.fit(COLUMN, [np.array([f"v{i}"] * (2 + (i < 2)), object) for i in range(200)])
    assert many["vocabulary"] == ["v0", "v1"] and len(many["rare"]) <= 2


def make(n: int = 4, rows: int = 30, **settings: object):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    cells = {f"c{i}": rng.choice(np.array(["a", "b", "c", "d"], object), rows, p=[0.5, 0.3, 0.15, 0.05]) for i in range(n)}
    for i in range(n):
        cells[f"c{i}"][i] = None
    tokeniser = tokenisers.build({"type": "embedding", **settings})
    columns = fitted(tokeniser, [Column(f"c{i}", "category", "table", i) for i in range(n)], cells)
    torch.manual_seed(0)
    return tokeniser, columns, cells, tokeniser.module(columns, WIDTH)


@pytest.mark.parametrize("most", [2, 16])
def test_contracts(most: int) -> None:
    tokeniser, columns, cells, module = make(max_tokens=most)
    check_alone_equals_batched(tokeniser, columns, cells, module)
    check_every_gradient(module, tokeniser.pack(columns, cells, None))
    check_empty(tokeniser, columns, {k: np.full(3, None, object) for k in cells}, module)


@pytest.mark.parametrize("most", [2, 16])
def test_tokens_equal_a_loop_over_cells(most: int) -> None:
    tokeniser, columns, cells, module = make(max_tokens=most)
    packed = tokeniser.pack(columns, cells, None)
    values = module(packed)
    code, present, slots = packed.inputs["code"], packed.inputs["present"], module.slots
    for t, (row, slot) in enumerate(zip(packed.inputs["row"].tolist(), packed.inputs["slot"].tolist(), strict=True)):
        expected = sum(module.weight[code[row, c]] for c in range(4) if slots[c] == slot and present[row, c])
        torch.testing.assert_close(values[t], expected)
    assert len(packed) == len({(int(r), int(slots[c])) for r in range(30) for c in range(4) if present[r, c]})


def test_missing_is_absent() -> None:
    tokeniser, columns, cells, module = make(max_tokens=2)
    without = {k: v for k, v in cells.items() if k != "c1"}
    one = tokeniser.pack(columns, without, None)
    two = tokeniser.pack(columns, without | {"c1": np.full(30, None, object)}, None)
    assert torch.equal(module(one), module(two))


def test_unseen_and_rare_have_vectors_of_their_own_and_training_visits_unseen() -> None:
    tokeniser, _, _, _ = make()
    column = fitted(tokeniser, [COLUMN], {"x": np.array(["a"] * 5 + ["r"], object)})
    packed = tokeniser.pack(column, {"x": np.array(["a", "r", "new"], object)}, None)
    assert packed.inputs["code"][:, 0].tolist() == [FIRST, RARE, UNSEEN]
    assert unseen_categories(column[0], np.array(["a", "new", "new", None], object)) == {"new": 2}
    often = tokenisers.build("embedding(unseen=0.25)")
    cells = {"x": np.array(["a"] * 2000, object)}
    codes = often.pack(column, cells, Draw(0, 0, np.arange(2000))).inputs["code"]
    assert 0.2 < (codes == UNSEEN).double().mean() < 0.3
    assert (often.pack(column, cells, None).inputs["code"] == FIRST).all()


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=20))
def test_texts_stay_themselves(values: list[str | None]) -> None:
    assert decode(CATEGORY, pa.array(values, pa.string())) == (values, {})
