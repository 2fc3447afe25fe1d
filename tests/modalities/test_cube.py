from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context
from unisono.modalities.cube import Bands, CubeModality

COLUMN = Column("scan", "cube", "scan", 2)
CUBE = CubeModality()


def cube(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stored(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_lists_and_files_decode_alike() -> None:
    array = cube(5, 6, 9)
    for cell in (array.tolist(), stored(array), stored(np.asfortranarray(array))):
        assert np.array_equal(CUBE.decode(cell, COLUMN, Context()), array)
    first = replace(COLUMN, options={"layout": "chw"})
    assert CUBE.decode(array, first, Context()).shape == (6, 9, 5)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b"", "zero bytes"),
        (b"text", "neither"),
        (stored(cube(5, 6, 9))[:300], "truncated"),
        (cube(5, 6), "has the shape"),
        (np.full((2, 2, 2), np.inf), "infinity"),
        (np.zeros((0, 2, 2)), "holds nothing"),
        ([[[1], [1, 2]]], "ragged"),
    ],
)
def test_bad_cells_say_why(cell: object, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        CUBE.decode(cell, COLUMN, Context())


def test_detection() -> None:
    def claims(values: list) -> bool:
        array = pa.array(values)
        return CUBE.detect(ColumnSample("scan", array.type, array, values)) is not None

    assert claims([cube(5, 6, 9).tolist()]) and claims([stored(cube(5, 6, 9))])
    assert not claims([cube(5, 6, 3).tolist()]) and not claims([cube(5, 6).tolist()]) and not claims([b"text"])


@pytest.mark.parametrize("groups", [1, 3])
def test_tokens_of_a_cube(groups: int) -> None:
    torch.manual_seed(0)
    tokeniser = Bands(groups=groups)
    cells = [cube(9, 7, 10, seed=i) for i in range(3)]
    column = replace(COLUMN, statistics=tokeniser.fit(COLUMN, [cells, [None]]))
    module = tokeniser.module([column], 16)
    packed = tokeniser.pack([column], {"scan": [cells[0], None, *cells[1:]]}, None)
    assert packed.sample.bincount().tolist() == [6 * groups, 0, 6 * groups, 6 * groups]
    assert packed.place.max(0).values.tolist() == [2, 1, groups - 1]
    module.eval()
    alone = module(tokeniser.pack([column], {"scan": [cells[2]]}, None))
    assert torch.allclose(module(packed)[packed.sample == 3], alone, atol=1e-5)
    assert module(tokeniser.pack([column], {"scan": [None]}, None)).shape == (0, 16)
    values = module(tokeniser.pack([column], {"scan": cells}, Draw(0, 0, np.arange(3))))
    (values * torch.randn_like(values)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    again = module(tokeniser.pack([column], {"scan": cells[1:]}, Draw(0, 0, np.arange(1, 3))))
    assert torch.allclose(values[6 * groups :], again, atol=1e-5)


def test_show_is_a_picture() -> None:
    assert CUBE.show(cube(4, 4, 9))["data"].startswith(b"\x89PNG")
