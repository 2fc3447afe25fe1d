"""Approximate search by a graph of neighbours (HNSW), whose recall is measured on the rows themselves.

The graph is that of faiss: on rows like those of a model it is faster than usearch at the same recall. Vectors are unit vectors; the graph
compares them by inner product in float32.

Letters: N rows, E dimensions, P queries, K hits.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import DependencyError, IndexFolderError
from unisono.retrieve.exact import search
from unisono.retrieve.scan import Gallery

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


def library() -> Any:
    """The library.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise DependencyError("faiss", "ann", "approximate search") from None
    return faiss


class Graph:
    """A graph over the present rows of one side.

    Attributes:
        recall: the share of the ten nearest rows that it finds, over rows of its own as queries; of rows that tie any counts.
        effort: how many rows a search keeps in view (``efSearch``), the least that reached the recall wanted.
    """

    #: A graph over fewer than this share of the rows is built anew.
    COVERED: ClassVar[float] = 0.9
    #: The recall at ten that is wanted.
    WANTED: ClassVar[float] = 0.99
    _TIED = 1e-6
    _LINKS, _BUILD, _ASKED, _CHUNK = 32, 80, 500, 50_000
    _EFFORTS = (16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)

    def __init__(self, graph: Any, rows: Ints, *, recall: float = float("nan"), effort: int = 64) -> None:
        """Wrap a graph of the library.

        Args:
            graph: an ``IndexHNSWFlat``.
            rows: the row number of each of its vectors.
            recall: as measured.
            effort: as chosen.
        """
        self._graph, self._rows, self.recall, self.effort = graph, rows, recall, effort

    @classmethod
    def build(cls, gallery: Gallery, present: NDArray[np.bool_]) -> Graph:
        """Build a graph, and choose the least effort by which it finds what exact search finds.

        Args:
            gallery: unit vectors.
            present: (N,) which rows have one.
        """
        faiss, vectors = library(), gallery.vectors
        rows = np.flatnonzero(present)
        inner = faiss.IndexHNSWFlat(vectors.shape[1], cls._LINKS, faiss.METRIC_INNER_PRODUCT)
        inner.hnsw.efConstruction = cls._BUILD
        for begin in range(0, len(rows), cls._CHUNK):
            inner.add(np.ascontiguousarray(vectors[rows[begin : begin + cls._CHUNK]]))
        graph = cls(inner, rows)
        asked = np.asarray(vectors[rows[:: max(1, len(rows) // cls._ASKED)][: cls._ASKED]])
        k = min(11, len(rows))
        truth, _ = search(gallery, asked, k, present)
        for effort in cls._EFFORTS:
            graph.effort = effort
            scores, _ = graph.nearest(asked, k)
            found = (scores >= truth[:, -1:] - cls._TIED).sum(1)
            graph.recall = float(np.maximum(found - 1, 0).mean() / (k - 1)) if k > 1 else 1.0  # a row finds itself: that is no merit
            if graph.recall >= cls.WANTED:
                break
        return graph

    def nearest(self, queries_PE: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> tuple[Doubles, Ints]:
        """(P, K) inner products and (P, K) row numbers, best first; minus infinity and -1 where it found fewer.

        Args:
            queries_PE: unit vectors.
            k: how many.
            allowed: (N,) which rows may be found; None for all.
        """
        faiss = library()
        options: dict[str, Any] = {"efSearch": max(self.effort, k)}
        if allowed is not None and not allowed[self._rows].all():
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed[self._rows], bitorder="little"))
        scores, places = self._graph.search(np.ascontiguousarray(queries_PE, np.float32), k, params=faiss.SearchParametersHNSW(**options))
        return np.where(places >= 0, scores, -np.inf).astype(np.float64), np.where(places >= 0, self._rows[places], -1)

    def to_bytes(self) -> bytes:
        """The graph as a file's content."""
        return bytes(library().serialize_index(self._graph))

    @classmethod
    def from_file(cls, path: Any, rows: Ints, *, recall: float, effort: int) -> Graph:
        """Read a graph.

        Args:
            path: the file.
            rows: the row number of each of its vectors.
            recall: as measured.
            effort: as chosen.

        Raises:
            IndexFolderError: it is damaged.
        """
        try:
            graph = library().read_index(str(path))
        except RuntimeError as error:
            raise IndexFolderError(f"{path}: damaged ({str(error)[:200]}); build the index again") from None
        if graph.ntotal != len(rows):
            raise IndexFolderError(f"{path}: a graph of {graph.ntotal:,} rows in place of {len(rows):,}; build the index again")
        return cls(graph, rows, recall=recall, effort=effort)
