"""The course of the learning rate: pure functions of the share of the run that is done."""

from __future__ import annotations

import math


def factor(schedule: str, progress: float, warmup: float) -> float:
    """The share of the highest learning rate at a point of the run.

    With w the warm-up's share and r = (p - w) / (1 - w) the rest done:
    cosine (1 + cos(pi r)) / 2 (Loshchilov & Hutter, arXiv:1608.03983); linear 1 - r; constant 1; one-cycle (Smith & Topin,
    arXiv:1708.07120) rises from 1/25 by half a cosine and falls to 1/10000 by another. The others rise linearly as p / w.

    Args:
        schedule: ``cosine``, ``linear``, ``constant`` or ``one-cycle``.
        progress: p, 0 at the start of the run and 1 at its end.
        warmup: w, between 0 and 1.
    """
    p = min(max(progress, 0.0), 1.0)
    if p < warmup:
        rising = p / warmup
        return 0.04 + 0.96 * (1.0 - math.cos(math.pi * rising)) / 2.0 if schedule == "one-cycle" else rising
    rest = (p - warmup) / (1.0 - warmup) if warmup < 1.0 else 0.0
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1.0 - rest
    falling = (1.0 + math.cos(math.pi * rest)) / 2.0
    return 1e-4 + (1.0 - 1e-4) * falling if schedule == "one-cycle" else falling


def progress_at(step: int, total: int, bends: list[tuple[int, float]]) -> float:
    """The share of the run done in the middle of a step, for a run that may have been shortened on the way.

    Args:
        step: counted from 0.
        total: steps of the run as it now stands.
        bends: (step, share done there) of each time the run was shortened; the rest of the schedule follows the last one.
    """
    start, done = bends[-1] if bends else (0, 0.0)
    return done + (1.0 - done) * (step + 0.5 - start) / max(total - start, 1)
