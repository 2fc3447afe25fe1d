"""Memory that is no longer used goes back to the system, and what processes share stays shared.

An allocator keeps what was freed for the next request. After reading a table that is much more than what is still in use, and a process
that is forked then holds on to it for as long as it lives: pages that the parent gives back or writes anew become the child's own.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
