"""``unified-embedding``: all columns of categories share one hashed table (arXiv:2305.12102)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.examples import column_of
from unisono.core.errors import ConfigError
from unisono.modalities import hashed
from unisono.modalities.base import tokenisers
from unisono.modalities.category import unseen_categories
from unisono.modalities.hashed import UnifiedTable, table_row

WIDTH, LOOKUPS = 8, 2
WORDS = {"colour": ["red", "green", "blue"], "size": ["small", "large", "red"]}
COLUMNS = [column_of("category", k, name) for k, name in enumerate(WORDS)]


def cells(seed: int = 0, rows: int = 9) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.array([rng.choice(words) for _ in range(rows)], object) for name, words in WORDS.items()}


@pytest.mark.parametrize("projected", [False, True])
def test_without_collisions_it_is_separate_tables_in_outputs_and_in_one_step(projected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {(n, w, k): i for i, (n, w, k) in enumerate((n, w, k) for n, ws in WORDS.items() for w in ws for k in range(LOOKUPS))}
    monkeypatch.setattr(hashed, "table_row", lambda word, column, lookup, rows: place[column, word, lookup])
    tokeniser = tokenisers.build(f"unified(rows={len(place)}, lookups={LOOKUPS}, projected={str(projected).lower()})")
    torch.manual_seed(0)
    shared = tokeniser.module(COLUMNS, WIDTH).double()
    packed = tokeniser.pack(COLUMNS, cells(), None)
    part = WIDTH // LOOKUPS
    tables = {n: nn.Parameter(torch.stack([shared.table[[place[n, w, k] for k in range(LOOKUPS)]].flatten() for w in ws]).detach())
              for n, ws in WORDS.items()}  # fmt: skip
    maps = {n: nn.Parameter(shared.maps[c].detach().clone()) for c, n in enumerate(WORDS)} if projected else {}

    def separate() -> torch.Tensor:
        found = []
        for row, slot in zip(packed.inputs["row"].tolist(), packed.inputs["slot"].tolist(), strict=True):
            name = list(WORDS)[slot]
            vector = tables[name][WORDS[name].index(cells()[name][row])]
            found.append(vector @ maps[name] if projected else vector)
        return torch.stack(found)

    kept: tuple[torch.Tensor, ...] = ()
    for weights, answer in ((list(shared.parameters()), lambda: shared(packed)), ([*tables.values(), *maps.values()], separate)):
        optimiser = torch.optim.SGD(weights, lr=0.1)
        first = answer()
        (first**3).sum().backward()
        optimiser.step()
        answers = (first.detach(), answer().detach())
        if answer is separate:
            for a, b in zip(answers, kept, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        kept = answers
    for name, words in WORDS.items():
        for w, word in enumerate(words):
            for k in range(LOOKUPS):
                mine = tables[name][w, k * part : (k + 1) * part]
                torch.testing.assert_close(shared.table[place[name, word, k]], mine, rtol=0, atol=1e-12)


def count(columns: int, projected: bool) -> tuple[int, int]:
    """Numbers in the table, and in all."""
    made = [column_of("category", k, f"c{k}") for k in range(columns)]
    module = tokenisers.build(f"unified(rows=50, projected={str(projected).lower()})").module(made, WIDTH)
    assert isinstance(module, UnifiedTable)
    return module.table.numel(), sum(p.numel() for p in module.parameters())


def test_the_table_does_not_grow_with_columns_and_without_projections_nothing_does() -> None:
    assert count(1, False) == count(40, False) == (50 * WIDTH // 2, 50 * WIDTH // 2)
    assert count(1, True)[0] == count(40, True)[0]
    assert count(40, True)[1] - count(1, True)[1] == 39 * WIDTH**2


def test_new_values_need_nothing_new() -> None:
    tokeniser = tokenisers.build("unified(rows=50)")
    column = column_of("category")
    assert tokeniser.fit(column, [np.array(["a", "b"], object)]) == {}
    torch.manual_seed(0)
    module = tokeniser.module([column], WIDTH)
    old, new = (module(tokeniser.pack([column], {"category": np.array([w], object)}, None)) for w in ("a", "never seen"))
    assert old.shape == new.shape
    assert not torch.equal(old, new)
    assert not unseen_categories(column, np.array(["never seen"], object))


def test_lookups_of_columns_and_of_each_other_are_independent() -> None:
    """The same word falls on the same row in two columns, or in two lookups, as often as chance has it."""
    words, rows = [f"w{k}" for k in range(4000)], 10
    for other in ({"column": "b", "lookup": 0}, {"column": "a", "lookup": 1}):
        same = np.mean([table_row(w, "a", 0, rows) == table_row(w, rows=rows, **other) for w in words])  # type: ignore[arg-type]
        assert abs(same - 1 / rows) < 4 * (0.09 / len(words)) ** 0.5
    load = np.bincount([table_row(w, "a", 0, rows) for w in words], minlength=rows)
    assert abs(load - 400).max() < 5 * 400**0.5


def test_the_width_has_to_be_a_multiple_of_the_lookups() -> None:
    with pytest.raises(ConfigError, match="the width 8 is no multiple of 3 lookups"):
        tokenisers.build("unified(lookups=3)").module([column_of("category")], WIDTH)
