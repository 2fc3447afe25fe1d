"""What pictures, videos and cubes share: arrays from files and lists, channel counts, sizes, fitted statistics, augmentation.

Decoded arrays are (height, width, channel), ``uint8`` where the values are bytes and ``float32`` otherwise. Integers of 16 bits are put
on the scale of bytes (65,535 becomes 255). Where there is transparency, colours lie on white and the opacity is the last channel.

Letters: N pictures, H height, W width, C channels.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.media import media_bytes
from unisono.modalities.base import ColumnSample

Pixels = NDArray[Any]
#: The largest number of pixels (or array values) that is decoded, unless the column's option ``max_pixels`` says otherwise.
MAX_PIXELS = 64 * 1024 * 1024
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_PROBE = 32
_SAMPLED = 256


def is_npy(data: bytes) -> bool:
    """Whether these bytes begin like a ``.npy`` file."""
    return data[:6] == b"\x93NUMPY"


def npy_shape(head: bytes) -> tuple[int, ...]:
    """The shape that the header of a ``.npy`` file announces; empty when there is none."""
    found = re.search(rb"'shape': \(([0-9, ]*)\)", head[:512]) if is_npy(head) else None
    return tuple(int(n) for n in found.group(1).split(b",") if n.strip()) if found else ()


def read_npy(data: bytes, limit: int = MAX_PIXELS) -> Pixels:
    """The array in a ``.npy`` file; the header is checked before anything is allocated, and objects are refused.

    Raises:
        Unreadable: no ``.npy`` file, of objects or texts, too large, or truncated.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except ValueError as error:
        raise Unreadable(f"the .npy file is damaged: {error}") from None
    if dtype.kind not in "buif":
        raise Unreadable(f"the .npy file holds {dtype} instead of numbers")
    count = math.prod(shape)
    if count > limit:
        raise Unreadable(f"the array of shape {shape} has {count:,} values, more than the {limit:,} allowed")
    body = data[stream.tell() :]
    if len(body) < count * dtype.itemsize:
        raise Unreadable(f"the .npy file is truncated: {len(body):,} of {count * dtype.itemsize:,} bytes are there")
    return np.frombuffer(body, dtype, count).reshape(shape, order="F" if fortran else "C")


def read_nested(cell: Any, limit: int = MAX_PIXELS) -> Pixels:
    """A nested list of numbers, or an array, as an array.

    Raises:
        Unreadable: ragged, too large, or not of numbers.
    """
    try:
        array = np.asarray(cell)
    except ValueError:
        raise Unreadable("the nested list is ragged: its rows differ in length") from None
    if array.dtype == object:
        raise Unreadable("the nested list holds something that is no number (null or text)")
    if array.dtype.kind not in "buif":
        raise Unreadable(f"expected numbers, got {array.dtype}")
    if array.size > limit:
        raise Unreadable(f"the array of shape {array.shape} has {array.size:,} values, more than the {limit:,} allowed")
    return array


def tidy_values(array: Pixels) -> Pixels:
    """Bytes stay bytes, whole numbers between 0 and 255 become bytes, truth values 0 and 255; everything else float32.

    Raises:
        Unreadable: no values, or infinity among them.
    """
    if array.size == 0:
        raise Unreadable(f"an array of shape {array.shape} holds nothing")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return array.astype(np.float32) * np.float32(255.0 / 65535.0)
    if array.dtype.kind in "iu":
        return array.astype(np.uint8) if array.min() >= 0 and array.max() <= 255 else array.astype(np.float32)
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    if np.isinf(floats).any():
        raise Unreadable("infinity among the values")
    return floats


def fetch(cell: Any, root: Path | None, limit: int = MAX_PIXELS) -> bytes | Pixels:
    """The content of a media cell: the array of a nested list or ``.npy`` file, else the bytes.

    Raises:
        Unreadable: nothing there, or no media cell.
    """
    if isinstance(cell, Mapping) and "values" in cell:
        cell = cell["values"]
    if isinstance(cell, list | tuple | np.ndarray):
        return read_nested(cell, limit)
    data = media_bytes(cell, root)
    if not data:
        raise Unreadable("the file is empty (zero bytes)")
    return read_npy(data, limit) if is_npy(data) else data


def probe_bytes(sample: ColumnSample, suffixes: frozenset[str]) -> tuple[list[bytes], str]:
    """The beginnings of a column's first media cells, and where they are: ``bytes``, ``struct``, ``path``, or nothing.

    A text column counts when nearly all its values end in one of the suffixes.
    """
    values = list(sample.values[:_PROBE])
    if sample_is_list(sample):
        values = [v for cell in values for v in cell][:_PROBE]
    if not values:
        return [], ""
    if all(isinstance(v, str) for v in values):
        named = [v for v in values if Path(v.strip()).suffix.lower() in suffixes and "://" not in v]
        return (_heads(named, sample.root), "path") if len(named) >= 0.9 * len(values) else ([], "")
    if all(isinstance(v, bytes) for v in values):
        return [v[:4096] for v in values], "bytes"
    if all(isinstance(v, dict) and set(v) <= {"bytes", "path"} for v in values):
        inside = [v.get("bytes") for v in values if v.get("bytes") is not None]
        paths = [v["path"] for v in values if v.get("bytes") is None and v.get("path")]
        return [b[:4096] for b in inside] + _heads(paths, sample.root), "struct"
    return [], ""


