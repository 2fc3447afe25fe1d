"""Make an index of a table."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from unisono.retrieve.change import Settings, create
from unisono.retrieve.embedder import Embedder
from unisono.retrieve.index import Index


def build_index(embedder: Embedder, data: Any, out: str | Path | None = None, **settings: Any) -> Index:
    """Index a table.

    Args:
        embedder: the model.
        data: the table.
        out: the folder to write; None keeps the index in a temporary folder for as long as it is used.
        **settings: ``approximate``, ``fields``, ``max_media``, ``correction``.

    Raises:
        UserError: of many kinds; each message says what to mend.
    """
    asked = Settings(**settings)
    owned = Path(tempfile.mkdtemp(prefix="unisono-index-")) if out is None else None
    folder = Path(out) if out is not None else Path(str(owned)) / "index"
    try:
        create(folder, embedder, embedder.open(data), asked)
        index = Index(folder, embedder=embedder, verify=False)
    except BaseException:
        shutil.rmtree(owned, ignore_errors=True) if owned is not None else None
        raise
    if owned is not None:
        weakref.finalize(index, shutil.rmtree, owned, ignore_errors=True)
    return index
