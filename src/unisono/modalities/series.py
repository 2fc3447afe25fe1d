"""Time series: univariate or multivariate, of any length, as learned patches next to fixed-kernel features.

Letters: B series, N samples in time, C channels, F features, T tokens, D width.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as fn

from unisono.core.draw import Draw
from unisono.core.errors import ShapeError, Unreadable
from unisono.core.media import media_bytes
from unisono.core.registry import Count, Index, NonNegative
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.kernels import NUM_KERNELS, dilations, fit_biases, positive_shares
from unisono.modalities.signal import Signal, split_rate
from unisono.modalities.wide import Wide, WideItems
from unisono.nn.position import Position
from unisono.nn.stem1d import ChannelNorm, Line
from unisono.ops.segment import segment_max, segment_mean

#: The largest series that is decoded, in numbers.
MAX_NUMBERS = 2**26
#: Rates from here on are sound unless told otherwise.
SERIES_RATE = 2000.0
#: How many series' features are remembered in a process (10 kB each by default); a memo of a pure function.
_REMEMBERED = 4096
_LATELY: dict[bytes, NDArray[np.float32]] = {}


def decode_series(values: Any, rate: float = float("nan")) -> Signal:
    """Turn nested values into (N, C) float32; NaN and null stay as gaps.

    Raises:
        Unreadable: no numbers, rows of different lengths, more than two dimensions, infinite, empty, too large.
    """
    try:
        array = np.asarray(values, np.float64) if not isinstance(values, list) else np.array(_filled(values), np.float64)
    except (TypeError, ValueError):
        raise Unreadable("the series is no list of numbers, or its rows differ in length") from None
    if array.ndim not in (1, 2):
        raise Unreadable(f"a series has the shape (time) or (time, channel), got {array.ndim} dimensions")
    if array.size == 0:
        raise Unreadable("the series has zero samples")
    if array.size > MAX_NUMBERS:
        raise Unreadable(f"the series has {array.size:,} numbers, more than the {MAX_NUMBERS:,} allowed")
    if np.isinf(array).any():
        raise Unreadable(f"the series holds an infinite number at sample {int(np.argwhere(np.isinf(array))[0][0])}")
    with np.errstate(over="ignore"):
        small = array.reshape(len(array), -1).astype(np.float32)
    if np.isinf(small).any():
        raise Unreadable("the series holds a number too large for 32 bits")
    return Signal(small, rate)


def _filled(values: list[Any]) -> list[Any]:
    """Nulls among numbers as NaN."""
    if values and any(isinstance(v, list) for v in values):
        return [[np.nan if x is None else x for x in v] if isinstance(v, list) else v for v in values]
    return [np.nan if v is None else v for v in values]


@modalities.register("series")
class SeriesModality(Modality):
    """Measurements over time: lists (time) or (time, channel), with or without a rate."""

    name: ClassVar[str] = "series"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim nested lists of constant inner width, lists of numbers of varying length, and values with a rate."""
        if sample.hint == self.name:
            return Guess(1.0, "the file's metadata says series")
        values = [_parsed(v) for v in list(sample.values)[:500] if v is not None]
        if not values:
            return None
        if all(isinstance(v, dict) and isinstance(v.get("values"), list) and "rate" in v for v in values):
            low = all((v["rate"] or 0) < SERIES_RATE for v in values)
            return Guess(0.95 if low else 0.7, "values with a rate (Hz)", doubt="" if low else "a rate like this could be sound")
        if not all(isinstance(v, list) and v for v in values):
            return None
        if all(_numbers(v) for v in values):
            return self._flat(sample, [len(v) for v in values])
        widths = {len(x) if isinstance(x, list) else -1 for v in values for x in v}
        if len(widths) != 1 or -1 in widths or not all(_numbers(x) for v in values for x in v[:5]):
            return None
        width = widths.pop()
        doubt = "could also be points (x, y, z)" if width == 3 else ""
        return Guess(0.7 if width != 3 else 0.55, f"lists of rows of {width} numbers: (time, channel)", doubt=doubt)

    def _flat(self, sample: ColumnSample, lengths: list[int]) -> Guess:
        if len(set(lengths)) > 1:
            return Guess(0.85, f"lists of {min(lengths)} to {max(lengths)} numbers", doubt="")
        return Guess(0.4, f"lists of {lengths[0]} numbers", doubt="constant length: could also be a vector")

    def decode(self, cell: Any, column: Column, context: Context) -> Signal:
        """One series (N, C) with its rate."""
        if isinstance(cell, bytes | bytearray) or (isinstance(cell, dict) and "values" not in cell) or _is_path(cell):
            return decode_series(_load_npy(media_bytes(cell, context.root)), split_rate([], column.options)[1])
        if isinstance(cell, str):
            try:
                cell = json.loads(cell)
            except ValueError as error:
                raise Unreadable(f"the text is no JSON list of numbers: {error}") from None
        values, rate = split_rate(cell, column.options)
        return decode_series(values, rate)

    def show(self, cell: Any) -> Any:
        """The values of the first channel for a small plot."""
        return f"{cell.shape[0]} samples in {cell.shape[1]} channels: " + ", ".join(f"{v:.3g}" for v in cell.values[:8, 0])


