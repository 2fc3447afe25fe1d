"""Timing on a machine that others may use: candidates take turns, and a slot counts only if our threads hardly waited for a core."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unisono.core.memory import kept_heap

#: The share of a slot that a thread may wait for a core.
WAIT = 0.04


@dataclass(frozen=True)
class Timing:
    """How long one call takes.

    Attributes:
        seconds: the median over slots.
        low: the shortest slot.
        high: the longest slot.
        clean: how many slots counted; 0 says that none was clean and that all of them were taken instead.
        slots: how many were tried.
        note: what to know about the figure, or nothing.
    """

    seconds: float
    low: float
    high: float
    clean: int
    slots: int
    note: str = ""


def run_delays() -> dict[str, int]:
    """Thread -> nanoseconds that it has waited for a core while it could run; empty where the system does not say."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[thread] = int(Path(f"/proc/self/task/{thread}/schedstat").read_text(encoding="ascii").split()[1])
    return found


def waited(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> float:
    """The largest share of a slot that one thread waited for a core."""
    delays = [delay - before.get(thread, 0) for thread, delay in after.items()]
    return max(delays, default=0) / (seconds * 1e9)


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    slots: int = 7,
    calls: int = 1,
    attempts: int = 4,
    wait: float = WAIT,
    delays: Callable[[], Mapping[str, int]] = run_delays,
) -> dict[str, Timing]:
    """Time candidates in turns within this process.

    Each round gives every candidate one slot of ``calls`` calls, in an order that rotates. Rounds end when every candidate has ``slots``
    clean ones, or after ``attempts * slots`` rounds. One round before the first warms up. All of them find the process's heap kept, as
    training and prediction do, so that no candidate pays for pages that are zeroed again.

    Args:
        candidates: name -> what to call.
        slots: how many clean slots are wanted.
        calls: in a slot.
        attempts: the limit on rounds, as a multiple of ``slots``.
        wait: the share of a slot that a thread may wait for a core.
        delays: where waiting is read.

    Returns:
        Name -> the time of one call.
    """
    names = list(candidates)
    clean: dict[str, list[float]] = {name: [] for name in names}
    every: dict[str, list[float]] = {name: [] for name in names}
    with kept_heap():
        for call in candidates.values():
            call()
        for turn in range(attempts * slots):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                before, begin = delays(), time.perf_counter()
                for _ in range(calls):
                    candidates[name]()
                seconds = time.perf_counter() - begin
                every[name].append(seconds / calls)
                if waited(before, delays(), seconds) <= wait:
                    clean[name].append(seconds / calls)
            if all(len(found) >= slots for found in clean.values()):
                break
    return {name: summarise(clean[name], every[name], slots) for name in names}


def summarise(clean: list[float], every: list[float], wanted: int) -> Timing:
    """The median of clean slots, or of all slots where none was clean."""
    used, note = clean or every, ""
    if not clean:
        note = f"no slot of {len(every)} was free of other programs; the median of all of them is given"
    elif len(clean) < wanted:
        note = f"only {len(clean)} of {len(every)} slots were free of other programs"
    return Timing(statistics.median(used), min(used), max(used), len(clean), len(every), note)


def slots_of(timings: Mapping[str, Timing]) -> dict[str, tuple[float, str]]:
    """How many clean slots the least lucky candidate had, as a metric to record beside the times."""
    return {"clean": (float(min(t.clean for t in timings.values())), "slots")}
