"""Series: reading, fixed kernels, and the contract of their tokeniser."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from unisono.core.draw import Draw
from unisono.core.errors import ShapeError, Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context, Guess
from unisono.modalities.kernels import channel_masks, dilations, fit_biases, kernel_weights, positive_shares
from unisono.modalities.series import SeriesModality, SeriesPatches, decode_series
from unisono.modalities.signal import Signal

COLUMN = Column("s", "series", "s", 4)


def detect(values: list[object]) -> Guess | None:
    array = pa.array(values)
    return SeriesModality().detect(ColumnSample("s", array.type, array, [v for v in values if v is not None]))


def test_detection() -> None:
    assert detect([[1.0, 2.0], [3.0], None]).confidence > 0.8
    constant = detect([[1.0, 2.0], [3.0, 4.0]])
    assert constant.confidence < 0.5 and "vector" in constant.doubt
    assert detect([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0]]]).confidence > 0.6
    assert "points" in detect([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]]).doubt
    assert detect([{"values": [1.0], "rate": 50.0}]).confidence > 0.9
    assert detect(["[1, 2, 3]", "[1, 2]"]).confidence > 0.8
    assert detect(["words"]) is None and detect([1.0]) is None and detect([["a"]]) is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([], "zero samples"),
        ([1.0, float("inf")], "infinite number at sample 1"),
        ([[1.0], [1.0, 2.0]], "rows differ in length"),
        ([[[1.0]]], "got 3 dimensions"),
        (["a"], "no list of numbers"),
        ("[1, 2", "no JSON list"),
        ({"values": None, "rate": 5}, "holds no values"),
        ({"values": [1.0], "rate": 0}, "positive number of samples a second"),
        (b"not an array", "no readable .npy"),
    ],
)
def test_bad_cells_say_why(cell: object, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        SeriesModality().decode(cell, COLUMN, Context())


def test_decoding(tmp_path: Path) -> None:
    decode = SeriesModality().decode
    found = decode({"values": [[1.0, None], [2.0, 3.0]], "rate": 50}, COLUMN, Context())
    assert found.rate == 50 and found.shape == (2, 2) and np.isnan(found.values[0, 1])
    assert decode("[1, 2, 3]", COLUMN, Context()).shape == (3, 1)
    assert decode([1.0], Column("s", "series", "s", 0, options={"rate": 8}), Context()).rate == 8
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(3, 2))
    assert decode("a.npy", COLUMN, Context(root=tmp_path)).shape == (3, 2)
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    with pytest.raises(Unreadable, match="npy"):
        decode(buffer.getvalue(), COLUMN, Context())


def test_shares_equal_the_definition_in_loops() -> None:
    rng = np.random.default_rng(0)
    series = [rng.standard_normal((n, 2)).astype(np.float32) for n in (20, 13)]
    steps = dilations(20)
    biases = fit_biases(series, steps, 2, 2)
    found = positive_shares(series, steps, biases).reshape(2, len(steps), 84, 2)
    masks, weights = channel_masks(2, len(steps)), kernel_weights()
    for b, p, k, q in [(0, 0, 0, 0), (0, 1, 5, 1), (1, 1, 83, 0), (1, 0, 40, 1)]:
        above = 0
        for t in range(len(series[b])):
            total = 0.0
            for tap in range(9):
                at = t + (tap - 4) * steps[p]
                if 0 <= at < len(series[b]):
                    total += sum(weights[k, tap] * series[b][at, c] * masks[p, k, c] for c in range(2))
            above += total > biases[p, k, q]
        assert found[b, p, k, q] == pytest.approx(above / len(series[b]), abs=1.01 / len(series[b]))
    assert masks.sum(2).min() >= 1


def signal(length: int, channels: int = 2, seed: int = 0) -> Signal:
    x = np.random.default_rng(seed).standard_normal((length, channels)).cumsum(0)
    return Signal(x.astype(np.float32), 10.0)


def contract(**given: int) -> tuple[SeriesPatches, Column, torch.nn.Module, list[Signal | None]]:
    tokeniser = SeriesPatches(channels=4, features=168, max_tokens=6, **given)
    gaps = signal(30, seed=3)
    gaps.values[5:9] = np.nan
    cells = [signal(40), signal(7, seed=1), signal(200, seed=2), gaps, Signal(np.full((4, 2), np.nan, np.float32)), None]
    statistics = json.loads(json.dumps(tokeniser.fit(COLUMN, [cells])))
    column = Column("s", "series", "s", 4, statistics=statistics)
    torch.manual_seed(0)
    return tokeniser, column, tokeniser.module([column], 16).eval(), cells


@pytest.mark.parametrize("groups", [1, 3])
def test_batch_mates_do_not_interact(groups: int) -> None:
    tokeniser, column, module, cells = contract(groups=groups)
    packed = tokeniser.pack([column], {"s": cells}, None)
    whole = module(packed)
    assert torch.isfinite(whole).all()
    assert torch.bincount(packed.sample).tolist() == [n + 1 + groups for n in (5, 1, 6, 4, 1)]
    for row, cell in enumerate(cells):
        alone = module(tokeniser.pack([column], {"s": [cell]}, None))
        torch.testing.assert_close(whole[packed.sample == row], alone, rtol=0, atol=3e-6)


def test_an_empty_pack_has_no_tokens() -> None:
    tokeniser, column, module, _ = contract()
    for draw in (None, Draw(0, 0, np.array([3]))):
        assert module(tokeniser.pack([column], {"s": [None]}, draw)).shape == (0, 16)


def test_every_parameter_gets_gradient() -> None:
    tokeniser, column, module, cells = contract()
    module(tokeniser.pack([column], {"s": cells}, None)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_augmentation_depends_on_the_row_alone() -> None:
    tokeniser, column, module, cells = contract()
    rows = np.arange(6) + 3
    packed = tokeniser.pack([column], {"s": cells}, Draw(1, 2, rows))
    alone = tokeniser.pack([column], {"s": [cells[2]]}, Draw(1, 2, rows[2:3]))
    torch.testing.assert_close(module(packed)[packed.sample == 2], module(alone), rtol=0, atol=3e-6)
    plain = tokeniser.pack([column], {"s": [cells[2]]}, None)
    assert not torch.equal(plain.inputs["line"], alone.inputs["line"])


def test_other_channels_than_in_training_are_named() -> None:
    tokeniser, column, _, _ = contract()
    with pytest.raises(ShapeError, match="trained on 2 channels, got a cell with 1"):
        tokeniser.pack([column], {"s": [decode_series([1.0, 2.0])]}, None)
