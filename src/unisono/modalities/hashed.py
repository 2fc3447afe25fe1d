"""One table of vectors that all columns of categories share by hashing.

Letters: B rows, C columns, K lookups, N rows of the table, D width, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import ConfigError
from unisono.core.registry import Count
from unisono.core.schema import Column
from unisono.modalities.base import Cells, Packed, Tokeniser, tokenisers
from unisono.modalities.scalars import MAX_TOKENS, pack_scalars, stack, token_slots


def table_row(word: str, column: str, lookup: int, rows: int) -> int:
    """``hash(word; column, lookup) mod N``, the same on every machine."""
    text = "\x00".join((str(lookup), column, word)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") % rows


@tokenisers.register("unified", source="arXiv:2305.12102")
class Unified(Tokeniser):
    """Categories by rows of one table that all columns share: ``e = W_c concat_k T[hash(v; column, k) mod N]``.

    No vocabulary is kept, so a value that was never seen needs nothing new; it has the vectors that it is hashed to. The table's size
    depends on nothing in the data; each column has a projection of its own, which can tell its values from those of other columns that
    fall on the same row.

    Args:
        rows: N.
        lookups: K, each of D / K numbers.
        projected: whether there is a projection for each column; without one the weights do not grow with the columns either.
        max_tokens: tokens a row at most; more columns than that share tokens, which are the sums over their present cells.
    """

    reads = frozenset({"category", "boolean"})
    joint = True

    def __init__(self, *, rows: Count = 4096, lookups: Count = 2, projected: bool = True, max_tokens: Count = MAX_TOKENS) -> None:
        self.rows, self.lookups, self.projected, self.max_tokens = rows, lookups, projected, max_tokens

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Nothing is fitted."""
        return {}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One token a present cell, or, beyond ``max_tokens`` columns, one for each group of columns with a present cell."""
        names = stack(columns, cells, None, object)
        present = np.not_equal(names, np.array(None, object)).astype(np.bool_)
        place = np.zeros((*names.shape, self.lookups), np.int64)
        for c, column in enumerate(columns):
            place[present[:, c], c] = self._places(column, names[present[:, c], c])
        return pack_scalars(columns, present, self.max_tokens, {"place": torch.from_numpy(place)})

    def _places(self, column: Column, words: NDArray[np.object_]) -> NDArray[np.int64]:
        found = {w: [table_row(w, column.name, k, self.rows) for k in range(self.lookups)] for w in set(words)}
        return np.array([found[w] for w in words], np.int64).reshape(len(words), self.lookups)

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The table and the columns' projections.

        Raises:
            ConfigError: the width is no multiple of the lookups.
        """
        if width % self.lookups:
            raise ConfigError(f"unified: the width {width} is no multiple of {self.lookups} lookups")
        return UnifiedTable(columns, width, self)


class UnifiedTable(nn.Module):
    """``token = sum over the token's present columns of W_c concat_k T[place_k]``."""

    slots: Tensor

    def __init__(self, columns: Sequence[Column], width: int, settings: Unified) -> None:
        super().__init__()
        slots = token_slots(columns, settings.max_tokens)
        self.register_buffer("slots", torch.from_numpy(slots), persistent=False)
        self.count = int(slots.max()) + 1
        shared = int(np.bincount(slots).max())
        self.table = nn.Parameter(torch.randn(settings.rows, width // settings.lookups) * (shared * 3) ** -0.5)
        self.maps = nn.Parameter(torch.eye(width).repeat(len(columns), 1, 1)) if settings.projected else None

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        found = self.table[packed.inputs["place"]].flatten(2)
        if self.maps is not None:
            found = torch.einsum("bcd,cde->bce", found, self.maps)
        found = found * packed.inputs["present"].unsqueeze(-1)
        tokens = found.new_zeros(len(found), self.count, found.shape[2]).index_add(1, self.slots, found)
        return tokens[packed.inputs["row"], packed.inputs["slot"]]
