"""Several processes: who am I, and sums over all. Without ``WORLD_SIZE`` above 1 nothing is imported and nothing happens."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.errors import DependencyError


def is_main() -> bool:
    """Whether this process writes files and speaks: the only one, or the first that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Group:
    """One process alone; the contract of several as well.

    Attributes:
        rank: this process, from 0.
        world: how many there are.
    """

    rank = 0
    world = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def add_up(self, parameters: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:
        """Replace every gradient by its sum over the processes.

        Args:
            parameters: whose ``grad`` to sum; one without a gradient on any process stays without.
            numbers: (N,) float64, summed along.

        Returns:
            The summed numbers.
        """
        return numbers

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of the first process."""


def leave() -> None:
    """Close the connections to the other processes; a process that ends with them open can be aborted."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Processes(Group):
    """The processes that ``torchrun`` started, through Accelerate.

    Gradients are summed in one flat exchange after the last micro-batch, not averaged during the backward pass: a process may
    then use any subset of the parameters (a source that none of its rows has), and loss = sum / count stays exact.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import PartialState
            from accelerate.utils import broadcast, reduce
        except ImportError:
            raise DependencyError("accelerate", "distributed", "training in several processes") from None
        state = PartialState(cpu=device.type == "cpu")
        atexit.register(leave)
        self.rank, self.world = state.process_index, state.num_processes
        self._reduce: Any = reduce
        self._broadcast: Any = broadcast

    def add_up(self, parameters: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:
        """Sum gradients and numbers over the processes."""
        present = torch.tensor([float(p.grad is not None) for p in parameters], dtype=torch.float64, device=numbers.device)
        counted = self._reduce(torch.cat([numbers, present]), "sum")
        numbers, present = counted.split([len(numbers), len(parameters)])
        used = [p for p, n in zip(parameters, present.tolist(), strict=True) if n > 0]
        if used:
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
            pieces = self._reduce(flat, "sum").split([p.numel() for p in used])
            for p, piece in zip(used, pieces, strict=True):
                p.grad = piece.view_as(p).clone()
        return numbers

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of the first process."""
        for tensor in tensors:
            tensor.copy_(self._broadcast(tensor.detach().clone(), from_process=0))


def join(device: torch.device) -> Group:
    """The group this process belongs to.

    Raises:
        DependencyError: there are several processes and Accelerate is not installed.
    """
    return Processes(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Group()
