"""Where the folder of public data sets lies, and how its files are opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unisono.core.errors import TableError, UserError, nearest

VARIABLE = "UNISONO_DATA"


def data_folder(folder: str | Path | None = None) -> Path:
    """Find the folder of public data sets.

    Args:
        folder: the folder; by default what the environment variable UNISONO_DATA says, else ``../shared/data`` beside the repository.

    Raises:
        TableError: there is no such folder.
    """
    named = folder if folder is not None else os.environ.get(VARIABLE)
    path = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data"
    if not path.is_dir():
        raise TableError(f"no data folder {path}: set {VARIABLE} to the folder of data sets, or give it as folder=...")
    return path


def data_file(folder: str | Path | None, *parts: str) -> Path:
    """Find one file of the data folder, or say where it was looked for."""
    path = data_folder(folder).joinpath(*parts)
    if not path.is_file():
        raise TableError(f"no file {path}: set {VARIABLE} to a folder that holds {'/'.join(parts)}, or give it as folder=...")
    return path


def one_of(word: str, words: tuple[str, ...], what: str) -> str:
    """Check that a name is one of those there are."""
    if word not in words:
        raise UserError(f"no {what} {word!r}{nearest(word, words)}")
    return word


def read_arrays(folder: str | Path | None, *parts: str) -> dict[str, NDArray[Any]]:
    """Read an ``.npz`` file of the data folder."""
    with np.load(data_file(folder, *parts), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def read_table(folder: str | Path | None, *parts: str) -> pa.Table:
    """Read a Parquet file of the data folder, strings as plain strings and without foreign metadata."""
    table = pq.read_table(data_file(folder, *parts))
    fields = [pa.field(f.name, pa.string()) if pa.types.is_large_string(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields)).replace_schema_metadata(None)


def vectors(values: NDArray[Any]) -> pa.Array:
    """Turn an array (rows, d) into a column of vectors: fixed-size lists of float32."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
