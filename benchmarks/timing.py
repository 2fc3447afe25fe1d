"""Timings that a busy neighbour cannot spoil: candidates take turns, and a slot in which our threads waited for a core does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

WAITING = 0.04  # the share of a slot that our threads may have waited for a core


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of one candidate.

    Attributes:
        seconds: the median over the clean slots, or over all where none was clean.
        low: the shortest of the same slots.
        high: the longest.
        clean: how many slots counted.
        noisy: how many did not.
    """

    seconds: float
    low: float
    high: float
    clean: int
    noisy: int


def run_delay() -> float | None:
    """Seconds that this process's threads have waited for a core so far; None where the kernel does not say."""
    total, seen = 0, False
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(path.read_text("ascii").split()[1])
            seen = True
        except (OSError, IndexError, ValueError):
            continue  # the thread ended, or the kernel keeps no such figures
    return total / 1e9 if seen else None


def slot(candidate: Callable[[], object], repeats: int) -> tuple[float, bool]:
    """Seconds a call, and whether the slot was clean."""
    before, begin = run_delay(), time.perf_counter()
    for _ in range(repeats):
        candidate()
    wall, after = time.perf_counter() - begin, run_delay()
    waited = 0.0 if before is None or after is None else after - before
    return wall / repeats, waited < WAITING * wall


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, slots: int = 9, seconds: float = 0.2, most: int | None = None
) -> dict[str, Timing]:
    """Time candidates in turns, so that drift hits all alike.

    Args:
        candidates: name -> what is timed, without arguments.
        slots: the clean slots wanted of every candidate.
        seconds: the least length of a slot; short calls are repeated in it.
        most: the rounds after which it is enough, clean or not; three times ``slots`` by default.

    Returns:
        Name -> times a call. Ratios of medians of the same call are what to compare.
    """
    repeats = {}
    for name, candidate in candidates.items():
        candidate()
        begin = time.perf_counter()
        candidate()
        repeats[name] = max(1, round(seconds / max(time.perf_counter() - begin, 1e-9)))
    taken: dict[str, list[tuple[float, bool]]] = {name: [] for name in candidates}
    for k in range(most or 3 * slots):
        order = list(candidates)
        for name in order[k % len(order) :] + order[: k % len(order)]:
            taken[name].append(slot(candidates[name], repeats[name]))
        if all(sum(clean for _, clean in found) >= slots for found in taken.values()):
            break
    return {name: _timing(found) for name, found in taken.items()}


def _timing(found: list[tuple[float, bool]]) -> Timing:
    clean = [t for t, ok in found if ok]
    times = clean or [t for t, _ in found]
    return Timing(median(times), min(times), max(times), len(clean), len(found) - len(clean))
