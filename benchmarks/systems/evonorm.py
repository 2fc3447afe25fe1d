"""EvoNorm S0 and B0 (arXiv:2004.02967; recipes ``evonorm-s0`` and ``evonorm-b0``).

Claim: norm and nonlinearity found together beat batch norm with ReLU, S0 at small batches above all. Exact
(``tests/systems/test_evonorm.py``): S0 is independent of the rest of the batch; without v it is half of x over the deviation; B0 without v
divides by the larger of the batch's and the cell's deviation. Waiting: the search for such operations (the grammar of searches).

A network of three convolutions on digits, four to a batch; each arm has the best of three learning rates on a fifth of its training rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.norming import accuracy, batch_meta, cell_meta, digits, grid, with_rate
from unisono.nn.norm import norms
from unisono.nn.part import Frame, Known

WIDTHS = (16, 32, 32)
ARMS: dict[str, tuple[str | None, Any]] = {
    "s0": ("evonorm_s0", None), "b0": ("evonorm_b0", None), "batch": ("batch", torch.relu), "group": (None, nn.functional.silu),
}  # fmt: skip


class Network(nn.Module):
    """Three convolutions, each behind it a norm and a nonlinearity, the mean over places, and a linear head."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        word, self.bend = ARMS[arm]
        self.maps = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in zip((1, *WIDTHS), WIDTHS, (1, 2, 1), strict=False))
        made = [nn.GroupNorm(4, o) if word is None else norms.build(word, width=o, frame=Frame()) for o in WIDTHS]
        self.norms, self.head = nn.ModuleList(made), nn.Linear(WIDTHS[-1], 10)
        self.plans: dict[Any, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 8, 8) to scores (B, 10)."""
        x = x.unsqueeze(1)
        for number, (part, norm) in enumerate(zip(self.maps, self.norms, strict=True)):
            x = self.normed(part(x), norm, number)
            x = x if self.bend is None else self.bend(x)
        result: Tensor = self.head(x.mean((2, 3)))
        return result

    def normed(self, x: Tensor, norm: Any, number: int) -> Tensor:
        """The norm on (B, C, H, W), by places as tokens where it is one of ours."""
        if isinstance(norm, nn.GroupNorm):
            return norm(x)
        b, c, h, w = x.shape
        if (b, number) not in self.plans:
            self.plans[b, number] = Known(batch_meta(cell_meta(0, grid(h, w)), b)).part(norm)
        flat = norm(x.permute(0, 2, 3, 1).reshape(-1, c), self.plans[b, number])
        result: Tensor = flat.view(b, h, w, c).permute(0, 3, 1, 2)
        return result


def gaps(found: Values) -> dict[str, tuple[float | None, str]]:
    """S0 against batch norm with ReLU and group norm with SiLU; B0 against batch norm."""
    result: dict[str, tuple[float | None, str]] = {}
    for ours, theirs in (("s0", "batch"), ("s0", "group"), ("b0", "batch")):
        a, b = found.mean("accuracy", ours), found.mean("accuracy", theirs)
        result[f"{ours}_less_{theirs}"] = (None if a is None or b is None else a - b, "share")
    return result


@row(
    "systems/evonorm",
    goals=[Goal("s0_less_batch", must=0.0), Goal("s0_less_group", must=-0.005, aim=0.0), Goal("b0_less_batch")],
    arms=tuple(ARMS),
    seeds=(0, 1, 2),
    derive=gaps,
)
def evonorm(*, arm: str, seed: int) -> Measured:
    """Accuracy of a small convolutional network on digits with four rows to a batch."""
    data = digits(seed)
    made = with_rate(lambda: Network(arm), data.x[data.train], data.y[data.train], rates=(1e-3, 3e-3, 1e-2), steps=600, batch=4, seed=seed)
    return {"accuracy": (accuracy(made, data.x[data.test], data.y[data.test]), "share")}