def sample_is_list(sample: ColumnSample) -> bool:
    """Whether cells are lists of media rather than single ones."""
    kind = sample.type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind)) and not _is_number(_leaf(kind.value_type))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _leaf(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _heads(paths: Sequence[str], root: Path | None) -> list[bytes]:
    found = []
    for text in paths:
        path = (root / text) if root is not None else None
        if path is not None and path.is_file():
            with path.open("rb") as file:
                found.append(file.read(4096))
    return found


def nested_shapes(sample: ColumnSample) -> tuple[list[tuple[int, ...]], list[Pixels]]:
    """The shapes and arrays of the first cells of a column of nested lists of numbers; empty when it is none or ragged."""
    kind = sample.type
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not nested or not _is_number(_leaf(kind)):
        return [], []
    arrays = []
    for value in sample.values[:_PROBE]:
        try:
            arrays.append(read_nested(value))
        except Unreadable:
            return [], []
    return [a.shape for a in arrays], arrays


def to_channels(array: Pixels, channels: int, fill: Sequence[float] | None = None) -> Pixels:
    """Bring (..., C) to the column's number of channels.

    Grey is repeated; colour becomes grey by its luminance (ITU-R BT.601); opacity is dropped (colours lie on white already) or, where
    expected and absent, full; of other counts the surplus is dropped and what lacks is filled with ``fill`` (the channel means).
    """
    have = array.shape[-1]
    if have == channels:
        return array
    if have in {1, 2, 3, 4} and channels in {1, 2, 3, 4}:
        colour = array[..., : 1 if have < 3 else 3]
        if colour.shape[-1] == 3 and channels < 3:
            grey = colour.astype(np.float32) @ _LUMA
            colour = (np.rint(grey).astype(np.uint8) if array.dtype == np.uint8 else grey)[..., None]
        elif colour.shape[-1] == 1 and channels >= 3:
            colour = np.repeat(colour, 3, -1)
        if channels in {1, 3}:
            return colour
        alpha = array[..., -1:] if have in {2, 4} else np.full_like(array[..., :1], 255)
        return np.concatenate([colour, alpha], -1)
    if have > channels:
        return array[..., :channels]
    if have == 1:
        return np.repeat(array, channels, -1)
    rest = np.asarray(fill if fill is not None else [0.0] * channels, np.float32)[have:]
    return np.concatenate([array.astype(np.float32), np.broadcast_to(rest, (*array.shape[:-1], channels - have))], -1)


def resize(array: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize (H, W, C) or (T, H, W, C) with antialiased bilinear interpolation; the dtype stays."""
    if array.shape[-3:-1] == size:
        return array
    x = torch.from_numpy(np.array(array)).movedim(-1, -3)
    flat = x if x.dim() == 4 else x[None]
    flat = fn.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=True)
    result: Pixels = (flat if x.dim() == 4 else flat[0]).movedim(-3, -1).contiguous().numpy()
    return result


class PixelFit:
    """Collects the statistics of a column's pictures, one at a time."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.samples: list[Pixels] = []

    def add(self, array: Pixels) -> None:
        """Take note of (..., H, W, C)."""
        self.sizes.append(array.shape[-3:-1])
        flat = array.reshape(-1, array.shape[-1])
        picked = (np.arange(min(_SAMPLED, len(flat)), dtype=np.int64) * 2654435761) % len(flat)
        self.samples.append(flat[picked])

    def statistics(self, largest: int) -> dict[str, Any]:
        """Size, channel count, mean and standard deviation as JSON values.

        The size is the median height and width, made smaller until neither is above ``largest``. The channel count is the most
        frequent one (the larger of equals); opacity counts only if something is transparent, colour only if something is coloured.
        """
        if not self.sizes:
            return {"size": [8, 8], "channels": 1, "mean": [0.0], "std": [1.0]}
        height, width = (float(v) for v in np.median(np.array(self.sizes, np.float64), 0))
        shrink = min(1.0, largest / max(height, width))
        size = [max(1, round(height * shrink)), max(1, round(width * shrink))]
        channels = self._channels()
        values = np.concatenate([to_channels(s, channels).astype(np.float64) for s in self.samples])
        mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
        mean, std = np.nan_to_num(mean), np.where(np.nan_to_num(std) > 1e-8 + 1e-6 * np.abs(np.nan_to_num(mean)), std, 1.0)
        return {"size": size, "channels": channels, "mean": [float(v) for v in mean], "std": [float(v) for v in std]}

    def _channels(self) -> int:
        counts = np.bincount([s.shape[-1] for s in self.samples])
        channels = int(np.flatnonzero(counts == counts.max())[-1])
        if channels in {2, 4} and all((to_channels(s, channels)[:, -1] == 255).all() for s in self.samples):
            channels -= 1
        if channels in {3, 4} and all(_is_grey(to_channels(s, 3)) for s in self.samples):
            channels -= 2
        return channels


def _is_grey(colour: Pixels) -> bool:
    return bool((colour[:, 0] == colour[:, 1]).all() and (colour[:, 0] == colour[:, 2]).all())


def stack(arrays: Iterable[Pixels], statistics: Mapping[str, Any]) -> Tensor:
    """(N, H, W, C) of the column's size and channel count; uint8 if all are; NaN becomes the channel's mean."""
    size = (int(statistics["size"][0]), int(statistics["size"][1]))
    channels, mean = int(statistics["channels"]), statistics["mean"]
    brought = []
    for array in arrays:
        if array.dtype != np.uint8:
            gaps = np.isnan(array)
            filled = np.asarray(to_channels_mean(mean, array.shape[-1]), np.float32)
            array = np.where(gaps, filled, array) if gaps.any() else array
        brought.append(to_channels(resize(array, size), channels, mean))
    if not brought:
        return torch.zeros((0, *size, channels), dtype=torch.uint8)
    if any(a.dtype != np.uint8 for a in brought):
        brought = [a.astype(np.float32, copy=False) for a in brought]
    return torch.from_numpy(np.stack(brought))


def to_channels_mean(mean: Sequence[float], channels: int) -> list[float]:
    """The channel means for a picture with another number of channels: their overall mean where the counts differ."""
    return list(mean) if len(mean) == channels else [float(np.mean(mean))] * channels


def augmentation(draw: Draw, sample: NDArray[np.int64], strength: float, flips: bool = False) -> dict[str, Tensor]:
    """The random changes of N pictures, as tensors that ``augment`` applies on the device.

    Shift up to 10 % of a side, scale by up to 12 %, rotation up to 10 degrees, contrast by up to 25 %, brightness by up to a fifth of
    the standard deviation, and with probability 1/4 one erased rectangle of up to 3/8 of each side, all times ``strength``. All
    numbers depend on (seed, epoch, row) only.

    Args:
        draw: the batch's randomness.
        sample: (N,) row of the batch of each picture.
        strength: factor on all of it.
        flips: mirror left and right with probability 1/2.
    """
    u = draw.at(sample).uniform("augment", 12)
    s = (2.0 * u - 1.0) * strength
    angle, scale, stretch = s[:, 0] * math.radians(10), np.exp(s[:, 1] * 0.12), np.exp(s[:, 2] * 0.06)
    mirror = np.where(u[:, 3] < 0.5, -1.0, 1.0) if flips else np.ones(len(u))
    cos, sin = np.cos(angle), np.sin(angle)
    rows = np.stack(
        [cos * scale * stretch * mirror, -sin * scale, s[:, 4] * 0.2, sin * scale * mirror, cos * scale / stretch, s[:, 5] * 0.2], 1
    )
    tone = np.stack([np.exp(s[:, 6] * 0.25), s[:, 7] * 0.2], 1)
    half = np.where(u[:, 8:9] < 0.25 * min(strength, 1.0), 0.125 + 0.25 * u[:, 8:10] * np.array([[4.0, 1.0]]), 0.0)
    box = np.concatenate([2 * u[:, 10:12] - 1, half.clip(0, 0.375)], 1)
    return {
        "affine": torch.from_numpy(rows.reshape(-1, 2, 3).astype(np.float32)),
        "tone": torch.from_numpy(tone.astype(np.float32)),
        "erase": torch.from_numpy(box.astype(np.float32)),
    }


def augment(x: Tensor, affine: Tensor, tone: Tensor, erase: Tensor) -> Tensor:
    """Move, tone and erase normalised pictures (N, C, H, W); what comes in over the rim repeats the rim."""
    x = x.contiguous()
    grid = fn.affine_grid(affine.to(x.dtype), list(x.shape), align_corners=False)
    x = fn.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    x = x * tone[:, 0, None, None, None] + tone[:, 1, None, None, None]
    down = torch.linspace(-1, 1, x.shape[2], device=x.device)
    across = torch.linspace(-1, 1, x.shape[3], device=x.device)
    inside_h = (down[None, :] - erase[:, 0:1]).abs() < erase[:, 2:3]
    inside_w = (across[None, :] - erase[:, 1:2]).abs() < erase[:, 3:4]
    return x.masked_fill((inside_h[:, :, None] & inside_w[:, None, :])[:, None], 0.0)
