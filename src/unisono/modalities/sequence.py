"""Biological sequences: DNA, RNA and protein as residues under a convolution, next to counted k-mers.

Letters: C sequences, N residues of all sequences together, A symbols of an alphabet, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.registry import Count, Probability
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.nn.position import Position
from unisono.nn.stem1d import ChannelNorm, Line
from unisono.ops.segment import segment_max, segment_mean

#: Residues of each alphabet; the codes of IUPAC that name several (N, R, X, B ...) read as unknown.
ALPHABETS = {"dna": "ACGT", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
_AMBIGUOUS = {"dna": "NRYSWKMBDHV", "rna": "NRYSWKMBDHV", "protein": "XBZJUO*"}
#: The longest sequence that is decoded, in residues.
MAX_RESIDUES = 100_000_000
_SHORTEST = 12


def alphabet_of(values: Sequence[str]) -> str | None:
    """The smallest alphabet that all residues of these sequences are in, or None."""
    seen = set("".join(values).upper()) - set("-. \n\r\t")
    for name, residues in ALPHABETS.items():
        plain = sum(v.upper().count(r) for v in values[:50] for r in residues)
        total = sum(len(v) for v in values[:50])
        if seen <= set(residues + _AMBIGUOUS[name]) and (name == "protein" or plain >= 0.8 * total):
            return name
    return None


@modalities.register("sequence")
class SequenceModality(Modality):
    """DNA, RNA or protein as text."""

    name: ClassVar[str] = "sequence"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim strings made of one alphabet's letters alone, long enough to be no word."""
        values = [v for v in sample.values if isinstance(v, str) and v.strip()][:1000]
        if not values or any(not isinstance(v, str) for v in sample.values if v is not None):
            return None
        if sample.hint != self.name and any(" " in v.strip() for v in values[:200]):
            return None
        alphabet = alphabet_of(values)
        if alphabet is None:
            return Guess(1.0, "the file's metadata says sequence", options={"alphabet": "protein"}) if sample.hint == self.name else None
        length, kinds = float(np.median([len(v) for v in values])), len(set(values))
        if sample.hint == self.name:
            return Guess(1.0, f"the file's metadata says sequence ({alphabet})", options={"alphabet": alphabet})
        upper = sum(v.isupper() for v in values) / len(values)
        residues = len(set("".join(values).upper()))
        wordy = alphabet == "protein" and (upper < 0.9 or length < 20 or residues < 12)
        if length < _SHORTEST or kinds < min(5, len(values)) or wordy:
            return None
        return Guess(0.92, f"only letters of {alphabet}, {length:.0f} residues in the middle", options={"alphabet": alphabet})

    def decode(self, cell: Any, column: Column, context: Context) -> NDArray[np.int8]:
        """One sequence (N,): the residue's place in the alphabet, A for unknown; gaps and white space are taken out."""
        if not isinstance(cell, str):
            raise Unreadable(f"expected a sequence as text, got {type(cell).__name__}")
        name = str(column.options.get("alphabet", "dna"))
        if name not in ALPHABETS:
            raise Unreadable(f"no alphabet is called {name!r}; known: {', '.join(ALPHABETS)}")
        if len(cell) > MAX_RESIDUES:
            raise Unreadable(f"the sequence has {len(cell):,} residues, more than the {MAX_RESIDUES:,} allowed")
        try:
            raw = np.frombuffer(cell.encode("ascii"), np.uint8)
        except UnicodeEncodeError as error:
            raise Unreadable(f"{cell[error.start]!r} at {error.start} is no residue of {name}") from None
        codes = _table(name)[raw]
        if (codes == _NONE).any():
            at = int(np.argmax(codes == _NONE))
            raise Unreadable(f"{cell[at]!r} at {at} is no residue of {name}; other alphabets are set with the column option alphabet")
        return np.asarray(codes[codes != _GAP], np.int8)

    def show(self, cell: Any) -> Any:
        """How long it is."""
        return f"{len(cell)} residues"


_NONE, _GAP = -1, -2


def _table(name: str) -> NDArray[np.int8]:
    """(256,) byte -> place in the alphabet, A for ambiguous codes, or a mark for gaps and strangers."""
    table = np.full(256, _NONE, np.int8)
    for letter in "-. \n\r\t":
        table[ord(letter)] = _GAP
    for letter in _AMBIGUOUS[name]:
        table[[ord(letter), ord(letter.lower())]] = len(ALPHABETS[name])
    for k, letter in enumerate(ALPHABETS[name]):
        table[[ord(letter), ord(letter.lower())]] = k
    return table


