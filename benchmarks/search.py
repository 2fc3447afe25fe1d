"""Search: exact against faiss's flat index, approximate against graph libraries used directly.

Data are unit vectors in 4,096 crowded clusters, as embeddings are; queries are rows with noise. Every candidate runs on all cores of the
machine, in turns within one process. ``usearch`` is measured beside faiss at the same recall: it shows which library is worth wrapping.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import Goal, Measured, Values, row
from benchmarks.timing import interleave, slots_of

SIZE, CLUSTERS = 256, 4096
BATCHES = (1, 32, 1000)
EFFORTS = (16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256)
Float = NDArray[np.float32]


def unit(vectors: Float) -> Float:
    """Vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(kind: str, rows: int, seed: int) -> Float:
    """(rows, SIZE) unit vectors: ``clustered``, ``isotropic``, or a ``cone`` with a mean cosine of 0.99."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((CLUSTERS if kind == "clustered" else 1, SIZE), np.float32))
    spread = {"clustered": 0.6, "isotropic": 1.0, "cone": 0.1}[kind] / SIZE**0.5
    found = np.empty((rows, SIZE), np.float32)
    for begin in range(0, rows, 1 << 16):
        part = found[begin : begin + (1 << 16)]
        noise = spread * rng.standard_normal(part.shape, np.float32)
        part[:] = unit(noise if kind == "isotropic" else centres[rng.integers(0, len(centres), len(part))] + noise)
    return found


def asked(vectors: Float, count: int, seed: int) -> Float:
    """Rows with noise, as queries."""
    rng = np.random.default_rng(seed + 1)
    return unit(vectors[rng.integers(0, len(vectors), count)] + 0.3 / SIZE**0.5 * rng.standard_normal((count, SIZE), np.float32))


def true_scores(vectors: Float, queries: Float, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(P, K) the best scores and rows by float64."""
    exact = queries.astype(np.float64)
    scores, rows = np.full((len(queries), k), -np.inf), np.zeros((len(queries), k), np.int64)
    for begin in range(0, len(vectors), 1 << 16):
        found = exact @ vectors[begin : begin + (1 << 16)].astype(np.float64).T
        whole = np.concatenate([scores, found], 1)
        numbers = np.concatenate([rows, np.broadcast_to(begin + np.arange(found.shape[1]), found.shape)], 1)
        best = np.argsort(-whole, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(whole, best, 1), np.take_along_axis(numbers, best, 1)
    return scores, rows


def ratios(found: Values) -> Mapping[str, tuple[float | None, str]]:
    """Our queries a second over faiss's, batch by batch."""
    return {f"ratio_{n}": (found.mean("ratio", batch=n), "times") for n in BATCHES}


@row(
    "search_exact",
    goals=[
        Goal("ratio_1", must=1.2, aim=2.0),
        Goal("ratio_32", must=6.0, aim=12.0),
        Goal("ratio_1000", must=1.3, aim=1.6),
    ],
    over={"batch": BATCHES},
    derive=ratios,
)
def search_exact(*, arm: str, seed: int, batch: int) -> Measured:
    """Exact top ten of 1,000,000 x 256 clustered vectors: queries a second against faiss IndexFlatIP in the same process."""
    del arm
    import faiss

    from unisono.retrieve.exact import search
    from unisono.retrieve.scan import Gallery

    vectors = made("clustered", 1_000_000, seed)
    queries = asked(vectors, batch, seed)
    begin = time.perf_counter()
    gallery = Gallery.of(vectors)
    seconds = time.perf_counter() - begin
    flat = faiss.IndexFlatIP(SIZE)
    flat.add(vectors)
    took = interleave({"ours": lambda: search(gallery, queries, 10), "faiss": lambda: flat.search(queries, 10)}, slots=5, attempts=2)
    rate = {name: batch / t.seconds for name, t in took.items()}
    speeds = {f"{name}_queries": (value, "1/s") for name, value in rate.items()}
    return {"ratio": (rate["ours"] / rate["faiss"], "times"), **speeds, "copy": (seconds, "s"), **slots_of(took)}


@row("search_exact_ids", goals=[Goal("wrong", must=0.0, better="lower")], over={"kind": ("clustered", "isotropic", "cone")})
def search_exact_ids(*, arm: str, seed: int, kind: str) -> Measured:
    """Exact top ten of 1,000,000 x 256 against float64: rows that differ where scores do not tie."""
    del arm
    from unisono.retrieve.exact import search
    from unisono.retrieve.scan import Gallery

    vectors = made(kind, 1_000_000, seed)
    queries = asked(vectors, 64, seed)
    scores, rows = search(Gallery.of(vectors), queries, 10)
    truth, expected = true_scores(vectors, queries, 10)
    wrong = (rows != expected) & (np.abs(scores - truth) > 1e-14)
    return {"wrong": (float(wrong.sum()), "hits"), "same_rows": (float((rows == expected).mean()), "share")}


class Given:
    """An embedder of vectors that are there already."""

    def __init__(self) -> None:
        self.sources: tuple[str, ...] = ("vector",)
        self.columns: Mapping[str, str] = {"vector": "vector"}
        self.key: str | None = None
        self.fingerprint, self.aligned = "0" * 64, True
        self.folder: Path | None = None

    def open(self, data: Any) -> Any:
        """Open a table."""
        from unisono.table.read import open_table

        return open_table(data)

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        """The vectors themselves."""
        for batch in self.open(data).batches():
            vectors = batch.column(0)
            numbers = pa.array(np.arange(batch.num_rows))
            yield pa.record_batch([numbers, vectors, vectors], names=["row", "embedding", "embedding.vector"])


def recall(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """The share of expected rows that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, expected, strict=True)]))


@row(
    "search_approximate",
    goals=[Goal("ratio", must=0.9, aim=1.0), Goal("ours_recall", must=0.99), Goal("faiss_queries"), Goal("usearch_queries")],
)
def search_approximate(*, arm: str, seed: int) -> Measured:
    """Approximate top ten of 100,000 x 256 clustered vectors at a recall of 0.99: queries a second against the library used directly."""
    del arm
    import faiss
    from usearch.index import Index as Peer

    from unisono.retrieve.make import build_index

    vectors = made("clustered", 100_000, seed)
    queries = asked(vectors, 1000, seed)
    _, expected = true_scores(vectors, queries, 10)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), SIZE)
    begin = time.perf_counter()
    index = build_index(Given(), pa.table({"vector": flat}), approximate=True)
    built = {"ours_build": (time.perf_counter() - begin, "s")}
    begin = time.perf_counter()
    direct = faiss.IndexHNSWFlat(SIZE, 32, faiss.METRIC_INNER_PRODUCT)
    direct.hnsw.efConstruction = 80
    direct.add(vectors)
    built["faiss_build"] = (time.perf_counter() - begin, "s")
    begin = time.perf_counter()
    peer = Peer(ndim=SIZE, metric="ip", dtype="bf16", connectivity=32, expansion_add=80)
    peer.add(np.arange(len(vectors)), vectors)
    built["usearch_build"] = (time.perf_counter() - begin, "s")
    reached: dict[str, tuple[float, str]] = {"ours_recall": (recall(index.nearest(queries, 10)[1], expected), "share")}
    for effort in EFFORTS:
        direct.hnsw.efSearch = effort
        reached["faiss_recall"] = (recall(direct.search(queries, 10)[1], expected), "share")
        if reached["faiss_recall"][0] >= 0.99:
            break
    for effort in EFFORTS:
        peer.expansion_search = effort
        reached["usearch_recall"] = (recall(peer.search(queries, 10).keys.astype(np.int64), expected), "share")
        if reached["usearch_recall"][0] >= 0.99:
            break
    candidates = {
        "ours": lambda: index.nearest(queries, 10),
        "faiss": lambda: direct.search(queries, 10),
        "usearch": lambda: peer.search(queries, 10),
    }
    took = interleave(candidates, slots=5, attempts=2)
    rates = {f"{name}_queries": (len(queries) / t.seconds, "1/s") for name, t in took.items()}
    ratio = took["faiss"].seconds / took["ours"].seconds
    return {"ratio": (ratio, "times"), **rates, **reached, **built, **slots_of(took)}
