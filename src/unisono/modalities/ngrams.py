"""Hashed n-grams of many texts at once: words, pairs of words, and runs of characters within words, without a loop over tokens.

Letters: C texts, N n-grams of all texts together, V kept n-grams.
"""

from __future__ import annotations

import base64
import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unisono.core.draw import mix64

Hashes = NDArray[np.uint32]
_POWER = np.uint64(0x9E3779B97F4A7C15)
_SPACE = 32


@functools.lru_cache(maxsize=1 << 16)
def _is_word(code: int) -> bool:
    """Letters, digits, marks and symbols (emoji among them) make words; punctuation and space part them."""
    return unicodedata.category(chr(code))[0] in "LNMS"


@dataclass(frozen=True)
class Grams:
    """N-grams of C texts, with repeats.

    Attributes:
        owner: (N,) text of each.
        hashes: (N,) 32-bit hash of each.
    """

    owner: NDArray[np.int64]
    hashes: Hashes


def _line(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Code points of all texts in a row, each text between single spaces, and the text each belongs to."""
    joined = "".join(f" {t} " for t in texts)
    codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32).astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), np.array([len(t) + 2 for t in texts], np.int64))
    known, back = np.unique(codes, return_inverse=True)
    word = np.array([_is_word(int(c)) for c in known], np.bool_)[back] if len(known) else np.zeros(0, np.bool_)
    codes = np.where(word, codes, _SPACE)
    first = np.ones(len(codes), np.bool_)
    first[1:] = (codes[1:] != _SPACE) | (codes[:-1] != _SPACE) | (owner[1:] != owner[:-1])
    return codes[first], owner[first]


def _powers(n: int) -> NDArray[np.uint64]:
    powers = np.full(n, _POWER, np.uint64)
    if n:
        powers[0] = 1
    return np.multiply.accumulate(powers)


def word_grams(texts: Sequence[str]) -> Grams:
    """Words, and pairs of neighbouring words."""
    codes, owner = _line(texts)
    inside = codes != _SPACE
    starts = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]])) if len(codes) else np.zeros(0, np.int64)
    if not len(starts):
        return Grams(np.zeros(0, np.int64), np.zeros(0, np.uint32))
    ends = np.flatnonzero(inside & ~np.concatenate([inside[1:], [False]])) + 1
    length = ends - starts
    place = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    with np.errstate(over="ignore"):
        weighted = mix64(codes[inside].astype(np.uint64)) * _powers(int(length.max()))[place]
        words = mix64(np.add.reduceat(weighted, np.cumsum(length) - length))
        pairs = mix64(words[:-1] * _POWER + words[1:])
    whose = owner[starts]
    same = whose[1:] == whose[:-1]
    return Grams(np.concatenate([whose, whose[1:][same]]), np.concatenate([words, pairs[same]]).astype(np.uint32))


def character_grams(texts: Sequence[str], shortest: int = 3, longest: int = 5) -> Grams:
    """Runs of characters that do not cross a word's edge; the edge itself counts as a character."""
    codes, owner = _line(texts)
    mixed, space = mix64(codes.astype(np.uint64)), codes == _SPACE
    owners, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
    for n in range(shortest, longest + 1):
        count = len(codes) - n + 1
        if count <= 0:
            break
        crossing = np.zeros(count, np.bool_)
        value = np.zeros(count, np.uint64)
        with np.errstate(over="ignore"):
            for k, power in enumerate(_powers(n)):
                value += mixed[k : k + count] * power
                if 0 < k < n - 1:
                    crossing |= space[k : k + count]
            value = mix64(value ^ np.uint64(n))
        owners.append(owner[:count][~crossing])
        hashes.append(value[~crossing].astype(np.uint32))
    return Grams(np.concatenate(owners), np.concatenate(hashes))


@dataclass(frozen=True)
class Vocabulary:
    """The n-grams that are kept, and how rare each is.

    Attributes:
        hashes: (V,) sorted.
        idf: (V,) log((1 + texts) / (1 + texts with it)) + 1.
    """

    hashes: Hashes
    idf: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def fit(cls, counts: dict[int, int], texts: int, *, least: int, most: int) -> Vocabulary:
        """Keep the n-grams found in at least ``least`` texts, the ``most`` commonest of them."""
        hashes = np.fromiter(counts.keys(), np.uint32, len(counts))
        found = np.fromiter(counts.values(), np.int64, len(counts))
        hashes, found = hashes[found >= least], found[found >= least]
        chosen = np.lexsort((hashes, -found))[:most]
        chosen = chosen[np.argsort(hashes[chosen])]
        return cls(hashes[chosen], np.asarray(np.log((1 + texts) / (1 + found[chosen])) + 1, np.float32))

    def to_json(self) -> dict[str, str]:
        """Base64 of the little-endian arrays."""
        return {"hashes": _encode(self.hashes.astype("<u4")), "idf": _encode(self.idf.astype("<f4"))}

    @classmethod
    def from_json(cls, hashes: str, idf: str) -> Vocabulary:
        """The inverse of ``to_json``."""
        return _vocabulary(hashes, idf)

    def bags(self, grams: Grams, texts: int, dropped: NDArray[np.bool_] | None = None) -> Bags:
        """TF-IDF weights: (1 + log count) idf, scaled to length one a text (Salton and Buckley 1988).

        Args:
            grams: n-grams of C texts.
            texts: C.
            dropped: (N,) n-grams to leave out, or None; those equal in text and hash should share their fate.
        """
        place = np.searchsorted(self.hashes, grams.hashes)
        known = place < len(self)
        known[known] = self.hashes[place[known]] == grams.hashes[known]
        if dropped is not None:
            known &= ~dropped
        pair, count = np.unique(grams.owner[known] * max(len(self), 1) + place[known], return_counts=True)
        owner, index = np.divmod(pair, max(len(self), 1))
        weight = (1 + np.log(count)) * self.idf[index] if len(pair) else np.zeros(0)
        length = np.sqrt(np.bincount(owner, weight**2, minlength=texts))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=texts))[:-1]]).astype(np.int64)[:texts]
        return Bags(index, offsets, np.asarray(weight / length[owner], np.float32))


@dataclass(frozen=True)
class Bags:
    """The weighted n-grams of each text, packed.

    Attributes:
        index: (N,) places in the vocabulary.
        offsets: (C,) where each text begins.
        weight: (N,) TF-IDF weights.
    """

    index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weight: NDArray[np.float32]


def count_texts(grams: Grams, counts: dict[int, int]) -> None:
    """Add to ``counts`` in how many texts each n-gram occurs."""
    pair = np.unique((grams.owner.astype(np.uint64) << np.uint64(32)) | grams.hashes)
    found, number = np.unique(pair.astype(np.uint32), return_counts=True)
    for h, n in zip(found.tolist(), number.tolist(), strict=True):
        counts[h] = counts.get(h, 0) + n


def _encode(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


@functools.lru_cache(maxsize=64)
def _vocabulary(hashes: str, idf: str) -> Vocabulary:
    return Vocabulary(np.frombuffer(base64.b64decode(hashes), "<u4"), np.frombuffer(base64.b64decode(idf), "<f4"))
