"""How long one query waits when many come at once: a running server against the model's own time for a full batch.

A model of the shapes world (picture, caption and table columns, width 96) answers 32 clients, each of which sends its next query when it
has its answer: predictions from a picture and a caption, or a search by a caption among 1,024 rows. Server and clients share the machine;
the clients are threads of another process with connections that stay open, and their queries are made beforehand.

The unit is the median time that the same model takes for one table of 32 such rows in a process of its own, decoding included: what a
perfect server would need for 32 queries that arrive together.
"""

from __future__ import annotations

import base64
import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import unisono
from benchmarks import Goal, Measured, row

CLIENTS, ROUNDS, WARM = 32, 40, 8
ROWS = 1024
#: The model is not trained for its answers: its time does not depend on them.
SETTINGS = ("width=96", "train.steps=2", "train.batch=64")


def bodies(table: pa.Table, arm: str) -> list[bytes]:
    """A query for every row."""
    found = []
    for cells in table.select(["image", "caption"]).to_pylist():
        if arm == "predict":
            picture = None if cells["image"] is None else {"base64": base64.b64encode(cells["image"]).decode()}
            content: dict[str, Any] = {"rows": [{"image": picture, "caption": cells["caption"]}]}
        else:
            content = {"query": {"caption": cells["caption"]}, "k": 10}
        found.append(json.dumps(content).encode())
    return found


def client(port: int, path: str, given: Sequence[bytes], seconds: list[float]) -> None:
    """Send query after query."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in given:
        begin = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise RuntimeError(f"status {reply.status}")
        seconds.append(time.perf_counter() - begin)
    connection.close()


def load(port: int, path: str, queries: Sequence[bytes]) -> list[float]:
    """Seconds of every query of all clients, the first of each left out."""
    found: list[list[float]] = [[] for _ in range(CLIENTS)]
    many = WARM + ROUNDS
    given = [[queries[(c * many + k) % len(queries)] for k in range(many)] for c in range(CLIENTS)]
    threads = [threading.Thread(target=client, args=(port, path, given[c], found[c])) for c in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(len(times) < many for times in found):
        raise RuntimeError("a client did not get all its answers")
    return [s for times in found for s in times[WARM:]]


def full_batch(folder: Path, rows: pa.Table, arm: str) -> float:
    """The median time of the model alone for a full batch, in seconds."""
    predictor = unisono.load(folder).predictor()
    times = []
    for k in range(30):
        begin = time.perf_counter()
        for _ in predictor.predictions(rows) if arm == "predict" else predictor.embeddings(rows):
            pass
        if k >= 5:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


@row(
    "serve_latency",
    goals=[Goal("p95_by_batch", arm=arm, must=3.0, aim=1.5, better="lower") for arm in ("predict", "search")],
    arms=("predict", "search"),
    seeds=(0, 1, 2),
)
def serve_latency(*, arm: str, seed: int) -> Measured:
    """One query's latency under 32 clients, and the model's own time for 32 rows at once."""
    table = unisono.data.shapes(ROWS, seed=seed, columns=("key", "image", "caption", "table", "shape"))
    with tempfile.TemporaryDirectory(prefix="unisono-") as name:
        folder = Path(name)
        options: dict[str, Any] = {"target": "shape"} if arm == "predict" else {"align": True, "drop": ("shape",)}
        unisono.fit(table, key="key", out=folder / "model", settings=SETTINGS, progress=False, **options)
        served = folder / "model"
        if arm == "search":
            unisono.load(served).index(table, folder / "index")
            served = folder / "index"
        shown = ["image", "caption"] if arm == "predict" else ["caption"]
        alone = full_batch(folder / "model", table.select(shown).slice(0, CLIENTS), arm)
        command = [sys.executable, "-m", "unisono", "serve", str(served), "--port", "0", "--json", "--batch", str(CLIENTS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                port = int(json.loads(server.stdout.readline())["address"].rsplit(":", 1)[1])
                begin = time.perf_counter()
                seconds = load(port, "/predict" if arm == "predict" else "/search", bodies(table, arm))
                wall = time.perf_counter() - begin
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(30)
    low, high = np.percentile(seconds, [50, 95])
    return {
        "p95_by_batch": (float(high) / alone, "ratio"),
        "p95": (1e3 * float(high), "ms"),
        "median": (1e3 * float(low), "ms"),
        "full_batch": (1e3 * alone, "ms"),
        "queries": (CLIENTS * (WARM + ROUNDS) / wall, "1/s"),
    }
