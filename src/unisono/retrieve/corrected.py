"""One side of an index as a correction leaves it, with banks taken from the index's own rows.

Letters: N rows, E dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.retrieve.hubness import Corrected, corrections
from unisono.retrieve.scan import Gallery

#: The most vectors of a bank.
BANK = 2000

Side = tuple[Any, NDArray[np.bool_]]


@dataclass(frozen=True)
class CorrectedSide:
    """What is searched in place of a side.

    Attributes:
        gallery: (N, E) or (N, E + 1), in memory.
        by: how queries become queries of it.
    """

    gallery: Gallery
    by: Corrected

    @classmethod
    def of(cls, sentence: str, side: Side, others: Sequence[Side]) -> CorrectedSide:
        """Correct a side.

        Args:
            sentence: the correction, such as ``invgc(rate=0.3)``.
            side: its vectors (N, E), and which rows have one.
            others: the sides that queries come from; the bank of queries is taken from them, or from the side itself where there are none.

        Raises:
            ConfigError: there is no such correction.
        """
        vectors, present = side
        rows = np.flatnonzero(present)
        asked = [spread(np.flatnonzero(there), BANK // max(1, len(others))) for _, there in others]
        queries = [np.asarray(other[0][chosen]) for other, chosen in zip(others, asked, strict=True) if len(chosen)]
        items = np.asarray(vectors[spread(rows, BANK)])
        bank = np.concatenate(queries) if queries else items
        by = corrections.build(sentence, where="correction").fit(np.asarray(vectors[rows]), query_bank=bank, gallery_bank=items)
        whole = np.zeros((len(vectors), by.gallery.shape[1]), np.float32)
        whole[rows] = by.gallery
        return cls(Gallery.of(whole), by)


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most ``count`` of the rows, evenly spread."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