def _is_path(cell: Any) -> bool:
    return isinstance(cell, str) and cell.lower().endswith(".npy")


def _load_npy(data: bytes) -> NDArray[Any]:
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise Unreadable(f"no readable .npy array: {error}") from None


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _numbers(values: Any) -> bool:
    return all((isinstance(x, int | float) and not isinstance(x, bool)) or x is None for x in values)


@tokenisers.register("series_patches", source="arXiv:2012.08791 (fixed kernels), arXiv:2211.14730 (patches)")
class SeriesPatches(Tokeniser):
    """Patches under a convolution, fixed-kernel features, and each series' own level and spread.

    A series gives one token for each patch (patches grow so that there are at most ``max_tokens``), ``groups`` tokens
    of features, and one of statistics. Channels are scaled by training median and spread; patches see each series scaled by its own.

    Args:
        patch: samples in the shortest patch.
        max_tokens: most patches of one series.
        features: about how many fixed-kernel features. 0 leaves them out.
        groups: tokens that the features are mapped to.
        channels: of the convolution.
        max_length: longer series are averaged down to this many samples.
        augment: strength of the augmentation in training (noise, scale, masks on patches; dropped features); 0 for none.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"series"})

    def __init__(
        self,
        *,
        patch: Count = 8,
        max_tokens: Count = 32,
        features: Index = 2520,
        groups: Count = 1,
        channels: Count = 32,
        max_length: Count = 4096,
        augment: NonNegative = 1.0,
    ) -> None:
        self.patch, self.max_tokens, self.features, self.groups = patch, max_tokens, features, groups
        self.channels, self.max_length, self.augment = channels, max_length, augment

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Each channel's median and spread, the features' biases, and the mean and spread of every feature."""
        held = [_shorten(s.values, self.max_length) for cells in chunks for s in Items.of(column, cells).arrays]
        if not held:
            raise ShapeError(f"the series column {column.name!r} has no readable training cell")
        channels = int(np.bincount([s.shape[1] for s in held]).argmax())
        fitting = [s for s in held if s.shape[1] == channels]
        stacked = np.concatenate(fitting)
        with warnings.catch_warnings():  # a channel of gaps alone has no quartiles: zero and one stand in
            warnings.simplefilter("ignore", RuntimeWarning)
            low, median, high = np.nan_to_num(np.nanpercentile(stacked.astype(np.float64), [25, 50, 75], axis=0))
            fallback = np.nan_to_num(np.nanstd(stacked, axis=0))
        spread = np.where(high - low > 1e-6 * (1 + np.abs(median)), (high - low) / 1.349, np.where(fallback > 0, fallback, 1.0))
        found: dict[str, Any] = {"channels": channels, "median": median.tolist(), "spread": spread.tolist()}
        if self.features:
            clean = [_scale(s, median, spread) for s in fitting]
            steps = dilations(int(np.median([len(s) for s in clean])))
            each = max(round(self.features / (NUM_KERNELS * len(steps))), 1)
            biases = fit_biases(clean, steps, each, channels)
            shares = positive_shares(clean, steps, biases)
            found |= {"dilations": steps, "biases": _encode(biases), "mean": _encode(shares.mean(0))}
            found["std"] = _encode(shares.std(0) + np.float32(0.02))
        return found

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """Scaled series on one line, standardised features, and statistics."""
        (column,) = columns
        items = Items.of(column, cells[column.name])
        known = column.statistics
        held = [_fit_channels(_shorten(s.values, self.max_length), known["channels"], column.name) for s in items.arrays]
        own, stats = _own_scales(held, known)
        u = None if draw is None or self.augment == 0 else draw.at(items.sample).generators(f"series.{column.name}")
        if u is not None:
            own = [_disturb(s, g, self.augment) for s, g in zip(own, u, strict=True)]
        counts = np.array([len(s) for s in own], np.int64)
        size = np.maximum(self.patch, -(-counts // self.max_tokens))
        line = Line.of(counts, 1, 8)
        flat = np.concatenate(own) if own else np.zeros((0, known["channels"] * 2), np.float32)
        patches = -(-counts // size)
        owner = np.repeat(np.arange(len(own)), patches)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(patches) - patches, patches)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        segment = np.repeat(np.cumsum(patches) - patches, counts) + place // np.repeat(size, counts)
        rates = np.array([s.rate if s.rate > 0 else 1.0 for s in items.arrays], np.float64)
        time = (within * size[owner] / rates[owner]).astype(np.float32)
        inputs = {"line": torch.from_numpy(line.lay(flat)), "mask": torch.from_numpy(line.mask), "places": torch.from_numpy(line.places)}
        inputs |= {"segment": torch.from_numpy(segment), "phase": torch.from_numpy((within / patches[owner]).astype(np.float32))}
        inputs |= {"stats": torch.from_numpy(stats), "patches": torch.tensor(len(owner))}
        extra = np.arange(len(own))
        if self.features:
            shares = self._features(held, known)
            if u is not None:
                shares *= np.stack([g.random(shares.shape[1]) >= 0.2 * min(self.augment, 2.0) for g in u]) if u else 1.0
            inputs["features"] = torch.from_numpy(shares)
        whose = np.concatenate([owner, extra, np.repeat(extra, self.groups if self.features else 0)])
        rest = len(whose) - len(owner)
        places = np.concatenate([within, np.full(rest, -1)])
        times = np.concatenate([time, np.full(rest, np.nan, np.float32)])
        return Packed.of(inputs, items.sample[whose], column.index, item=items.item[whose], place=places[:, None], time=times)

    def _features(self, held: list[NDArray[np.float32]], known: Mapping[str, Any]) -> NDArray[np.float32]:
        """The standardised features (B, F); those of series seen lately are remembered, since every epoch asks for the same."""
        mean, std, steps = _decode(known["mean"]), _decode(known["std"]), list(known["dilations"])
        biases = _decode(known["biases"]).reshape(len(steps), NUM_KERNELS, -1)
        median, spread = np.array(known["median"]), np.array(known["spread"])
        kernel = hashlib.blake2b(repr((steps, known["median"], known["spread"], known["biases"])).encode(), digest_size=16).digest()
        found = np.zeros((len(held), len(mean)), np.float32)
        for b, series in enumerate(held):
            key = kernel + hashlib.blake2b(series.tobytes(), digest_size=16).digest()
            if key not in _LATELY:
                if len(_LATELY) >= _REMEMBERED:
                    _LATELY.clear()
                _LATELY[key] = positive_shares([_scale(series, median, spread)], steps, biases)[0]
            found[b] = _LATELY[key]
        return np.asarray(np.clip((found - mean) / std, -6, 6), np.float32)

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """Convolution, maps of features and of statistics."""
        (column,) = columns
        features = len(_decode(column.statistics["mean"])) if self.features else 0
        groups = self.groups if features else 0
        return SeriesModule(inputs=column.statistics["channels"], channels=self.channels, features=features, groups=groups, width=width)

    def wide(self, columns: Sequence[Column], outputs: int) -> nn.Module | None:
        """A linear map of the fixed-kernel features, as MiniRocket has it."""
        if not self.features:
            return None
        return WideItems("features", Wide(len(_decode(columns[0].statistics["mean"])), outputs), first="patches")


def _encode(array: NDArray[np.float32]) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")


def _decode(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def _shorten(values: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Average neighbouring samples until there are at most ``most``; gaps do not count."""
    if len(values) <= most:
        return values
    starts = np.unique((np.arange(most) * len(values)) // most)
    present = np.isfinite(values)
    total = np.add.reduceat(np.where(present, values, 0), starts, axis=0)
    count = np.add.reduceat(present.astype(np.float32), starts, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count, np.float32)


def _scale(values: NDArray[np.float32], median: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale by the column's median and spread; gaps become the median, that is zero."""
    return np.asarray(np.clip(np.nan_to_num((values - median) / spread), -1e4, 1e4), np.float32)


def _fit_channels(values: NDArray[np.float32], channels: int, name: str) -> NDArray[np.float32]:
    if values.shape[1] != channels:
        raise ShapeError(f"the series column {name!r} was trained on {channels} channels, got a cell with {values.shape[1]}")
    return values


def _own_scales(held: list[NDArray[np.float32]], known: Mapping[str, Any]) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Each series scaled by its own mean and spread with a presence map beside it (N, 2C), and its statistics (B, 3C + 1)."""
    median, spread = np.array(known["median"]), np.array(known["spread"])
    scaled, stats = [], np.zeros((len(held), 3 * known["channels"] + 1), np.float32)
    for b, s in enumerate(held):
        x = np.clip((s - median) / spread, -1e4, 1e4)
        here = np.isfinite(x)
        count = np.maximum(here.sum(0), 1)
        mean = np.where(here, x, 0).sum(0) / count
        std = np.sqrt((np.where(here, x - mean, 0) ** 2).sum(0) / count)
        own = np.where(here, (x - mean) / (std + 1e-3), 0)
        scaled.append(np.concatenate([own, here], 1).astype(np.float32))
        stats[b] = np.concatenate([np.clip(mean, -10, 10), np.log(std + 1e-3), 1 - here.mean(0), [np.log(len(s)) / 4]])
    return scaled, stats


def _disturb(values: NDArray[np.float32], g: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Noise, another scale and a masked stretch; the presence map follows the mask."""
    channels = values.shape[1] // 2
    x = values.copy()
    present = x[:, channels:]
    noise = g.standard_normal((len(x), channels), np.float32) * np.float32(0.05 * strength * g.random())
    x[:, :channels] = (x[:, :channels] * np.float32(np.exp(g.normal(0, 0.1 * strength))) + noise) * present
    hidden = int(g.random() * 0.15 * min(strength, 3.0) * len(x))
    start = int(g.random() * (len(x) - hidden + 1))
    x[start : start + hidden] = 0
    return x


class SeriesModule(nn.Module):
    """The weights of ``series_patches``."""

    def __init__(self, *, inputs: int, channels: int, features: int, groups: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(2 * inputs, channels, 7, padding=3)
        self.second = nn.Conv1d(channels, 2 * channels, 5, padding=2)
        self.norms = nn.ModuleList([ChannelNorm(channels=channels), ChannelNorm(channels=2 * channels)])
        self.patch = nn.Linear(4 * channels, width)
        self.place = Position(1, width, shortest=0.125, longest=4.0, frequencies=16, gain=0.3)
        self.stats = nn.Linear(3 * inputs + 1, width)
        self.groups = groups
        self.features = nn.Linear(features, groups * width) if features else None
        if self.features is not None:
            nn.init.normal_(self.features.weight, std=0.3 / features**0.5)

    def forward(self, packed: Packed) -> Tensor:
        """(T, width): patches, statistics, features."""
        x = packed.inputs
        keep = x["mask"].to(x["line"].dtype)[None, None]
        h = fn.gelu(self.norms[0](self.first(x["line"].T[None]))) * keep
        h = fn.gelu(self.norms[1](self.second(h)))[0].T[x["places"]]
        segment, count = x["segment"], int(x["patches"])
        pooled = torch.cat([segment_mean(h, segment, count), segment_max(h, segment, count)], 1)
        parts = [self.patch(pooled) + self.place(x["phase"]), self.stats(x["stats"])]
        if self.features is not None:
            parts.append(self.features(x["features"]).reshape(-1, self.stats.out_features))
        return torch.cat(parts)
