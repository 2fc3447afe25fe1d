"""Sequences: reading, k-mers, and the contract of their tokeniser."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, Guess
from unisono.modalities.sequence import Residues, SequenceModality, kmer_shares

LETTERS = {"dna": "ACGT", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}


def made(alphabet: str, length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS[alphabet]), length))


def detect(values: list[object]) -> Guess | None:
    array = pa.array(values)
    return SequenceModality().detect(ColumnSample("s", array.type, array, [v for v in values if v is not None]))


@pytest.mark.parametrize("alphabet", sorted(LETTERS))
def test_detection_names_the_alphabet(alphabet: str) -> None:
    guess = detect([*(made(alphabet, 60 + k, k) for k in range(8)), None])
    assert guess is not None and guess.confidence > 0.9 and guess.options["alphabet"] == alphabet


@pytest.mark.parametrize("values", [["a cat sat"], ["CAT", "TAG"], ["hello", "words"], ["MALE", "FEMALE"] * 9, [1, 2]])
def test_words_are_no_sequences(values: list[object]) -> None:
    assert detect(values) is None


def column(alphabet: str = "dna", **statistics: object) -> Column:
    return Column("s", "sequence", "s", 1, options={"alphabet": alphabet}, statistics=statistics)


def test_decoding() -> None:
    assert SequenceModality().decode("acgTN-\n", column(), Context()).tolist() == [0, 1, 2, 3, 4]
    bad = [("ACGU", "'U' at 3 is no residue of dna"), ("AC\u00e9", "no residue"), (5, "expected a sequence as text, got int")]
    for cell, message in bad:
        with pytest.raises(Unreadable, match=message):
            SequenceModality().decode(cell, column(), Context())
    with pytest.raises(Unreadable, match="no alphabet is called 'xna'"):
        SequenceModality().decode("ACG", column("xna"), Context())


def test_kmers_equal_counting() -> None:
    array = np.array([0, 1, 2, 4, 0, 1, 0, 1])
    found = kmer_shares([array, np.array([1])], 4, 2)
    expected = np.zeros(16)
    for a, b in [(0, 1), (1, 2), (0, 1), (1, 0), (0, 1)]:
        expected[a + 4 * b] += 1 / 5
    np.testing.assert_allclose(found, [expected, np.zeros(16)], atol=1e-7)


def contract() -> tuple[Residues, Column, torch.nn.Module, list[np.ndarray | None]]:
    tokeniser = Residues(channels=8, max_tokens=10)
    lengths = [37, 5, 400, 1, 0]
    cells = [SequenceModality().decode(made("dna", n, n), column(), Context()) for n in lengths]
    fitted = column(**json.loads(json.dumps(tokeniser.fit(column(), [cells]))))
    torch.manual_seed(0)
    return tokeniser, fitted, tokeniser.module([fitted], 16).eval(), [*cells, None]


def test_batch_mates_do_not_interact() -> None:
    tokeniser, fitted, module, cells = contract()
    packed = tokeniser.pack([fitted], {"s": cells}, None)
    whole = module(packed)
    assert torch.bincount(packed.sample).tolist() == [11, 3, 11, 2, 1]
    for row, cell in enumerate(cells):
        alone = module(tokeniser.pack([fitted], {"s": [cell]}, None))
        torch.testing.assert_close(whole[packed.sample == row], alone, rtol=0, atol=2e-6)


def test_an_empty_pack_has_no_tokens() -> None:
    tokeniser, fitted, module, _ = contract()
    for draw in (None, Draw(0, 0, np.array([3]))):
        assert module(tokeniser.pack([fitted], {"s": [None]}, draw)).shape == (0, 16)


def test_every_parameter_gets_gradient() -> None:
    tokeniser, fitted, module, cells = contract()
    module(tokeniser.pack([fitted], {"s": cells}, None)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_augmentation_depends_on_the_row_alone() -> None:
    tokeniser, fitted, module, cells = contract()
    rows = np.arange(6) + 3
    packed = tokeniser.pack([fitted], {"s": cells}, Draw(1, 2, rows))
    alone = tokeniser.pack([fitted], {"s": [cells[2]]}, Draw(1, 2, rows[2:3]))
    torch.testing.assert_close(module(packed)[packed.sample == 2], module(alone), rtol=0, atol=2e-6)
    plain = tokeniser.pack([fitted], {"s": [cells[2]]}, None)
    assert not torch.equal(plain.inputs["line"], alone.inputs["line"])
