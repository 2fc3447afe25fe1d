"""Scopes against their definition, token pair by token pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens import meta_of, with_inserted
from unisono.core.errors import ConfigError
from unisono.core.relation import Blocks
from unisono.core.tokens import Meta
from unisono.nn.scope import relate, scopes

counts = st.integers(1, 3).flatmap(lambda s: st.lists(st.lists(st.integers(0, 4), min_size=s, max_size=s), min_size=1, max_size=5))


def mixes(text: str, meta: Meta, a: int, b: int) -> bool:
    """Whether b is seen by a, from the words' definitions."""
    if meta.sample[a] != meta.sample[b]:
        return False
    inserted = meta.column < 0
    words = text.split(" & ")
    if "bottleneck" in words and (inserted[a] or inserted[b]):
        if inserted[a] and inserted[b]:  # they meet in every block, and there is one wherever the sample has a token
            return bool(((meta.sample == meta.sample[a]) & ~inserted).any())
        return True
    for word in words:
        if word == "source":
            if inserted[a] or inserted[b]:
                if meta.column[a] != meta.column[b]:
                    return False
            elif meta.source[a] != meta.source[b]:
                return False
        if word == "modality" and meta.modality[a] != meta.modality[b]:
            return False
    return True


TEXTS = ["sample", "source", "modality", "bottleneck", "source & bottleneck", "modality & source", "sample & source"]


@pytest.mark.parametrize("text", TEXTS)
@given(counts=counts, seed=st.integers(0, 99), num=st.integers(0, 2))
def test_blocks_are_the_definition(text: str, counts: list[list[int]], seed: int, num: int) -> None:
    meta = meta_of(counts, shuffle=seed)
    if num:
        meta = with_inserted(meta, num)
    seen = relate(text, meta).pairs()
    expected = np.array([[mixes(text, meta, a, b) for b in range(len(meta))] for a in range(len(meta))], dtype=bool)
    assert np.array_equal(seen.numpy(), expected.reshape(len(meta), len(meta)))


@given(counts=counts, seed=st.integers(0, 99))
def test_shares_of_a_query_add_to_one(counts: list[list[int]], seed: int) -> None:
    meta = with_inserted(meta_of(counts, shuffle=seed), 2)
    blocks = relate("source & bottleneck", meta)
    assert isinstance(blocks, Blocks)
    if blocks.share is None:
        assert blocks.query is None or len(torch.unique(blocks.query)) == len(meta)
    else:
        assert blocks.query is not None
        total = torch.zeros(len(meta)).index_add(0, blocks.query, blocks.share)
        torch.testing.assert_close(total, torch.ones(len(meta)))


def test_tokens_in_order_need_no_gathering() -> None:
    blocks = relate("sample", meta_of([[1, 1], [2, 1], [2, 2]]))
    assert isinstance(blocks, Blocks)
    assert blocks.query is None


def test_unknown_word_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'source'"):
        relate("sourse", meta_of([[1]]))


def test_every_scope_is_documented() -> None:
    assert all(entry.summary for entry in scopes.entries.values())
