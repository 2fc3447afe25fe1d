"""Sampled signals: what audio and series cells decode to, and how nested values with a rate are read.

Letters: N samples in time, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import Unreadable


@dataclass(frozen=True, eq=False)
class Signal:
    """A decoded signal.

    Attributes:
        values: (N,) mono sound or (N, C) series, float32.
        rate: samples a second (Hz); NaN where unknown.
    """

    values: NDArray[np.float32]
    rate: float = float("nan")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """The size of the values in memory."""
        return self.values.nbytes

    def __len__(self) -> int:
        return len(self.values)


def read_rate(value: Any, where: str = "rate") -> float:
    """Check a sampling rate in Hz.

    Raises:
        Unreadable: it is no positive finite number.
    """
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise Unreadable(f"the {where} {value!r} is no number of samples a second") from None
    if not np.isfinite(rate) or rate <= 0:
        raise Unreadable(f"the {where} has to be a positive number of samples a second, got {value!r}")
    return rate


def split_rate(cell: Any, options: Mapping[str, Any]) -> tuple[Any, float]:
    """Take ``{values, rate}`` apart; a bare value has the rate of the column's options, or NaN.

    Raises:
        Unreadable: the rate is unusable, or the struct holds no values.
    """
    rate = options.get("rate")
    if isinstance(cell, dict) and "values" in cell:
        if cell["values"] is None:
            raise Unreadable("the struct holds no values")
        rate = cell.get("rate") if cell.get("rate") is not None else rate
        cell = cell["values"]
    return cell, float("nan") if rate is None else read_rate(rate)


def resample(values: NDArray[np.float32], rate: float, wanted: float) -> NDArray[np.float32]:
    """Band-limited resampling along the first axis by a polyphase filter; rates are rounded to whole Hz.

    Args:
        values: (N, ...) samples.
        rate: their rate in Hz.
        wanted: the rate in Hz of the result.

    Returns:
        About N * wanted / rate samples, float32.
    """
    old, new = max(round(rate), 1), max(round(wanted), 1)
    if old == new:
        return values
    from scipy.signal import resample_poly

    k = gcd(old, new)
    return np.ascontiguousarray(resample_poly(values, new // k, old // k, axis=0), dtype=np.float32)
