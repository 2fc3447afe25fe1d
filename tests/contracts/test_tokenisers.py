"""What holds for every registered tokeniser on every modality it reads, without a line about any of them."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch

from tests.contracts.tokenising import (
    NEEDS,
    WIDTH,
    Case,
    blank,
    by_row,
    case_of,
    cases,
    draw_of,
    same,
    values_of,
)
from tests.examples import CANONICAL, ROWS
from unisono.core.draw import Draw
from unisono.core.schema import MODALITIES, Column
from unisono.modalities.base import Cells, Packed, Tokeniser, tokenisers

_cached = cache(case_of)
EPOCHS = 12


@pytest.fixture(params=cases(), ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    return _cached(*request.param)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal within rounding of float32, NaN equal to itself."""
    if a.is_floating_point():
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)
    else:
        assert torch.equal(a, b)


def test_every_modality_has_an_example_and_a_tokeniser() -> None:
    assert set(CANONICAL) == set(MODALITIES)
    assert {word for _, word in cases()} == set(MODALITIES)
    assert set(NEEDS) <= set(tokenisers.entries)


def test_every_row_gives_tokens_of_the_right_shape(case: Case) -> None:
    packed = case.pack()
    values = values_of(case.module(), packed)
    assert values.shape == (len(packed), WIDTH)
    assert bool(torch.isfinite(values).all())
    assert set(packed.sample.tolist()) == set(range(ROWS))
    assert set(packed.column.tolist()) <= {c.index for c in case.columns}
    for field in (packed.column, packed.item, packed.level):
        assert field.shape == (len(packed),)
        assert field.dtype == torch.int64
    assert packed.place.shape == packed.coords.shape == (len(packed), 3)


def test_a_row_alone_gives_the_same_tokens_as_in_a_batch(case: Case) -> None:
    module, whole = case.module(), case.pack()
    values = values_of(module, whole)
    for row in range(ROWS):
        alone = case.pack(case.rows([row]))
        for a, b in zip(by_row(alone, values_of(module, alone), 0), by_row(whole, values, row), strict=True):
            close(a, b)


def test_the_order_of_rows_does_not_matter(case: Case) -> None:
    module, whole = case.module(), case.pack()
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    moved = case.pack(case.rows(order))
    values, moved_values = values_of(module, whole), values_of(module, moved)
    for place, row in enumerate(order):
        for a, b in zip(by_row(moved, moved_values, place), by_row(whole, values, row), strict=True):
            close(a, b)


def test_a_missing_cell_gives_no_tokens_and_changes_no_other_row(case: Case) -> None:
    module, whole = case.module(), case.pack()
    gone = [1, 4, ROWS - 1]
    part = case.pack({name: blank(c, gone) for name, c in case.cells.items()})
    values, part_values = values_of(module, whole), values_of(module, part)
    assert not set(part.sample.tolist()) & set(gone)
    for row in set(range(ROWS)) - set(gone):
        for a, b in zip(by_row(part, part_values, row), by_row(whole, values, row), strict=True):
            close(a, b)


def test_one_column_missing_leaves_the_others_tokens(case: Case) -> None:
    if len(case.columns) < 2:
        nothing = case.pack({name: blank(c, range(ROWS)) for name, c in case.cells.items()})
        assert len(nothing) == 0
        return
    module, first = case.module(), case.columns[0]
    whole = case.pack()
    part = case.pack({n: blank(c, range(ROWS)) if n != first.name else c for n, c in case.cells.items()})
    at = whole.column == first.index
    assert set(part.column.tolist()) == {first.index}
    close(values_of(module, part), values_of(module, whole)[at])


def test_an_empty_pack_is_exact(case: Case) -> None:
    empty = case.pack({name: blank(c, range(ROWS)) for name, c in case.cells.items()})
    no_rows = case.pack(case.rows([]))
    for packed in (empty, no_rows):
        assert len(packed) == 0
        assert values_of(case.module(), packed).shape == (0, WIDTH)


