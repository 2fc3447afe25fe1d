"""Text: reading, n-grams, and the contract of its tokeniser."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, Guess
from unisono.modalities.ngrams import Vocabulary, character_grams, count_texts, word_grams
from unisono.modalities.text import Subwords, TextModality

COLUMN = Column("words", "text", "words", 2)
TEXTS = ["a red circle above a blue square", "Two GREEN triangles", "", "one red star; nothing else"]
TEXTS += ["star \N{WHITE MEDIUM STAR} caf\u00e9"]


def detect(values: list[object]) -> Guess | None:
    array = pa.array(values)
    return TextModality().detect(ColumnSample("t", array.type, array, [v for v in values if v is not None]))


def fitted(tokeniser: Subwords, texts: list[str] = TEXTS) -> Column:
    return Column("words", "text", "words", 2, statistics=json.loads(json.dumps(tokeniser.fit(COLUMN, [texts]))))


def test_detection() -> None:
    sentences = [f"the {n} things are here" for n in range(40)]
    assert detect([*sentences, None]).confidence > 0.8
    tags = detect([["smile", "happy"], ["cat", "animal face"]])
    assert tags.confidence >= 0.6 and not tags.many
    assert detect([["a long sentence that says what there is to see"], ["and another one of these very long ones"]]).many
    assert detect(["12.5", "3", "-4e5"]) is None and detect(["2024-01-02", "2023-05-06"]) is None
    assert detect(["img/a.png", "img/b.png"]) is None and detect([1, 2]) is None
    assert detect(["ACGTTGCAACGTTGCAACGT" * 2]) is None
    assert detect(["red", "blue"] * 50).confidence < 0.2


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b"caf\xe9", "bytes b'.xe9' at 3 are no utf-8 text; name its encoding with --encoding"),
        ("half \ud800", "surrogate"),
        ({"a": 1}, "struct"),
    ],
)
def test_bad_cells_say_why(cell: object, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        TextModality().decode(cell, COLUMN, Context())


def test_decoding() -> None:
    decode = TextModality().decode
    assert decode(b"caf\xe9", Column("t", "text", "t", 0, options={"encoding": "latin-1"}), Context()) == "caf\u00e9"
    assert decode(["a", None, "b c"], COLUMN, Context()) == "a, b c"
    found = TextModality().decode_many(pa.array(["x", None, ""]), COLUMN, Context())
    assert found.cells == ["x", None, ""] and found.bad == ()


def counted(hashes: np.ndarray, owner: np.ndarray, text: int) -> list[int]:
    return sorted(Counter(hashes[owner == text].tolist()).values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="abz ,.\u00e9\U0001f600", max_size=14), max_size=5))
def test_ngrams_are_those_of_loops(texts: list[str]) -> None:
    words, characters = word_grams(texts), character_grams(texts)
    for k, text in enumerate(texts):
        split = re.findall("[^ ,.]+", text)
        expected = Counter([*split, *[f"{a} {b}" for a, b in itertools.pairwise(split)]])
        assert counted(words.hashes, words.owner, k) == sorted(expected.values())
        runs = Counter(f" {w} "[i : i + n] for w in split for n in (3, 4, 5) for i in range(len(w) + 3 - n))
        assert counted(characters.hashes, characters.owner, k) == sorted(runs.values())


def test_bags_are_tf_idf() -> None:
    texts = ["red red star", "red moon", "moon"]
    counts: dict[int, int] = {}
    count_texts(word_grams(texts), counts)
    vocabulary = Vocabulary.fit(counts, 3, least=2, most=10)
    assert len(vocabulary) == 2
    bags = vocabulary.bags(word_grams(["red red moon", "nothing"]), 2)
    idf = math.log(4 / 3) + 1
    red, moon = (1 + math.log(2)) * idf, idf
    assert sorted(bags.weight.tolist()) == pytest.approx(sorted([red / math.hypot(red, moon), moon / math.hypot(red, moon)]))
    assert bags.offsets.tolist() == [0, 2]


def contract(tokeniser: Subwords) -> tuple[Column, torch.nn.Module, list[str | None]]:
    column = fitted(tokeniser)
    torch.manual_seed(0)
    return column, tokeniser.module([column], 16).eval(), [*TEXTS, None, "\u4e16\u754c unseen"]


@pytest.mark.parametrize("settings_", [{}, {"enough": 1}])
def test_batch_mates_do_not_interact(settings_: dict[str, int]) -> None:
    tokeniser = Subwords(**settings_)
    column, module, cells = contract(tokeniser)
    packed = tokeniser.pack([column], {"words": cells}, None)
    whole = module(packed)
    assert len(whole) == len(packed) and 5 not in packed.sample and (packed.sample == 2).sum() == 1
    for row, cell in enumerate(cells):
        alone = module(tokeniser.pack([column], {"words": [cell]}, None))
        torch.testing.assert_close(whole[packed.sample == row], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cells", [[], [None, None]])
def test_an_empty_pack_has_no_tokens(cells: list[None]) -> None:
    tokeniser = Subwords(enough=1)
    column, module, _ = contract(tokeniser)
    for draw in (None, Draw(0, 0, np.arange(len(cells)))):
        assert module(tokeniser.pack([column], {"words": cells}, draw)).shape == (0, 16)


@pytest.mark.parametrize("settings_", [{}, {"enough": 1}, {"enough": 1, "vocabulary": 0}, {"features": 0}])
def test_every_parameter_gets_gradient(settings_: dict[str, int]) -> None:
    tokeniser = Subwords(**settings_)
    column, module, cells = contract(tokeniser)
    (module(tokeniser.pack([column], {"words": cells}, None)) + 0.1).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(("texts", "features", "learned"), [(4, 100, False), (5, 100, True), (4, 0, True)])
def test_subwords_are_learned_from_enough_texts(texts: int, features: int, learned: bool) -> None:
    found = Subwords(enough=5, features=features).fit(COLUMN, [TEXTS[:2], TEXTS[2:texts]])
    assert (found["subwords"] is not None) is learned


def test_dropping_depends_on_the_row_alone() -> None:
    tokeniser = Subwords(drop=0.5, enough=1)
    column, module, cells = contract(tokeniser)
    rows = np.arange(7) + 40
    packed = tokeniser.pack([column], {"words": cells}, Draw(1, 2, rows))
    alone = tokeniser.pack([column], {"words": [cells[0]]}, Draw(1, 2, rows[:1]))
    torch.testing.assert_close(module(packed)[packed.sample == 0], module(alone), rtol=0, atol=1e-6)
    full = tokeniser.pack([column], {"words": [cells[0]]}, None)
    assert len(alone.inputs["words.index"]) < len(full.inputs["words.index"])


def test_long_texts_are_bounded() -> None:
    tokeniser = Subwords(max_tokens=8, enough=1)
    packed = tokeniser.pack([fitted(tokeniser)], {"words": ["star " * 1000]}, None)
    assert len(packed) == 10


def test_case_and_form_do_not_matter() -> None:
    tokeniser = Subwords()
    column, module, _ = contract(tokeniser)
    a, b = (module(tokeniser.pack([column], {"words": [t]}, None)) for t in ("Cafe\u0301  RED", "caf\u00e9 red"))
    torch.testing.assert_close(a, b)
