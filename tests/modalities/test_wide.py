from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from unisono.core.schema import Column
from unisono.modalities.base import Packed, tokenisers
from unisono.modalities.wide import MANY, RATE, Wide, wide_rate

ROWS = 6
CELLS: dict[str, Any] = {
    "number": np.array([1.0, 2.0, np.nan, 4.0, 5.0, 7.0]),
    "category": np.array(["a", "b", None, "a", "b", "c"], object),
    "vector": [None if i == 2 else np.arange(3, dtype=np.float32) * (i + 1) % 4 for i in range(ROWS)],
    "text": ["one two", "two three", None, "", "one", "three one two"],
}
WORDS = {"number": "piecewise", "category": "embedding", "vector": "projection", "text": "subwords"}


def make(modality: str, cells: Any) -> tuple[Any, list[Column]]:
    tokeniser = tokenisers.build(WORDS[modality])
    column = Column("x", modality, "x", 0)
    return tokeniser, [replace(column, statistics=tokeniser.fit(column, [cells]))]


def scores(modality: str, rows: list[int], weights: float = 1.0) -> torch.Tensor:
    """The wide part's scores of some rows, with every weight drawn by one seed."""
    tokeniser, columns = make(modality, CELLS[modality])
    part = tokeniser.wide(columns, 2).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(weights * torch.randn(p.shape, generator=generator))
    cells = CELLS[modality]
    chosen = cells[rows] if isinstance(cells, np.ndarray) else [cells[i] for i in rows]
    packed: Packed = tokeniser.pack(columns, {"x": chosen}, None)
    found: torch.Tensor = part(packed, len(rows))
    return found


@pytest.mark.parametrize("modality", list(CELLS))
def test_wide_scores_start_at_zero_are_zero_where_missing_and_alone_equal_batched(modality: str) -> None:
    everything = list(range(ROWS))
    assert torch.equal(scores(modality, everything, 0.0), torch.zeros(ROWS, 2))
    found = scores(modality, everything)
    assert torch.equal(found[2], torch.zeros(2))
    assert found[0].abs().min() > 0
    assert torch.allclose(torch.cat([scores(modality, [i]) for i in everything]), found, atol=1e-6)


@pytest.mark.parametrize("modality", list(CELLS))
def test_every_wide_weight_has_a_gradient(modality: str) -> None:
    tokeniser, columns = make(modality, CELLS[modality])
    part = tokeniser.wide(columns, 2)
    part(tokeniser.pack(columns, {"x": CELLS[modality]}, None), ROWS).sum().backward()
    assert all(p.grad is not None for p in part.parameters())


def test_the_rate_falls_with_the_number_of_features() -> None:
    assert wide_rate(1) == wide_rate(MANY) == RATE
    assert wide_rate(4 * MANY) == RATE / 4


def test_wide_is_a_scaled_linear_map() -> None:
    wide = Wide(3, 2).eval()
    with torch.no_grad():
        wide.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]]))
    assert torch.allclose(wide(torch.tensor([[1.0, 2.0, 3.0]])), RATE * torch.tensor([[7.0, -1.0]]))
