"""Trunks of recipes for the exact properties: in float64, in evaluation, no weight at a special value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.tokens import FRAME, rich_meta
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.trunk import Trunk
from unisono.recipe import load_recipe

WIDTH = 16


def trunk_of(
    name: str, *, changes: Mapping[str, Any] | None = None, tasks: Sequence[str] = (), modalities: int = 5, seed: int = 1
) -> Trunk:
    """The trunk of a recipe over the tokens of ``rich_meta``."""
    recipe = load_recipe(name, changes or {})
    frame = replace(FRAME, names=replace(FRAME.names, tasks=tuple(tasks)))
    trunk = build_trunk(recipe["trunk"], recipe["defaults"], width=WIDTH, num_modalities=modalities, frame=frame)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in trunk.parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.5))
    return trunk.double().eval()


def tokens(meta: Meta | None = None, *, seed: int = 0) -> tuple[Tensor, Meta]:
    """Random values of tokens, and what is known of them."""
    meta = rich_meta() if meta is None else meta
    return torch.randn(len(meta), WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), meta


def after(trunk: Trunk, values: Tensor, meta: Meta) -> Tensor:
    """The tokens as they leave the trunk, before they are pooled."""
    return trunk.run(values, trunk.plan(meta)).tokens


def of_modalities(*wanted: int) -> Meta:
    """The tokens of some modalities."""
    meta = rich_meta()
    return meta.select(torch.isin(meta.modality, torch.tensor(wanted)).nonzero().squeeze(1))
