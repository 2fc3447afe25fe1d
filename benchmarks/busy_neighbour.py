"""The time of a training step beside programs that keep every core busy, against the time of one on a quiet machine.

The neighbours are processes that spin, one a core. Slots with and without them alternate within one training process. How threads that idle
wait is chosen before torch is imported: ``arrives`` is what a fit that began on a quiet machine chooses, ``there`` what one chooses that
began beside busy neighbours, and ``untouched`` is the way of the OpenMP library itself, without any choice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import Goal, Measured, row
from benchmarks.timing import WAIT, run_delays, waited

LOADS = {"arrives": 0.0, "there": 4.0, "untouched": None}
ROUNDS, STEPS, SLOT_SECONDS = 3, 20, 6.0
_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


@contextlib.contextmanager
def neighbours() -> Iterator[None]:
    """One process a core that does nothing but count."""
    begun = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in begun:
            process.kill()
            process.wait()


def slot(step: Callable[[], object]) -> tuple[list[float], bool]:
    """Seconds of each step of a slot, and whether no thread waited for a core."""
    found: list[float] = []
    before, begin = run_delays(), time.perf_counter()
    while len(found) < STEPS and time.perf_counter() - begin < SLOT_SECONDS:
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return found, waited(before, run_delays(), time.perf_counter() - begin) <= WAIT


def alternate(step: Callable[[], object]) -> dict[str, Any]:
    """Median step times without and with neighbours."""
    import numpy as np

    times: dict[str, list[float]] = {"quiet": [], "busy": []}
    clean = 0
    for _ in range(5):
        step()
    for _ in range(ROUNDS):
        found, free = slot(step)
        times["quiet"] += found
        clean += free
        with neighbours():
            times["busy"] += slot(step)[0]
    medians = {name: float(np.median(found)) for name, found in times.items()}
    return {**medians, "ratio": medians["busy"] / medians["quiet"], "clean": clean}


def child(load: float | None, seed: int) -> None:
    """Prepare a fit as usual and time its steps in place of training."""
    if load is not None:
        from unisono.train.devices import prepare_environment

        with mock.patch.object(os, "getloadavg", lambda: (load, load, load)):
            prepare_environment()
    import torch

    import unisono
    from unisono.model import fit as fitting
    from unisono.train.calibrate import make_stepper
    from unisono.train.devices import choose_precision
    from unisono.train.distribute import join

    class Done(Exception):  # noqa: N818 - no error: it leaves the fit
        """The measurement is over."""

    def instead(learner: Any, rows: Any, settings: Any, **_: Any) -> None:
        device = torch.device("cpu")
        stepper = make_stepper(learner, settings, join(device), device, choose_precision(settings.precision, device), seed)
        lr = settings.highest_lr(rows.num_rows)
        learner.network.train()

        def batches() -> Iterator[Any]:
            for epoch in range(10**6):
                yield from rows.epoch(epoch, skip=0, rank=0, world=1, batch_rows=64)

        made = enumerate(batches())

        def step() -> None:
            number, batch = next(made)
            stepper(batch, number, lr)

        print(json.dumps(alternate(step)))
        raise Done

    table = unisono.data.shapes(1200, seed=seed)
    with mock.patch.object(fitting, "train", instead), contextlib.suppress(Done):
        unisono.fit(table, "shape", split="split", seed=seed, progress=False)


@row(
    "busy_neighbour",
    goals=[
        Goal("ratio", arm="arrives", must=100.0, aim=10.0, better="lower"),
        Goal("ratio", arm="there", must=100.0, aim=10.0, better="lower"),
        Goal("ratio", arm="untouched", better="lower"),
        Goal("quiet", arm="arrives", better="lower"),
        Goal("quiet", arm="there", better="lower"),
    ],
    arms=tuple(LOADS),
    seeds=(0, 1),
)
def busy_neighbour(*, arm: str, seed: int) -> Measured:
    """Time of a training step with a spinning process on every core over its time on a quiet machine."""
    load = LOADS[arm]
    command = [sys.executable, "-m", "benchmarks.busy_neighbour", "--seed", str(seed), *([] if load is None else ["--load", str(load)])]
    environment = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1], env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    times = {name: (1000 * found[name], "ms") for name in ("quiet", "busy")}
    return {**times, "ratio": (found["ratio"], "ratio"), "clean": (found["clean"], "slots")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--load", type=float)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    child(asked.load, asked.seed)
