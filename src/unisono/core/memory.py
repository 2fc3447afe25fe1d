"""Memory that is no longer used goes back to the system, what a loop uses again is kept, and what processes share stays shared.

An allocator keeps what was freed for the next request. After reading a table that is much more than what is still in use, and a process
that is forked then holds on to it for as long as it lives: pages that the parent gives back or writes anew become the child's own.
In a loop it is the other way round: large arrays go back to the system at the end of every step, and the next step pays for their pages
being zeroed again.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


def release_memory() -> None:
    """Give the free memory of Arrow's pool and of the C library's heap back to the system, where they can.

    A few milliseconds, and pages that are asked for again have to be zeroed anew: something for the end of a phase, not for a loop.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


#: Parameters of the GNU C library's ``mallopt``, and their highest values.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _HIGHEST = -1, -3, (1 << 31) - 1
#: Where the C library's own thresholds come to rest in a program that frees large arrays.
_ADAPTED = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20}


class _Keeping:
    """How many loops keep the heap now."""

    loops = 0
    lock = Lock()


@contextmanager
def kept_heap() -> Iterator[None]:
    """Memory that is freed within stays with the process, for a loop that soon asks for as much again; after the last use it goes back.

    Without it the C library maps every large array anew and the system zeroes its pages: a fifth of the time of a training step of
    4,096 tokens, and a quarter of a forward pass (two cores, ``benchmarks/kernels.py``). Only speed depends on it. Uses may be nested,
    also in threads. It does nothing where the C library is not GNU's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    with _Keeping.lock:
        _Keeping.loops += 1
        if _Keeping.loops == 1:
            for parameter in _ADAPTED:
                mallopt(parameter, _HIGHEST)
    try:
        yield
    finally:
        with _Keeping.lock:
            _Keeping.loops -= 1
            if _Keeping.loops == 0:
                for parameter, value in _ADAPTED.items():
                    mallopt(parameter, value)
                release_memory()


@contextmanager
def shared_heap() -> Iterator[None]:
    """Processes that are forked within keep sharing this one's heap.

    A collection of garbage writes to the head of every object that it looks at, here or in a forked process, and a page that is written to
    is no longer shared. So garbage is collected and given back first, and collections within pass over the objects that are there already,
    unless somebody else arranged for that before.
    """
    gc.collect()
    release_memory()
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