@tokenisers.register("residues", source="arXiv:2306.15006 (several residues a token), arXiv:1503.05140 (k-mer composition)")
class Residues(Tokeniser):
    """Residues under a convolution, pooled to tokens, and one token for the composition of k-mers.

    Args:
        residues: residues in the shortest token; tokens of longer sequences grow so that there are at most ``max_tokens``.
        max_tokens: most tokens of one sequence, the composition aside.
        max_length: residues read of one sequence, from its start; the composition reads all.
        channels: of the convolution.
        drop: share of residues that read as unknown in training.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"sequence"})

    def __init__(
        self, *, residues: Count = 4, max_tokens: Count = 128, max_length: Count = 8192, channels: Count = 48, drop: Probability = 0.1
    ) -> None:
        self.residues, self.max_tokens, self.max_length = residues, max_tokens, max_length
        self.channels, self.drop = channels, drop

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Alphabet, k, and the mean and spread of each k-mer's share."""
        name = str(column.options.get("alphabet", "dna"))
        size, k = len(ALPHABETS[name]), 2 if name == "protein" else 4
        total, square, count = np.zeros(size**k), np.zeros(size**k), 0
        for cells in chunks:
            arrays = Items.of(column, cells).arrays
            shares = kmer_shares(arrays, size, k).astype(np.float64)
            total, square, count = total + shares.sum(0), square + (shares**2).sum(0), count + len(arrays)
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(square / max(count, 1) - mean**2, 0)) + 0.1 / size**k
        return {"symbols": size, "k": k, "mean": [float(f"{v:.6g}") for v in mean], "std": [float(f"{v:.6g}") for v in std]}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """Residues on one line, the token each falls into, and standardised k-mer shares."""
        (column,) = columns
        items, known = Items.of(column, cells[column.name]), column.statistics
        unknown = int(known["symbols"])
        held = [a[: self.max_length] for a in items.arrays]
        if draw is not None and self.drop:
            lots = draw.at(items.sample).generators(f"sequence.{column.name}")
            held = [np.where(g.random(len(a)) < self.drop, unknown, a) for a, g in zip(held, lots, strict=True)]
        counts = np.array([len(a) for a in held], np.int64)
        size = np.maximum(self.residues, -(-counts // self.max_tokens))
        tokens = -(-counts // size)
        owner = np.repeat(np.arange(len(held)), tokens)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(tokens) - tokens, tokens)
        flat = np.concatenate(held).astype(np.int64) if held else np.zeros(0, np.int64)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        segment = np.repeat(np.cumsum(tokens) - tokens, counts) + place // np.repeat(size, counts)
        line = Line.of(counts, 1, 8)
        laid = np.full(line.length, unknown + 1, np.int64)
        laid[line.places] = flat
        shares = (kmer_shares(items.arrays, unknown, known["k"]) - np.array(known["mean"])) / np.array(known["std"])
        inputs = {"line": torch.from_numpy(laid), "places": torch.from_numpy(line.places), "segment": torch.from_numpy(segment)}
        inputs |= {"start": torch.from_numpy((within * size[owner]).astype(np.float32)), "tokens": torch.tensor(len(owner))}
        inputs["shares"] = torch.from_numpy(np.clip(shares, -8, 8).astype(np.float32))
        whose = np.concatenate([owner, np.arange(len(held))])
        places = np.concatenate([within, np.full(len(held), -1)])
        return Packed.of(inputs, items.sample[whose], column.index, item=items.item[whose], place=places[:, None])

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """Residue table, convolutions, and the map of k-mers."""
        (column,) = columns
        kmers = len(column.statistics["mean"])
        return SequenceModule(symbols=column.statistics["symbols"], channels=self.channels, kmers=kmers, width=width)


def kmer_shares(arrays: Sequence[NDArray[np.integer[Any]]], symbols: int, k: int) -> NDArray[np.float32]:
    """(C, symbols ** k): how often each run of k known residues occurs, as a share of the sequence's runs; zeros for none."""
    found = np.zeros((len(arrays), symbols**k), np.float32)
    for c, array in enumerate(arrays):
        if len(array) < k:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(array.astype(np.int64), k)
        windows = windows[(windows < symbols).all(1)]
        if len(windows):
            found[c] = np.bincount(windows @ (symbols ** np.arange(k)), minlength=symbols**k) / len(windows)
    return found


class SequenceModule(nn.Module):
    """The weights of ``residues``."""

    def __init__(self, *, symbols: int, channels: int, kmers: int, width: int) -> None:
        super().__init__()
        self.residues = nn.Embedding(symbols + 2, channels, padding_idx=symbols + 1)
        self.convs = nn.ModuleList([nn.Conv1d(channels, channels, 7, padding=3), nn.Conv1d(channels, 2 * channels, 7, padding=3)])
        self.norms = nn.ModuleList([ChannelNorm(channels=channels), ChannelNorm(channels=2 * channels)])
        self.token = nn.Linear(4 * channels, width)
        self.place = Position(1, width, shortest=8.0, longest=16384.0, frequencies=16, gain=0.3)
        self.kmers = nn.Linear(kmers, width)
        nn.init.normal_(self.kmers.weight, std=0.3 / kmers**0.5)

    def forward(self, packed: Packed) -> Tensor:
        """(T, width): tokens along the sequences, then compositions."""
        x = packed.inputs
        h = self.residues(x["line"]).T[None]
        keep = h.new_zeros(1, 1, h.shape[2]).index_fill(2, x["places"], 1.0)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = fn.gelu(norm(conv(h))) * keep
        h = h[0].T[x["places"]]
        segment, count = x["segment"], int(x["tokens"])
        pooled = torch.cat([segment_mean(h, segment, count), segment_max(h, segment, count)], 1)
        return torch.cat([self.token(pooled) + self.place(x["start"]), self.kmers(x["shares"])])
