"""Tiny tables with planted answers, and settings by which a fit takes a fraction of a second."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

import unisono

#: A network small enough for tests, and a fixed number of steps.
SMALL = ("width=16", "defaults.ffn=mlp(1)", "defaults.mixer=attention(heads=2)", "train.steps=60", "train.batch=64", "train.lr=0.003")
SEEN = ("good day with a fine breeze", "nice warm sun over the lake", "lovely clear sky this noon")
GLOOMY = ("bad day with a cold storm", "poor grey rain over the lake", "awful thick fog this noon")


def weather(n: int = 240, seed: int = 0) -> pa.Table:
    """Three sources (``table``, ``note``, ``curve``), each of which alone gives ``kind`` away, with a fifth of the cells missing."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    number = rng.normal(size=n) + 3 * kind
    note = [f"{(SEEN, GLOOMY)[k][rng.integers(3)]} number {'abcdefghij'[rng.integers(10)]}{'abcdefghij'[rng.integers(10)]}" for k in kind]
    curve = [(np.sin(np.arange(16) * (0.4 + 0.8 * k)) + 0.1 * rng.normal(size=16)).round(3).tolist() for k in kind]
    holes = rng.random((3, n)) < 0.2
    holes[:, holes.all(0)] = False
    return pa.table(
        {
            "key": [f"k{j:04d}" for j in range(n)],
            "number": [None if h else float(v) for v, h in zip(number, holes[0], strict=True)],
            "colour": [("red", "green", "blue")[j % 3] for j in range(n)],
            "note": [None if h else v for v, h in zip(note, holes[1], strict=True)],
            "curve": [None if h else v for v, h in zip(curve, holes[2], strict=True)],
            "kind": [("dull", "bright")[k] for k in kind],
            "amount": 2.0 * kind + 0.05 * rng.normal(size=n),
            "tags": [["wet"] if k else ["dry", "warm"] for k in kind],
            "flag": kind.astype(bool),
            "split": np.where(np.arange(n) % 4 == 3, "test", np.where(np.arange(n) % 8 == 1, "val", "train")),
        }
    )


INPUTS = ("number", "colour", "note", "curve")
#: What a fit on ``weather`` leaves out so that nothing but the inputs is read.
OPTIONS: dict[str, Any] = {"split": "split", "key": "key"}
COLUMNS = {"curve": "vector", "note": "text"}


def fit(table: pa.Table | None = None, target: Any = "kind", *, settings: tuple[str, ...] = (), **options: Any) -> unisono.Model:
    """A model of the weather."""
    table = weather() if table is None else table
    names = [target] if isinstance(target, str) else [str(t).rpartition("=")[0] or str(t) for t in target]
    drop = [t for t in ("kind", "amount", "tags", "flag") if t not in names and t in table.column_names]
    given = {**OPTIONS, **options}
    return unisono.fit(table, target, columns=COLUMNS, settings=(*SMALL, *settings), progress=False, drop=drop, **given)


@cache
def fitted() -> unisono.Model:
    """A model of ``kind`` that tests share and leave as it is."""
    return fit()


def pictures(n: int = 60) -> pa.Table:
    """Pictures that are bright or dark, with a few words."""
    import io

    from PIL import Image

    def shade(k: int) -> bytes:
        values = np.random.default_rng(k).integers(0, 90, (12, 12, 3)) + (160 if k % 2 else 0)
        out = io.BytesIO()
        Image.fromarray(values.astype(np.uint8)).save(out, "PNG")
        return out.getvalue()

    words = ("the small red cat sleeps", "a big blue dog runs and runs")
    return pa.table(
        {
            "photo": [shade(k) if k % 5 else None for k in range(n)],
            "words": [
                f"{words[k % 2]} {['the', 'a', 'and'][k % 3]} {['cat', 'dog', 'big'][k // 3 % 3]} {['red', 'blue'][k // 9 % 2]}"
                for k in range(n)
            ],
            "light": [("dark", "bright")[k % 2] for k in range(n)],
        }
    )


__all__ = ["COLUMNS", "INPUTS", "OPTIONS", "SMALL", "fit", "fitted", "pictures", "weather"]
