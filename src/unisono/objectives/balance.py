"""How the losses of several targets become one.

Letters: B rows, G targets.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unisono.core.errors import ShapeError


def batch_mean(losses: Tensor, present: Tensor, total: Tensor | float | None = None) -> Tensor:
    """The mean of a target's losses over rows that have the target; zero (with a graph) where none has.

    Args:
        losses: (B,), zero where absent.
        present: (B,) bool.
        total: the global count of present rows, where a batch is spread over ranks; the batch's own if not given.
    """
    count = present.sum() if total is None else torch.as_tensor(total, device=losses.device)
    return losses.sum() / count.clamp(min=1).to(losses.dtype)


class ByConstant(nn.Module):
    """Each target's mean loss in units of what the best constant answer would lose, then the mean over targets.

    ``L = 1 / G * sum_g w_g L_g / C_g``. A loss in dollars and one in nats then weigh alike, at the start and whatever their scale; a
    target that no row of the batch has adds nothing.
    """

    def __init__(self, *, constants: Mapping[str, float], weights: Mapping[str, float] | None = None) -> None:
        """Set up.

        Args:
            constants: target -> the loss of its best constant answer (``Task.constant_loss``).
            weights: target -> how much it counts; 1 if not given.
        """
        super().__init__()
        self.units = {name: (weights or {}).get(name, 1.0) / max(c, 1e-6) for name, c in constants.items()}

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One loss from each target's mean loss.

        Raises:
            ShapeError: the losses are of other targets than the constants.
        """
        _same(losses, self.units)
        return torch.stack([losses[name] * unit for name, unit in self.units.items()]).mean()


class ByUncertainty(nn.Module):
    """Learned weights: ``1 / G * sum_g (exp(-a_g) L_g / C_g + a_g / 2)``, ``a_g`` learned, 0 at the start (arXiv:1705.07115, eq. 10)."""

    def __init__(self, *, constants: Mapping[str, float]) -> None:
        """Set up; ``constants`` as in ``ByConstant``."""
        super().__init__()
        self.by_constant = ByConstant(constants=constants)
        self.log_variance = nn.Parameter(torch.zeros(len(constants)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One loss from each target's mean loss.

        Raises:
            ShapeError: the losses are of other targets than the constants.
        """
        units = self.by_constant.units
        _same(losses, units)
        scaled = torch.stack([losses[name] * unit for name, unit in units.items()])
        return (torch.exp(-self.log_variance) * scaled + 0.5 * self.log_variance).mean()


def _same(losses: Mapping[str, Tensor], units: Mapping[str, float]) -> None:
    if losses.keys() != units.keys():
        raise ShapeError(f"losses of the targets {sorted(losses)}, but the balance is of {sorted(units)}")
