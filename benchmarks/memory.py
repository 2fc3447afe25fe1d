"""Peak memory of a fit at N rows and at ten times as many.

A table of numbers, a category, a picture and a text is written to disk and fitted in a process of its own for a few steps, with evaluation
and report. Counted is anonymous and shared memory of that process and its workers, sampled while it runs: pages of the memory-mapped table
belong to the system, which takes them back when it needs them. The main process's ordinary peak, those pages included, is recorded beside
it. Decoded cells may be kept in memory up to a bound that is set so low here that both sizes are above it (``RESIDENT_BYTES``, in place
of the 512 MB of a fit). The smaller table has enough batches for the allocator to have reached its level, and texts are made of so few
words that it holds nearly all pairs of them: both fits learn the same vocabulary and train a network of the same size, which is recorded
beside the memory. With texts of ever new words a network grows with the rows, up to the bounds that the tokeniser sets.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks import Goal, Measured, Values, row

ROWS = {"1x": 8_000, "10x": 80_000}
RESIDENT_BYTES = 4 << 20
STEPS = 30
_GROUP = 2000
#: Distinct words, of which the texts of 6,400 training rows hold all but one in five hundred pairs.
WORDS = 120


def pool(rng: np.random.Generator, count: int = 256) -> list[bytes]:
    """Small JPEG files."""
    from PIL import Image

    found = []
    for _ in range(count):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((32, 32)).save(stream, "JPEG", quality=80)
        found.append(stream.getvalue())
    return found


def write_table(path: Path, rows: int, seed: int) -> None:
    """Write the table as Parquet, one row group after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    pictures, words = np.array(pool(rng), object), np.array(["".join(rng.choice(list("aeioulmnrst"), 6)) for _ in range(WORDS)], object)
    writer = None
    for start in range(0, rows, _GROUP):
        n = min(_GROUP, rows - start)
        numbers, chosen = rng.normal(size=(n, 3)), rng.integers(0, len(words), (n, 20))
        part = pa.table({
            "a": numbers[:, 0], "b": numbers[:, 1], "colour": np.array(["red", "green", "blue"], object)[rng.integers(0, 3, n)],
            "photo": pa.array(pictures[rng.integers(0, len(pictures), n)], pa.binary()),
            "note": [" ".join(line) for line in words[chosen]],
            "label": np.array(["no", "yes"], object)[(numbers[:, 0] + numbers[:, 2] > 0).astype(int)],
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(path, part.schema, compression="zstd")
        writer.write_table(part)
    if writer is not None:
        writer.close()


def status(name: str) -> int:
    """A line of this process's memory figures, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def tree() -> list[int]:
    """This process and its descendants."""
    found = [os.getpid()]
    for process in found:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{process}/task"):
                found += [int(word) for word in Path(f"/proc/{process}/task/{thread}/children").read_text(encoding="ascii").split()]
    return found


def held() -> int:
    """Bytes that this process and its descendants hold and no file backs; a page that several share is counted once."""
    total = 0
    for process in tree():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total


class Peak:
    """The most memory seen to be held while it is open."""

    def __init__(self, every: float = 0.02) -> None:
        self.bytes, self._every, self._over = 0, every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.bytes = max(self.bytes, held())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def child(path: Path, steps: int) -> None:
    """Fit, and print the peaks in bytes."""
    from unisono.train.devices import prepare_environment

    prepare_environment()
    import unisono
    from unisono.model import prepare
    from unisono.table.store import Store

    begin = time.monotonic()
    with Peak() as peak, mock.patch.object(prepare, "Store", partial(Store, resident_bytes=RESIDENT_BYTES)):
        model = unisono.fit(path, "label=category", out=path.parent / "model", settings=[f"train.steps={steps}"], progress=False)
    seconds, parameters = time.monotonic() - begin, sum(p.numel() for p in model.network.parameters())
    print(json.dumps({"anonymous": peak.bytes, "peak": status("VmHWM"), "seconds": seconds, "parameters": parameters}))


def growth(found: Values) -> Mapping[str, tuple[float | None, str]]:
    """How much more ten times the rows take."""
    result = {}
    for metric in ("anonymous", "peak"):
        small, large = found.mean(metric, "1x"), found.mean(metric, "10x")
        result[f"{metric}_ratio"] = (None if small is None or large is None else large / small, "ratio")
    return result


@row(
    "memory",
    goals=[
        Goal("anonymous_ratio", must=1.1, better="lower"),
        Goal("peak_ratio", better="lower"),
        Goal("anonymous", arm="1x", better="lower"),
        Goal("anonymous", arm="10x", better="lower"),
    ],
    arms=tuple(ROWS),
    derive=growth,
)
def memory(*, arm: str, seed: int) -> Measured:
    """Peak memory of a fit of numbers, pictures and text at 8,000 and 80,000 rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write_table(path, ROWS[arm], seed)
        command = [sys.executable, "-m", "benchmarks.memory", str(path), "--steps", str(STEPS)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    found = json.loads(done.stdout.splitlines()[-1])
    sizes = {name: (found[name] / 2**20, "MiB") for name in ("anonymous", "peak")}
    counts = {"parameters": (found["parameters"], "parameters"), "rows": (ROWS[arm], "rows")}
    return {**sizes, "seconds": (found["seconds"], "s"), **counts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    child(asked.table, asked.steps)
