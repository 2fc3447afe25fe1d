"""Tables of spoken digits, alone and paired with written ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.data.folder import one_of, read_arrays, read_table
from unisono.data.png import encode_png
from unisono.data.stream import Stream

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def fsdd(*, folder: str | Path | None = None) -> pa.Table:
    """Load the Free Spoken Digit Dataset: 3,000 rows of ``key``, ``sound`` (WAV, 8 kHz), ``digit``, ``speaker``, ``index``, ``split``."""
    table = read_table(folder, "fsdd", "fsdd.parquet").rename_columns({"id": "key", "wav": "sound"})
    return table.select(["key", "sound", "digit", "speaker", "index", "split"])


def _draw(pool: NDArray[np.int64], count: int, stream: Stream) -> list[int]:
    """Draw ``count`` of the pool's items, starting the pool again only when it is used up."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += stream.sample(pool.tolist(), min(len(pool), count - len(drawn)))
    return drawn


def av_digits(speaker: str = "theo", *, seed: int = 0, folder: str | Path | None = None) -> pa.Table:
    """Pair every recording of ``fsdd`` with one MNIST picture of its digit, drawn by seed without replacement where there are enough.

    Args:
        speaker: whose recordings are the test part, with pictures of MNIST's test part; the others are the training part, with
            pictures of its training part.
        seed: of the pairing.
        folder: the data folder.

    Returns:
        3,000 rows of ``key``, ``image`` (PNG), ``sound`` (WAV), ``digit``, ``speaker``, ``split`` (train, test).
    """
    one_of(speaker, SPEAKERS, "speaker")
    spoken, written = fsdd(folder=folder), read_arrays(folder, "mnist", "mnist.npz")
    digit = np.asarray(spoken["digit"].to_numpy())
    test = np.array([name == speaker for name in spoken["speaker"].to_pylist()])
    images = [b""] * len(digit)
    for number, part in enumerate(("train", "test")):
        for d in range(10):
            rows = np.flatnonzero((digit == d) & (test == bool(number)))
            pool = np.flatnonzero(written[f"y_{part}"] == d)
            for row, place in zip(rows.tolist(), _draw(pool, len(rows), Stream(seed, d, number)), strict=True):
                images[row] = encode_png(written[f"x_{part}"][place])
    return pa.table(
        {
            "key": spoken["key"],
            "image": pa.array(images, pa.binary()),
            "sound": spoken["sound"],
            "digit": spoken["digit"],
            "speaker": spoken["speaker"],
            "split": pa.array(["test" if t else "train" for t in test.tolist()]),
        }
    )