def test_statistics_are_json_and_rebuild_the_same_bits(case: Case) -> None:
    read_back = tuple(Column(**json.loads(json.dumps(c.to_json(), allow_nan=False))) for c in case.columns)
    module, packed = case.module(), case.pack()
    torch.manual_seed(99)
    rebuilt = case.tokeniser.module(read_back, WIDTH).eval()
    rebuilt.load_state_dict(module.state_dict())
    assert same(case.tokeniser.pack(read_back, case.cells, None), packed)
    assert same(values_of(rebuilt, packed), values_of(module, packed))


def test_fitting_again_gives_the_same_statistics(case: Case) -> None:
    for column in case.columns:
        cells = case.cells[column.name]
        assert case.tokeniser.fit(column, [cells]) == case.tokeniser.fit(column, [cells])


def test_fitting_reads_a_column_in_chunks_of_any_size(case: Case) -> None:
    column = case.columns[0]
    cells = case.cells[column.name]
    parts = [cells[k : k + 5] for k in range(0, ROWS, 5)]
    whole, chunked = case.tokeniser.fit(column, [cells]), case.tokeniser.fit(column, iter(parts))
    assert json.loads(json.dumps(chunked)) == json.loads(json.dumps(whole))


def test_same_seed_same_bits(case: Case) -> None:
    assert same(dict(case.module(3).state_dict()), dict(case.module(3).state_dict()))
    assert same(case.pack(draw=draw_of()), case.pack(draw=draw_of()))


def test_augmentation_depends_on_seed_epoch_and_row_alone(case: Case) -> None:
    module = case.module()
    whole = case.pack(draw=draw_of())
    values = values_of(module, whole)
    order = [7, 2, 9, 0]
    part = case.pack(case.rows(order), draw_of(order))
    part_values = values_of(module, part)
    for place, row in enumerate(order):
        for a, b in zip(by_row(part, part_values, place), by_row(whole, values, row), strict=True):
            close(a, b)


def test_packing_leaves_its_inputs_unmodified(case: Case) -> None:
    before, columns = copy.deepcopy(case.cells), copy.deepcopy(case.columns)
    packed = case.pack()
    kept = copy.deepcopy(packed)
    case.pack(draw=draw_of())
    values_of(case.module(), packed)
    for column in case.columns:
        case.tokeniser.fit(column, [case.cells[column.name]])
    assert same(case.cells, before)
    assert same(case.columns, columns)
    assert same(packed, kept)


def test_every_parameter_gets_gradient(case: Case) -> None:
    module = case.module().train()
    for epoch in range(EPOCHS):
        values = module(case.pack(draw=draw_of(epoch=epoch)))
        (values * torch.randn_like(values)).sum().backward()
    without = [n for n, p in module.named_parameters() if p.requires_grad and (p.grad is None or not bool(p.grad.abs().sum() > 0))]
    assert not without


def _pack_elsewhere(tokeniser: Tokeniser, columns: tuple[Column, ...], cells: dict[str, Cells], draw: Draw | None) -> Packed:
    return tokeniser.pack(columns, cells, draw)


def test_a_worker_process_packs_the_same_bits() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        work = [(_cached(*c), d) for c in cases() for d in (None, draw_of())]
        jobs = [pool.submit(_pack_elsewhere, c.tokeniser, c.columns, c.cells, d) for c, d in work]
        for (c, draw), job in zip(work, jobs, strict=True):
            assert same(job.result(), c.pack(draw=draw)), c.name


def test_packs_and_tokenisers_survive_pickling(case: Case) -> None:
    packed = case.pack()
    assert same(pickle.loads(pickle.dumps(packed)), packed)
    moved = pickle.loads(pickle.dumps(case.tokeniser))
    assert same(moved.pack(case.columns, case.cells, None), packed)
