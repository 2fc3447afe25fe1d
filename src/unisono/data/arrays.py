"""Tables of vectors, time series and graphs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from unisono.core.errors import TableError
from unisono.data.folder import data_file, one_of, read_arrays, vectors

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")
UCR = ("ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf")
ETT = ("ETTh1", "ETTh2")
PLANETOID = ("cora", "citeseer")
_SERIES = pa.list_(pa.list_(pa.float32()))


def mfeat(*, folder: str | Path | None = None) -> pa.Table:
    """Load UCI Multiple Features: 2,000 digits as ``key``, six vectors (fac fou kar mor pix zer), ``y``, ``split``."""
    arrays = read_arrays(folder, "mfeat", "mfeat.npz")
    n = len(arrays["y"])
    return pa.table(
        {
            "key": pa.array([f"mfeat-{i:04d}" for i in range(n)]),
            **{view: vectors(arrays[view]) for view in VIEWS},
            "y": pa.array(arrays["y"].astype(np.int64)),
            "split": pa.array(["test" if t else "train" for t in arrays["is_test"].tolist()]),
        }
    )


def _number(text: str) -> float:
    return math.nan if text.strip() == "?" else float(text)


def read_ts(path: Path) -> tuple[list[list[list[float]]], list[str]]:
    """Read a ``.ts`` file: after ``@data`` one case a line, channels parted by colons, the class last.

    Returns:
        The cases, each (time, channel), NaN where a value is unknown or a channel is shorter than the longest; and the classes.

    Raises:
        TableError: a line that is no case.
    """
    cases, labels, begun = [], [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not begun or not line.strip() or line.startswith("#"):
            begun = begun or line.strip().lower() == "@data"
            continue
        *channels, label = line.strip().split(":")
        try:
            values = [[_number(v) for v in channel.split(",")] for channel in channels]
        except ValueError as error:
            raise TableError(f"{path}: line {number}: {error}; a case is numbers parted by commas and colons, then its class") from error
        if not values:
            raise TableError(f"{path}: line {number}: a case without a class; write the class last, after a colon")
        length = max(map(len, values))
        padded = [channel + [math.nan] * (length - len(channel)) for channel in values]
        cases.append([list(step) for step in zip(*padded, strict=True)])
        labels.append(label.strip())
    return cases, labels


def ucr(name: str, *, folder: str | Path | None = None) -> pa.Table:
    """Load a set of the UCR and UEA archives (one of UCR): ``key``, ``series`` (time, channel), ``label``, ``split`` (train, test)."""
    one_of(name, UCR, "set of time series")
    columns: dict[str, list[Any]] = {"key": [], "series": [], "label": [], "split": []}
    for part in ("train", "test"):
        cases, labels = read_ts(data_file(folder, "ucr_small", f"{name}_{part.upper()}.ts"))
        columns["key"] += [f"{part}-{i:04d}" for i in range(len(cases))]
        columns["series"] += cases
        columns["label"] += labels
        columns["split"] += [part] * len(cases)
    return pa.table({key: pa.array(cells, _SERIES if key == "series" else pa.string()) for key, cells in columns.items()})


def ett(name: str = "ETTh1", *, folder: str | Path | None = None) -> pa.Table:
    """Load an electricity transformer's hours (Zhou et al. 2021): ``date``, six loads, ``OT`` (oil temperature), ``split``.

    The first 8,640 hours are train, the next 2,880 val, the next 2,880 test; what follows has no split (null).
    """
    one_of(name, ETT, "transformer")
    table = pc.read_csv(data_file(folder, "ett", f"{name}.csv"))
    split = ["train"] * 8640 + ["val"] * 2880 + ["test"] * 2880
    return table.append_column("split", pa.array(split + [None] * (table.num_rows - len(split)), pa.string()))


def planetoid(name: str = "cora", *, folder: str | Path | None = None) -> pa.Table:
    """Load a citation network (Sen et al. 2008, split of Yang et al. 2016) as a table of one row.

    Returns:
        ``graph`` ``{nodes (n, words), edges (m, 2), directed}``; ``y``, the nodes' classes, null where unknown; ``split``, the nodes'
        parts (train, val, test, or null).
    """
    one_of(name, PLANETOID, "citation network")
    arrays = read_arrays(folder, "planetoid", f"{name}.npz")
    rows, words = arrays["x_shape"].tolist()
    nodes = np.zeros((rows, words), dtype=np.float32)
    nodes[np.repeat(np.arange(rows), np.diff(arrays["x_indptr"])), arrays["x_indices"]] = arrays["x_data"]
    offsets = pa.array([0, rows], pa.int32())
    edges = arrays["edges"].astype(np.int64)
    inner = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * words, pa.array(nodes.reshape(-1)))
    pairs = pa.ListArray.from_arrays(np.arange(len(edges) + 1, dtype=np.int32) * 2, pa.array(edges.reshape(-1)))
    lists = [pa.ListArray.from_arrays(offsets, inner), pa.ListArray.from_arrays(pa.array([0, len(edges)], pa.int32()), pairs)]
    graph = pa.StructArray.from_arrays([*lists, pa.array([False])], names=["nodes", "edges", "directed"])
    part: list[str | None] = [None] * rows
    for word in ("train", "val", "test"):
        for node in arrays[word].tolist():
            part[node] = word
    y = [[int(c) if c >= 0 else None for c in arrays["y"].tolist()]]
    return pa.table({"graph": graph, "y": pa.array(y, pa.list_(pa.int64())), "split": pa.array([part], pa.list_(pa.string()))})
