"""Moving pictures: video files, animated GIF, PNG and WebP, or (time, height, width, channel) arrays -> tokens in space and time.

Letters: V videos, F frames, H height, W width, C channels, h and w grid height and width, T tokens, D width.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import DependencyError, Unreadable
from unisono.core.registry import Count, NonNegative
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, modalities, tokenisers
from unisono.modalities.grids import GridTokeniser, Normalised, lattice
from unisono.modalities.image import on_white, picture_kind
from unisono.nn.position import Position
from unisono.nn.stem import ConvStem, halvings

#: Suffixes by which a text column is taken for paths of videos.
SUFFIXES = frozenset({".mp4", ".m4v", ".webm", ".mkv", ".avi", ".mov", ".mpg", ".mpeg", ".ogv", ".gif", ".apng"})
_MOVING = {b"\x1aE\xdf\xa3": "WebM or Matroska", b"\x00\x00\x01\xba": "MPEG"}
_FRAMES = 8
_MAX_FRAMES = 100_000
_LAYOUT = 4


@dataclass(frozen=True)
class Clip:
    """A decoded video.

    Attributes:
        frames: (F, H, W, C) uint8 or float32.
        times: (F,) seconds from the start.
    """

    frames: NDArray[Any]
    times: NDArray[np.float32]


def video_kind(head: bytes) -> str:
    """The video format that a file's first bytes announce, or nothing."""
    if head[4:8] == b"ftyp" and head[8:12] not in {b"avif", b"avis", b"M4A "}:
        return "MP4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2:
        return "animated WebP"
    if head[:8] == b"\x89PNG\r\n\x1a\n" and b"acTL" in head:
        return "animated PNG"
    return _MOVING.get(head[:4], "")


