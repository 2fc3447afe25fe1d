"""Scope: who may mix with whom, as a pure function of token metadata.

A scope is one word or several joined by ``&``. The words here are partitions: each gives every token a label, tokens of equal
labels mix, and ``a & b`` lets mix what both let mix. Tokens without the named axis mix within their own (sample, column, item).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unisono.core.plan import Blocks, blocks_of, combine
from unisono.core.registry import Registry
from unisono.core.tokens import Meta
from unisono.core.words import parse_chain

# T tokens


class Scope(ABC):
    """One word of the scope language."""

    @abstractmethod
    def labels(self, meta: Meta) -> Sequence[NDArray[np.int64]]:
        """What has to be equal for two tokens to mix: one or more label vectors (T,)."""

    def wild(self, meta: Meta) -> NDArray[np.bool_] | None:
        """Tokens that join every block of their sample, or None."""
        return None


scopes: Registry[Scope] = Registry("scope", Scope, package="unisono.nn")


@scopes.register("sample", source="arXiv:2206.06488")
class SampleScope(Scope):
    """All tokens of a sample mix: early fusion."""

    def labels(self, meta: Meta) -> Sequence[NDArray[np.int64]]:
        """The sample."""
        return [meta.sample.numpy()]


@scopes.register("source", source="arXiv:2206.06488")
class SourceScope(Scope):
    """Tokens of one source of a sample mix: sources stay apart, as in late fusion."""

    def labels(self, meta: Meta) -> Sequence[NDArray[np.int64]]:
        """Sample and source; inserted tokens, which have no source, by their insertion."""
        return [meta.sample.numpy(), _or_own_cell(meta.source.numpy(), meta)]


@scopes.register("modality", source="arXiv:2206.06488")
class ModalityScope(Scope):
    """Tokens of one modality of a sample mix, whichever column they come from."""

    def labels(self, meta: Meta) -> Sequence[NDArray[np.int64]]:
        """Sample and modality."""
        return [meta.sample.numpy(), meta.modality.numpy()]


@scopes.register("bottleneck", source="arXiv:2107.00135")
class BottleneckScope(Scope):
    """Inserted tokens join every block of their sample, each block's outputs for them averaged: ``source & bottleneck``."""

    def labels(self, meta: Meta) -> Sequence[NDArray[np.int64]]:
        """The sample."""
        return [meta.sample.numpy()]

    def wild(self, meta: Meta) -> NDArray[np.bool_] | None:
        """Inserted tokens."""
        inserted: NDArray[np.bool_] = meta.column.numpy() < 0
        return inserted


def _or_own_cell(axis: NDArray[np.int64], meta: Meta) -> NDArray[np.int64]:
    """The axis where a token has it; a label of its own (column, item) where it has not (-1)."""
    absent = axis < 0
    if not absent.any():
        return axis
    cell = combine([meta.column.numpy(), meta.item.numpy()])
    return np.where(absent, axis.max(initial=0) + 1 + cell, axis)


def relate(text: str, meta: Meta, where: str = "scope") -> Blocks:
    """Work out a scope's blocks for a batch.

    Args:
        text: words joined by ``&``.
        meta: the tokens.
        where: the place to name in an error.

    Raises:
        ConfigError: a word is unknown or does not fit.
    """
    words = [scopes.build(word, where=where) for word in parse_chain(text, where)]
    labels = combine([label for word in words for label in word.labels(meta)])
    joined = [w for w in (word.wild(meta) for word in words) if w is not None]
    wild = np.logical_or.reduce(joined) if joined else None
    return blocks_of(labels, wild, meta.sample.numpy())
