"""Trunks to be folded: every norm, residual rule and sharing, and a norm with fixed statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.contracts.parts import build, shake
from tests.tokens import rich_meta
from unisono.nn.norm import Fixed, Norm
from unisono.nn.trunk import Trunk

WIDTH = 8
DEFAULTS = {"mixer": "attention(heads=2)", "ffn": "mlp(2)"}
STEPS: list[dict[str, Any]] = [{"name": "apart", "repeat": 2}, {"name": "end", "read": "mean"}]


class Running(Norm):
    """A batch norm as it is in evaluation, with statistics of each channel."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(width, generator=draw))
        self.bias = nn.Parameter(0.3 * torch.randn(width, generator=draw))
        self.register_buffer("mean", torch.randn(width, generator=draw))
        self.register_buffer("var", 0.5 + torch.rand(width, generator=draw))

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        return nn.functional.batch_norm(x_TD, self.mean, self.var, self.weight, self.bias, training=False, eps=1e-3)  # type: ignore[arg-type]

    def fixed(self) -> Fixed:
        scale = self.weight / (self.var + 1e-3).sqrt()
        return Fixed(scale, self.bias - self.mean * scale)


def trunk_of(steps: list[dict[str, Any]] | None = None, *, seed: int = 1, width: int = WIDTH, **defaults: Any) -> Trunk:
    """A trunk in float64 and evaluation, no weight at a special value."""
    torch.manual_seed(seed)
    trunk = build(steps or STEPS, {**DEFAULTS, **defaults}, width)
    shake(trunk)
    return trunk.double().eval()


def with_running(trunk: Trunk) -> Trunk:
    """The same with every norm of a layer, one for each set included, a norm of fixed statistics."""

    def replace(part: nn.Module, seed: int) -> nn.Module:
        if isinstance(part, Norm):
            return Running(WIDTH, seed).double()
        part.parts = nn.ModuleList(replace(p, 100 * seed + k) for k, p in enumerate(part.parts))  # type: ignore[union-attr,arg-type]
        return part

    made: dict[int, nn.Module] = {}
    for number, step in enumerate(trunk.all_steps()):
        for name in ("norms", "ffn_norms"):
            norms = getattr(step, name, None)
            for k, norm in enumerate(norms or ()):
                made.setdefault(id(norm), norm)
                if isinstance(norm, Norm) and not isinstance(norm, Running):
                    new = made.get(-id(norm)) or replace(norm, 10 * number + k)
                    made[-id(norm)] = new
                    norms[k] = new
                elif not isinstance(norm, Norm):
                    made.get(-id(norm)) or made.setdefault(-id(norm), replace(norm, 10 * number + k))
    return trunk.eval()


def answer(trunk: Trunk, seed: int = 0) -> Tensor:
    """What the trunk says of random tokens of every kind."""
    meta = rich_meta()
    width = next(p for name, p in trunk.named_parameters() if name.endswith(".nothing")).shape[0]
    values = 0.7 + torch.randn(len(meta), width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return trunk.run(values, trunk.plan(meta)).pooled
