"""Token metadata for tests: ragged batches with any mixture of sources."""

from __future__ import annotations

import numpy as np
import torch

from unisono.contracts.tokens import FRAME, NAMES, block, cells, net, rich_meta
from unisono.core.tokens import Meta
from unisono.nn.insert import Bottleneck
from unisono.nn.part import Known
from unisono.nn.step import Walk

__all__ = ["FRAME", "NAMES", "block", "cells", "meta_of", "net", "rich_meta", "with_inserted"]


def meta_of(counts: list[list[int]], *, shuffle: int | None = None) -> Meta:
    """Tokens of a batch.

    Args:
        counts: ``counts[b][s]`` tokens of sample b in source s; each source is a column and a modality of its own.
        shuffle: seed of a random physical order; None keeps samples and sources in order.
    """
    sources = len(counts[0])
    sample = np.repeat(np.arange(len(counts)), [sum(c) for c in counts])
    source = np.concatenate([np.repeat(np.arange(sources), c) for c in counts]) if len(sample) else np.zeros(0, np.int64)
    if shuffle is not None:
        order = np.random.default_rng(shuffle).permutation(len(sample))
        sample, source = sample[order], source[order]
    s, k = torch.from_numpy(sample.astype(np.int64)), torch.from_numpy(source.astype(np.int64))
    t = len(s)
    zero = torch.zeros(t, dtype=torch.int64)
    place, coords, time = torch.full((t, 3), -1), torch.full((t, 3), torch.nan), torch.full((t,), torch.nan)
    return Meta(s, k, zero, k, k, zero, place, coords, time, len(counts), sources)


def with_inserted(meta: Meta, num: int) -> Meta:
    """The same with ``num`` learned tokens for each sample that has any token."""
    walk = Walk(Known(meta))
    Bottleneck(width=1, num=num).plan(walk)
    return walk.meta
