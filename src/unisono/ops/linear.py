"""Linear maps by the fastest kernels that the machine has for float32.

PyTorch multiplies float32 matrices on x86 by MKL, which leaves out the widest vectors on processors of other makers than its own. oneDNN,
which PyTorch has for convolutions, uses them everywhere: on an AMD EPYC with AVX-512 it multiplies tokens by weights at 2.2 times MKL's
rate (``benchmarks/kernels.py``, row ``linear``). The kernel is chosen from the machine and from shapes alone.

Letters: T rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as fn

#: Products of fewer multiply-adds, or of fewer rows, are over before oneDNN has begun.
_SMALLEST, _FEWEST = 1 << 23, 32


@functools.cache
def foreign() -> bool:
    """Whether this is an x86 processor with AVX-512 of another maker than MKL's, and oneDNN is there."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    there = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise") and _maker() not in {"", "GenuineIntel"}


def _maker() -> str:
    """The processor's maker; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "" if "Intel" in platform.processor() else platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y = x W' + b``.

    Args:
        x: (..., I).
        weight: W, (O, I).
        bias: b, (O,), or None.

    Returns:
        (..., O), with the gradients that ``torch.nn.functional.linear`` has.
    """
    if not _suits(x, weight):
        return fn.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return product(x, weight, bias)
    y: Tensor = Product.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], len(weight))


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is the faster one."""
    if not foreign() or x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu":
        return False
    rows = x.numel() // max(x.shape[-1], 1)
    if rows < _FEWEST or rows * weight.numel() < _SMALLEST:
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W' + b`` by oneDNN, without gradients."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class Product(torch.autograd.Function):
    """``y = x W' + b`` with all three products by oneDNN: ``dx = dy W``, ``dW = dy' x``."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(T, I) to (T, O)."""
        return product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        """Keep what the products need."""
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x, W and b; differentiable in turn."""
        x, weight = ctx.saved_tensors
        (dy,) = grads
        dx = dw = None
        if torch.is_grad_enabled():
            dx, dw = dy @ weight, dy.t() @ x
        else:
            dy = dy.contiguous()
            dx = product(dy, weight.t()) if ctx.needs_input_grad[0] else None
            dw = _outer(dy, x) if ctx.needs_input_grad[1] else None
        return dx, dw, dy.sum(0) if ctx.needs_input_grad[2] else None


def _outer(a_TO: Tensor, b_TI: Tensor) -> Tensor:
    """``a' b``, (O, I): the wider side is where the kernel wants its weights."""
    if a_TO.shape[1] <= b_TI.shape[1]:
        return product(a_TO.t(), b_TI.t())
    return product(b_TI.t(), a_TO.t()).t()
