"""The trunk's speed on a GPU: the ragged batch at a width of 1,024, as a share of the matrix-product rate. Rows where CUDA is there.

Letters: B samples, T tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks import Goal, Measured, row
from benchmarks.kernels import DEPTH, MODES, RAGGED, call_of, meta_of, products, trunk_of
from benchmarks.timing import interleave, slots_of

GPU_WIDTH, COPIES = 1024, 8


def rate_of_products(size: int = 8192) -> float:
    """Multiply-adds a second of a product of two bfloat16 matrices on the GPU."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return size**3 / best


def waiting(call: Callable[[], None]) -> Callable[[], None]:
    """The call, until the GPU has done it."""

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def trunk_gpu(*, arm: str, seed: int, mode: str) -> Measured:
    """The ragged batch eight times over, width 1,024, weights and tokens in bfloat16: equally long samples beside it."""
    lengths = RAGGED * COPIES
    tokens = sum(lengths)
    even = [260] * (tokens // 260) + [tokens % 260]
    trunk = trunk_of([{"repeat": DEPTH}], width=GPU_WIDTH).to("cuda", torch.bfloat16)
    values = torch.randn(tokens, GPU_WIDTH, device="cuda", dtype=torch.bfloat16)

    def through(counts: list[int]) -> Callable[[], torch.Tensor]:
        plan = trunk.plan(meta_of(counts)).to(values.device)
        return lambda: trunk(values, plan)

    found = interleave({name: waiting(call_of(trunk, through(n), mode, "float32")) for name, n in (("ragged", lengths), ("even", even))})
    share = products(lengths, GPU_WIDTH, DEPTH, mode) / found["ragged"].seconds / rate_of_products()
    ratio = found["even"].seconds / found["ragged"].seconds
    return {f"{mode}_share": (share, "of products"), f"{mode}_to_even": (ratio, "ratio"), **slots_of(found)}


if torch.cuda.is_available():
    row("trunk_gpu", goals=[Goal(f"{mode}_share", aim=0.5) for mode in MODES], arms=("unisono",), seeds=(0,), over={"mode": MODES})(
        trunk_gpu
    )
