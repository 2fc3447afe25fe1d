"""Columns of Arrow as decoders want them: one array of a plain type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array, dictionary and extension types unwrapped."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(whole, pa.ExtensionArray):
        whole = whole.storage
    return whole.dictionary_decode() if pa.types.is_dictionary(whole.type) else whole


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds text, in whichever of Arrow's layouts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def all_bad(array: pa.Array, reason: str) -> tuple[tuple[int, str], ...]:
    """(row, reason) of every cell that is not null: what a decoder answers that cannot read the type."""
    rows: NDArray[np.int64] = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    return tuple((int(row), reason) for row in rows)
