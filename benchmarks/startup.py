"""How long a person waits for the help of the largest verb, from the shell's call to the end of the process."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

from benchmarks import Goal, Measured, row

RUNS = 10


@row("startup", goals=[Goal("seconds", must=0.2, aim=0.06, better="lower"), Goal("processor", better="lower")], seeds=(0, 1, 2))
def startup(*, arm: str, seed: int) -> Measured:
    """Seconds until `unisono fit --help` has answered, the median of ten calls, and the processor time of one."""
    command = [sys.executable, "-m", "unisono", "fit", "--help"]
    subprocess.run(command, check=True, capture_output=True)
    found, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - begin)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / RUNS
    return {"seconds": (statistics.median(found), "s"), "fastest": (min(found), "s"), "processor": (processor, "s")}
