"""Made-up pairs of vectors with and without hubs, for corrections of a gallery.

Letters: N pairs, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unisono.retrieve import measures
from unisono.retrieve.hubness import Corrected, Correction, unit

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Queries and the items they look for, row by row.

    Attributes:
        queries: (N, E).
        gallery: (N, E).
    """

    queries: Vectors
    gallery: Vectors

    def part(self, start: int, stop: int) -> Pairs:
        """Some pairs."""
        return Pairs(self.queries[start:stop], self.gallery[start:stop])

    def measured(self, made: Corrected | None = None) -> dict[str, float]:
        """Recall at 1, skewness of 10-occurrence and mean cosine of the gallery, corrected or as it is."""
        queries, gallery = (self.queries, self.gallery) if made is None else (made.queries(self.queries), made.gallery)
        n = len(gallery)
        ranks = measures.rank(queries, gallery, measures.Positives.of(np.arange(n), np.arange(n)))
        mean = gallery.mean(0, dtype=np.float64)
        cosine = (n * float(mean @ mean) - float(np.square(gallery, dtype=np.float64).sum(1).mean())) / (n - 1)
        return {
            "r@1": measures.retrieval_figures(ranks)["r@1"],
            "skewness": measures.hubness(queries, gallery, 10),
            "cosine": cosine,
        }


def with_hubs(seed: int, *, n: int = 3000, width: int = 32, share: float = 0.1, pull: float = 0.5, shift: float = 0.9) -> Pairs:
    """Queries are noisy items; all queries lean to one side, and a share of the items leans there too: these are hubs.

    Args:
        seed: of the pairs.
        n: N.
        width: E.
        share: of items that are hubs; 0 for none, and no common side.
        pull: how far hubs lean.
        shift: how far queries lean.
    """
    rng = np.random.default_rng(seed)
    side = rng.normal(size=width)
    side /= np.linalg.norm(side)
    own = rng.normal(size=(n, width)) / np.sqrt(width)
    hubs = rng.random(n) < share
    queries = own + rng.normal(size=own.shape) / np.sqrt(width) + (shift * side if share else 0.0)
    return Pairs(unit(queries), unit(own + np.where(hubs[:, None], pull * side, 0.0)))


def chosen(settings: Mapping[str, Correction], banks: Pairs, val: Pairs) -> Correction:
    """The setting with the best recall at 1 on validation pairs, the first of equals."""
    found = {name: val.measured(fitted(made, banks, val))["r@1"] for name, made in settings.items()}
    return settings[max(found, key=lambda name: found[name])]


def fitted(made: Correction, banks: Pairs, pairs: Pairs) -> Corrected:
    """A gallery corrected by banks of training pairs."""
    return made.fit(pairs.gallery, query_bank=banks.queries, gallery_bank=banks.gallery)
