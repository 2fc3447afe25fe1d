"""Approximate search by a graph of neighbours (HNSW), whose recall is measured on the rows themselves.

The graph is that of faiss: on rows like those of a model it is faster than usearch at the same recall. Vectors are unit vectors; the graph
compares them by inner product, its scores are not used: what it finds is scored again exactly.

Letters: N rows, E dimensions, P queries, K hits.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import DependencyError, IndexFolderError

Ints = NDArray[np.int64]


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
    _LINKS, _BUILD, _EFFORTS, _ASKED, _CHUNK = 32, 80, (16, 32, 64, 128, 256, 512), 200, 50_000

    def __init__(self, graph: Any, *, recall: float = float("nan"), effort: int = 64) -> None:
        """Wrap a graph of the library.

        Args:
            graph: an ``IndexIDMap2`` over an ``IndexHNSWFlat``, whose identifiers are row numbers.
            recall: as measured.
            effort: as chosen.
        """
        self._graph, self.recall, self.effort = graph, recall, effort

    @classmethod
    def build(cls, vectors: Any, present: NDArray[np.bool_]) -> Graph:
        """Build a graph, and choose the least effort by which it finds what exact search finds.

        Args:
            vectors: (N, E) unit vectors.
            present: (N,) which rows have one.
        """
        from unisono.retrieve.exact import search
        from unisono.retrieve.scan import Gallery

        faiss = library()
        inner = faiss.IndexHNSWFlat(vectors.shape[1], cls._LINKS, faiss.METRIC_INNER_PRODUCT)
        inner.hnsw.efConstruction = cls._BUILD
        graph = cls(faiss.IndexIDMap2(inner))
        rows = np.flatnonzero(present)
        for begin in range(0, len(rows), cls._CHUNK):
            chosen = rows[begin : begin + cls._CHUNK]
            graph._graph.add_with_ids(np.ascontiguousarray(vectors[chosen]), chosen)
        asked = np.asarray(vectors[rows[:: max(1, len(rows) // cls._ASKED)][: cls._ASKED]])
        k = min(10, len(rows))
        truth, _ = search(Gallery.of(np.ascontiguousarray(vectors[rows])), asked, k)
        for effort in cls._EFFORTS:
            graph.effort = effort
            found = graph.nearest(asked, k)
            scores = np.einsum("pke,pe->pk", vectors[found].astype(np.float64), asked.astype(np.float64))
            graph.recall = float(((found >= 0) & (scores >= truth[:, -1:] - cls._TIED)).mean())
            if graph.recall >= cls.WANTED:
                break
        return graph

    def nearest(self, queries_PE: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Ints:
        """(P, K) row numbers, best first; -1 where it found fewer.

        Args:
            queries_PE: unit vectors.
            k: how many.
            allowed: (N,) which rows may be found; None for all.
        """
        faiss = library()
        options = {"efSearch": max(self.effort, 2 * k)}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersHNSW(**options)
        _, rows = self._graph.search(np.ascontiguousarray(queries_PE, np.float32), k, params=parameters)
        return np.asarray(rows, np.int64)

    def to_bytes(self) -> bytes:
        """The graph as a file's content."""
        return bytes(library().serialize_index(self._graph))

    @classmethod
    def from_file(cls, path: Any, *, recall: float, effort: int) -> Graph:
        """Read a graph.

        Raises:
            IndexFolderError: it is damaged.
        """
        try:
            return cls(library().read_index(str(path)), recall=recall, effort=effort)
        except RuntimeError as error:
            raise IndexFolderError(f"{path}: damaged ({str(error)[:200]}); build the index again") from None
