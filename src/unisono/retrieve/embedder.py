"""What an index asks of a model: vectors for the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from unisono.table.read import TableSource

#: The column of a row's own vector in what an embedder yields; ``embedding.SOURCE`` is the one of a source.
VECTOR = "embedding"


class Embedder(Protocol):
    """Turns rows into vectors."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The units that have a vector each."""
        ...

    @property
    def columns(self) -> Mapping[str, str]:
        """Input column -> modality."""
        ...

    @property
    def key(self) -> str | None:
        """The column that names a row, if any."""
        ...

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the weights."""
        ...

    @property
    def folder(self) -> Path | None:
        """The model folder, where there is one."""
        ...

    @property
    def aligned(self) -> bool:
        """Whether the vectors of all sources lie in one space."""
        ...

    def open(self, data: Any) -> TableSource:
        """Open a table of rows to embed."""
        ...

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        """For each batch of rows the key (else ``row``), ``embedding`` and ``embedding.SOURCE``, null where nothing is there."""
        ...
