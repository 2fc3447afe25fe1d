"""A fitted model as what an index asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import safetensors.torch

from unisono.model.stream import Predictor
from unisono.network import Network
from unisono.table.read import TableSource, open_table


def fingerprint(network: Network) -> str:
    """The SHA-256 of the weights, which is that of the file ``model.safetensors``."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(state)).hexdigest()


class PredictorEmbedder:
    """A predictor as an embedder."""

    def __init__(self, predictor: Predictor, folder: Path | None) -> None:
        """Wrap a predictor.

        Args:
            predictor: the model, ready to run.
            folder: its model folder, where there is one.
        """
        self._predictor, self._folder = predictor, folder
        self._fingerprint = fingerprint(predictor.network)

    @property
    def sources(self) -> tuple[str, ...]:
        """The model's sources."""
        return self._predictor.schema.sources

    @property
    def columns(self) -> Mapping[str, str]:
        """Input column -> modality."""
        return {c.name: c.modality for c in self._predictor.schema.columns}

    @property
    def key(self) -> str | None:
        """The column that names a row, if any."""
        return self._predictor.schema.key

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the weights."""
        return self._fingerprint

    @property
    def folder(self) -> Path | None:
        """The model folder, where there is one."""
        return self._folder

    @property
    def aligned(self) -> bool:
        """Whether the vectors of all sources lie in one space."""
        return bool(getattr(self._predictor, "aligned", False))

    def open(self, data: Any) -> TableSource:
        """Open a table of rows to embed; what it lacks is said when it is read."""
        given = self._predictor
        return open_table(data, null_words=given.null_words, encoding=given.encoding, media_root=given.media_root)

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        """Key, ``embedding`` and ``embedding.SOURCE``, batch by batch."""
        return self._predictor.embeddings(data)
