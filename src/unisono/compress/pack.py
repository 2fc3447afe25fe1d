"""Linear maps with their weights laid out in advance as the processor's kernels read them.

The same sums in another order of memory: the weights stay what they are, a second copy of them is kept ready. Where the library has no
such kernel, on another device, in another precision and while gradients are taken, a packed map is a plain one.

Letters: T rows, I inputs, O outputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unisono.nn.share import Linear
from unisono.ops.linear import linear

#: Maps of fewer weights than this gain nothing.
SMALLEST = 4096
#: The types that there are packed kernels for.
KINDS = (torch.float32, torch.bfloat16)
#: Rows that the layout is chosen for.
_ROWS = 1024


def can_pack() -> bool:
    """Whether this machine's library packs weights."""
    there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


class Packed(Linear):
    """``y = W x + b`` with W laid out in advance; weight and bias are the ones it was given.

    Args:
        linear: the map.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._packed: Any = None
        self._seen = (-1, -1)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the second copy, which is made again when it is needed."""
        return {**self.__dict__, "_packed": None, "_seen": (-1, -1)}

    def pack(self) -> Any:
        """The weights as the kernel reads them, laid out again where they have changed."""
        version = (self.weight._version, self.weight.data_ptr())
        if self._packed is None or self._seen != version:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), _ROWS)
            self._seen = version
        return self._packed

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Map (..., I) to (..., O)."""
        plain = torch.is_grad_enabled() or x_TD.numel() == 0 or x_TD.dtype not in KINDS or self.weight.dtype != x_TD.dtype
        if plain or x_TD.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return linear(x_TD, self.weight, self.bias)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x_TD, self.pack(), self.bias, "none", [], "")
        return result


def pack_linears(module: nn.Module) -> int:
    """Replace the linear maps of a module, in place; each lays its weights out when it first runs.

    Returns:
        How many maps were replaced.
    """
    made: dict[int, Packed] = {}
    if can_pack():
        for parent, name, linear in list(_linears(module)):
            setattr(parent, name, made.setdefault(id(linear), Packed(linear)))
    return len(made)


def lay_out(module: nn.Module) -> float:
    """Lay the weights of every packed map out.

    Returns:
        The seconds it took.
    """
    begin = time.perf_counter()
    for part in module.modules():
        if isinstance(part, Packed) and part.weight.device.type == "cpu" and part.weight.dtype in KINDS:
            part.pack()
    return time.perf_counter() - begin


def _linears(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and type(child) in {Linear, nn.Linear} and child.weight.numel() >= SMALLEST:
                yield parent, name, child
