"""Tables of pictures: handwritten digits and emoji."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unisono.data.folder import one_of, read_arrays, read_table
from unisono.data.png import encode_png


def digits() -> pa.Table:
    """Load scikit-learn's handwritten digits (1,797 rows of 8 x 8; Alpaydin and Kaynak 1998).

    Returns:
        ``key``, ``image`` (grey PNG, ink 0 to 16 stretched to 0 to 255), ``digit``, ``split`` (every fifth row is test).
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = (bunch.images * (255 / 16) + 0.5).astype(np.uint8)
    n = len(images)
    return pa.table(
        {
            "key": pa.array([f"digit-{i:04d}" for i in range(n)]),
            "image": pa.array([encode_png(image) for image in images], pa.binary()),
            "digit": pa.array(bunch.target, pa.int64()),
            "split": pa.array(["test" if i % 5 == 4 else "train" for i in range(n)]),
        }
    )


def emoji(*, folder: str | Path | None = None) -> pa.Table:
    """Load 1,906 emoji: ``key`` (code points), ``image`` (PNG 72 x 72 RGBA), name, keywords, group, versions, skin tone flag, split."""
    table = read_table(folder, "emoji", "emoji.parquet").rename_columns({"codepoints": "key", "png": "image"})
    return table.select(["key", "image", "name", "keywords", "group", "emoji_version", "unicode_version", "skin_tone_support", "split"])


def emoji_skin_tones(*, folder: str | Path | None = None) -> pa.Table:
    """Load 1,890 variants of emoji in skin tones: ``key``, ``base`` (key in ``emoji``), image, name, tones, keywords, group, split."""
    table = read_table(folder, "emoji", "emoji_skin_tones.parquet")
    return table.rename_columns({"codepoints": "key", "base_codepoints": "base", "png": "image"})


def mnist(split: str = "all", *, folder: str | Path | None = None) -> pa.Table:
    """Load the MNIST digits (LeCun et al. 1998): ``key``, ``image`` (grey PNG 28 x 28), ``digit``, ``split``.

    Args:
        split: ``train`` (60,000 rows), ``test`` (10,000) or ``all``.
        folder: the data folder.
    """
    one_of(split, ("train", "test", "all"), "part of MNIST")
    arrays = read_arrays(folder, "mnist", "mnist.npz")
    parts = []
    for part in ("train", "test") if split == "all" else (split,):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        columns = {
            "key": pa.array([f"{part}-{i:05d}" for i in range(len(y))]),
            "image": pa.array([encode_png(image) for image in x], pa.binary()),
            "digit": pa.array(y.astype(np.int64)),
            "split": pa.array([part] * len(y)),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
