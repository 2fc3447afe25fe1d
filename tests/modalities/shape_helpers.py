"""Contracts that the tests of several modalities check in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unisono.core.schema import Column
from unisono.modalities.base import Packed, Tokeniser

WIDTH = 16


def by_cell(packed: Packed, values: torch.Tensor) -> dict[tuple[int, ...], torch.Tensor]:
    """Token values by (sample, column, item, place)."""
    keys = zip(packed.sample.tolist(), packed.column.tolist(), packed.item.tolist(), map(tuple, packed.place.tolist()), strict=True)
    return {(s, c, i, *p): v for (s, c, i, p), v in zip(keys, values, strict=True)}


def fitted(tokeniser: Tokeniser, columns: Sequence[Column], cells: Mapping[str, Any]) -> list[Column]:
    """The columns with statistics of these cells."""
    return [replace(c, statistics=tokeniser.fit(c, [cells[c.name]])) for c in columns]


def check_alone_equals_batched(tokeniser: Tokeniser, columns: Sequence[Column], cells: Mapping[str, Any], module: nn.Module) -> None:
    """A row's tokens are the same alone and among others."""
    module.eval()
    rows = len(next(iter(cells.values())))
    packed = tokeniser.pack(columns, cells, None)
    together = by_cell(packed, module(packed))
    alone: dict[tuple[int, ...], torch.Tensor] = {}
    for row in range(rows):
        one = tokeniser.pack(columns, {k: v[row : row + 1] for k, v in cells.items()}, None)
        alone |= {(row, *key[1:]): value for key, value in by_cell(one, module(one)).items()}
    assert together.keys() == alone.keys()
    for key, value in together.items():
        torch.testing.assert_close(value, alone[key], atol=1e-6, rtol=1e-5)


def check_every_gradient(module: nn.Module, packed: Packed) -> None:
    """Every parameter gets a gradient that is not zero."""
    module.train()
    (module(packed) * torch.randn(len(packed), WIDTH, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def check_empty(tokeniser: Tokeniser, columns: Sequence[Column], missing: Mapping[str, Any], module: nn.Module) -> None:
    """Rows without any cell give no tokens, in the pack and from the module, and gradients of zero."""
    packed = tokeniser.pack(columns, missing, None)
    assert len(packed) == 0
    out = module(packed)
    assert out.shape == (0, WIDTH)
    out.sum().backward()