@modalities.register("video")
class VideoModality(Modality):
    """Videos as files (through PyAV, extra ``video``), animated pictures (through Pillow), or arrays (time, height, width[, channel]).

    Options: ``rate`` (frames a second of arrays, default 1), ``frames`` (frames kept, evenly spaced, default 8), ``max_pixels``.
    """

    name: ClassVar[str] = "video"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim a column that its metadata, its bytes, its paths or its nested lists mark as videos."""
        many = pixels.sample_is_list(sample)
        if sample.hint == "video":
            return Guess(0.99, "the file's metadata say video", many)
        heads, where = pixels.probe_bytes(sample, SUFFIXES)
        kinds = [video_kind(h) or _animated_gif(h) for h in heads]
        if heads and sum(map(bool, kinds)) >= 0.5 * len(kinds):
            return Guess(0.97, f"{where} of {', '.join(sorted({k for k in kinds if k}))}", many)
        gifs = any(str(v).lower().endswith((".gif", ".apng")) for v in sample.values) if where == "path" else False
        if where == "path" and not gifs:
            return Guess(0.9 if heads else 0.7, "texts that end like video files", many, doubt="" if heads else "text: no file was found")
        shapes, _ = pixels.nested_shapes(sample)
        if not shapes:
            heads, where = pixels.probe_bytes(sample, frozenset({".npy"}))
            shapes = [pixels.npy_shape(h) for h in heads]
        if shapes and all(len(s) == _LAYOUT and s[3] <= _LAYOUT for s in shapes):
            return Guess(0.9, f"{where or 'nested lists'} of shape {shapes[0]}: time, height, width, channel")
        return None

    def decode(self, cell: Any, column: Column, context: Context) -> Clip:
        """One video as evenly spaced frames with their times; with ``context.want["size"]`` already of that size.

        Raises:
            Unreadable: empty, truncated, of no known format, or larger than ``max_pixels``.
            DependencyError: a video file, and PyAV is not installed.
        """
        limit = int(column.options.get("max_pixels", pixels.MAX_PIXELS))
        count = int(column.options.get("frames", context.want.get("frames", _FRAMES)))
        size = context.want.get("size")
        content = pixels.fetch(cell, context.root, limit)
        if isinstance(content, np.ndarray):
            rate = cell.get("rate") if isinstance(cell, Mapping) else None
            clip = _from_array(content, count, float(rate or column.options.get("rate", 1.0)))
        elif picture_kind(content[:64]):
            clip = _animated(content, count, limit)
        else:
            clip = _moving(content, count, limit, size)
        return clip if size is None else Clip(pixels.resize(clip.frames, (int(size[0]), int(size[1]))), clip.times)

    def show(self, cell: Any) -> Any:
        """The frames as an animated PNG."""
        from PIL import Image

        frames = cell.frames if cell.frames.dtype == np.uint8 else np.clip(cell.frames, 0, 255).astype(np.uint8)
        images = [Image.fromarray(np.ascontiguousarray(f)) for f in pixels.to_channels(frames, 3)]
        stream = io.BytesIO()
        images[0].save(stream, "PNG", save_all=True, append_images=images[1:], duration=250, loop=0)
        return {"kind": "image", "data": stream.getvalue(), "type": "image/png"}


def _animated_gif(head: bytes) -> str:
    return "animated GIF" if head[:4] == b"GIF8" and b"NETSCAPE2.0" in head else ""


def evenly(total: int, count: int) -> NDArray[np.int64]:
    """The middles of ``count`` equal parts of ``total`` frames; every frame if there are no more."""
    kept = min(total, count)
    return ((np.arange(kept) + 0.5) * total / kept).astype(np.int64)


def _from_array(array: pixels.Pixels, count: int, rate: float) -> Clip:
    if array.ndim == _LAYOUT - 1:
        array = array[..., None]
    if array.ndim != _LAYOUT:
        raise Unreadable(f"a video has the shape (time, height, width) or (time, height, width, channel), got {array.shape}")
    if not rate > 0:
        raise Unreadable(f"a frame rate of {rate} is not above zero")
    kept = evenly(len(array), count) if len(array) else np.zeros(0, np.int64)
    return Clip(pixels.tidy_values(array[kept]), (kept / rate).astype(np.float32))


def _animated(data: bytes, count: int, limit: int) -> Clip:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("GIF", "PNG", "WEBP", "AVIF", "JPEG")) as image:
            total = int(getattr(image, "n_frames", 1))
            if image.width * image.height * min(total, count) > limit or total > _MAX_FRAMES:
                raise Unreadable(f"{total:,} frames of {image.width:,} x {image.height:,} pixels are more than allowed ({limit:,} pixels)")
            frames, times, now = [], [], 0.0
            wanted = set(evenly(total, count).tolist())
            for k in range(total):
                image.seek(k)
                if k in wanted:
                    frames.append(on_white(np.asarray(image.convert("RGBA")))[..., :3])
                    times.append(now)
                now += float(image.info.get("duration", 100) or 100) / 1000.0
    except Unreadable:
        raise
    except Exception as error:  # the readers of the formats raise anything on a damaged file
        raise Unreadable(f"the animation is truncated or damaged: {error}") from None
    return Clip(np.stack(frames), np.array(times, np.float32))


def _moving(data: bytes, count: int, limit: int, size: tuple[int, int] | None) -> Clip:
    try:
        import av
    except ImportError:
        raise DependencyError("av", "video", "reading video files") from None
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise Unreadable("the file has no video track")
            stream = container.streams.video[0]
            if stream.width * stream.height * count > limit or stream.frames > _MAX_FRAMES:
                raise Unreadable(f"{count} frames of {stream.width:,} x {stream.height:,} pixels are more than the {limit:,} allowed")
            frames, times = _evenly_decoded(container, stream, count, size)
    except Unreadable:
        raise
    except Exception as error:  # FFmpeg's errors, of many kinds
        raise Unreadable(f"no video, or truncated or damaged: {error}") from None
    if not frames:
        raise Unreadable("the video has no frame that can be decoded")
    return Clip(np.stack(frames), np.array(times, np.float32) - np.float32(times[0]))


def _evenly_decoded(container: Any, stream: Any, count: int, size: tuple[int, int] | None) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """Keep every ``step``-th frame; whenever twice as many as wanted are there, every second one is dropped and the step doubles."""
    kept: list[tuple[float, Any]] = []
    step = 1
    for k, frame in enumerate(container.decode(stream)):
        if k >= _MAX_FRAMES:
            raise Unreadable(f"more than {_MAX_FRAMES:,} frames")
        if k % step == 0:
            to = {"width": int(size[1]), "height": int(size[0])} if size is not None else {}
            kept.append((float(frame.time or 0.0), frame.to_ndarray(format="rgb24", **to)))
            if len(kept) == 2 * count:
                kept, step = kept[::2], step * 2
    chosen = [kept[i] for i in evenly(len(kept), count)] if kept else []
    return [f for _, f in chosen], [t for t, _ in chosen]


@tokenisers.register("frames", source="arXiv:2103.15691")
class Frames(GridTokeniser):
    """A grid of tokens from each of a few evenly spaced frames, by one small convolutional network for all frames.

    Place is (time step, row, column); time is in seconds. Sizes and channel counts are treated as in ``patches``; a video's frames share
    their augmentation.

    Args:
        size: the longest side in pixels.
        grid: at most so many tokens along a side of a frame.
        frames: frames kept of a video.
        base: channels of the first stage of the stem.
        depth: residual blocks a stage.
        augment: strength of the random changes in training; 0 for none.
        flips: mirror left and right in training.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"video"})
    fit_cells: ClassVar[int | None] = 512

    def __init__(
        self,
        *,
        size: Count = 48,
        grid: Count = 2,
        frames: Count = 8,
        base: Count = 24,
        depth: Count = 1,
        augment: NonNegative = 1.0,
        flips: bool = False,
    ) -> None:
        self.size, self.grid, self.frames, self.base, self.depth = size, grid, frames, base, depth
        self.augment, self.flips = augment, flips

    def wants(self, column: Column) -> Mapping[str, Any]:
        """The size that frames are brought to, and how many there may be."""
        return {"frames": self.frames, **super().wants(column)}

    def array_of(self, item: Any) -> pixels.Pixels:
        """A clip's frames."""
        array: pixels.Pixels = item.frames
        return array

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One video after the other, frame by frame, each a grid in reading order; inputs ``pixels`` (all frames, H, W, C)."""
        (column,) = columns
        items = Items.of(column, cells[column.name])
        kept = [evenly(len(clip.frames), self.frames) for clip in items.arrays]
        counts = np.array([len(k) for k in kept], np.int64)
        owner = np.repeat(np.arange(len(counts)), counts)
        frames = [clip.frames[i] for clip, k in zip(items.arrays, kept, strict=True) for i in k]
        inputs = self.picture_inputs(column, frames, items.sample[owner], draw)
        times = np.concatenate([c.times[k] for c, k in zip(items.arrays, kept, strict=True)] or [np.zeros(0, np.float32)])
        steps = np.concatenate([np.arange(n) for n in counts] or [np.zeros(0, np.int64)])
        grid = lattice(*self.grid_shape(column))
        per = len(grid)
        place = np.concatenate([np.repeat(steps, per)[:, None], np.tile(grid, (len(frames), 1))], 1).astype(np.int64)
        sample, item = np.repeat(items.sample[owner], per), np.repeat(items.item[owner], per)
        return Packed.of(inputs, sample, column.index, item=item, place=place, time=np.repeat(times, per))

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The stem with normalisation, augmentation, positions and differences of frames."""
        (column,) = columns
        found = column.statistics
        steps = halvings(self.picture_shape(column), self.grid)
        stem = ConvStem(int(found["channels"]), width, halvings=steps, base=self.base, depth=self.depth)
        return FrameTokens(stem, found["mean"], found["std"], width)


class FrameTokens(nn.Module):
    """``norm(stem(frame)) + position(step, row, column) + position(seconds)``.

    Args:
        stem: (N, C, H, W) -> (N, D, h, w).
        mean: (C,) of the training frames, in the unit of the pixels.
        std: (C,) likewise.
        width: D.
    """

    def __init__(self, stem: nn.Module, mean: Sequence[float], std: Sequence[float], width: int) -> None:
        super().__init__()
        self.stem = stem
        self.pixels = Normalised(mean, std)
        self.norm = nn.LayerNorm(width)
        self.position = Position(3, width)
        self.seconds = Position(1, width, shortest=0.2, longest=1000.0)

    def forward(self, packed: Packed) -> Tensor:
        """(T, D) in the order of the pack."""
        grid: Tensor = self.stem(self.pixels(packed)).movedim(1, -1)
        where = self.position(packed.place.to(grid.device)) + self.seconds(packed.time.to(grid.device))
        values: Tensor = self.norm(grid.reshape(-1, grid.shape[-1])) + where
        return values
