"""Trunks to be folded: every norm, residual rule and sharing, and a norm with fixed statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.contracts.parts import build, shake
from tests.tokens import rich_meta
from unisono.core.tokens import Meta
from unisono.nn.norm import Norm
from unisono.nn.share import PerSet
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

    def fixed(self) -> tuple[Tensor, Tensor]:
        scale = self.weight / (self.var + 1e-3).sqrt()
        return scale, self.bias - self.mean * scale


class RunningByModality(Norm):
    """The same with statistics of each modality."""

    def __init__(self, width: int, seed: int, modalities: int = 6) -> None:
        super().__init__()
        self.each = nn.ModuleList(Running(width, 1000 * seed + m) for m in range(modalities))

    def plan_key(self) -> str:
        return "test modality"

    def plan(self, meta: Meta) -> Tensor:
        return meta.modality

    def forward(self, x_TD: Tensor, plan: Tensor) -> Tensor:
        out = torch.zeros_like(x_TD)
        for m, norm in enumerate(self.each):
            out[plan == m] = norm(x_TD[plan == m])
        return out

    def fixed(self) -> tuple[Tensor, Tensor]:
        scale, shift = zip(*(norm.fixed() for norm in self.each), strict=True)  # type: ignore[operator]
        return torch.stack(scale), torch.stack(shift)


def trunk_of(steps: list[dict[str, Any]] | None = None, *, seed: int = 1, width: int = WIDTH, **defaults: Any) -> Trunk:
    """A trunk in float64 and evaluation, no weight at a special value."""
    torch.manual_seed(seed)
    trunk = build(steps or STEPS, {**DEFAULTS, **defaults}, width)
    shake(trunk)
    return trunk.double().eval()


def with_running(trunk: Trunk, kind: Callable[[int, int], Norm] = Running) -> Trunk:
    """The same with every norm of a layer, one for each set included, a norm of fixed statistics; what was shared stays shared."""
    made: dict[int, Norm] = {}

    def changed(part: nn.Module) -> nn.Module:
        if isinstance(part, PerSet):
            part.parts = nn.ModuleList(changed(p) for p in part.parts)
            return part
        if isinstance(part, Running | RunningByModality):
            return part
        return made.setdefault(id(part), kind(WIDTH, len(made)).double())

    held = list(trunk.modules())  # so that no identity is used twice
    for step in trunk.all_steps():
        for norms in (getattr(step, "norms", ()), getattr(step, "ffn_norms", ())):
            for k, norm in enumerate(norms):
                norms[k] = changed(norm)
    del held
    return trunk.eval()


def answer(trunk: Trunk, seed: int = 0) -> Tensor:
    """What the trunk says of random tokens of every kind."""
    meta = rich_meta()
    width = next(p for name, p in trunk.named_parameters() if name.endswith(".nothing")).shape[0]
    values = 0.7 + torch.randn(len(meta), width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return trunk.run(values, trunk.plan(meta)).pooled
