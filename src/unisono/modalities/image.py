"""Pictures of any size and channel count: files, bytes, ``.npy`` arrays or nested lists -> (height, width, channel) -> a grid of tokens.

Letters: N pictures, H height, W width, C channels, h and w grid height and width, T tokens, D width.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.utils.dlpack
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.registry import Count, NonNegative
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, modalities, tokenisers
from unisono.modalities.grids import GridTokeniser, Normalised, lattice
from unisono.nn.position import Position
from unisono.nn.stem import ConvStem, LinearStem, ScalesStem, halvings

#: Suffixes by which a text column is taken for paths of pictures.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"})
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_SMALLEST_LIST = 8
#: Fewer pictures than this are read at ``SMALL`` pixels a side, more at ``LARGE``.
PLENTY = 2000
SMALL, LARGE = 32, 64


def picture_kind(head: bytes) -> str:
    """The picture format that a file's first bytes announce, or nothing."""
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:6] in {b"GIF87a", b"GIF89a"}:
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:4] in {b"II*\x00", b"MM\x00*"}:
        return "TIFF"
    if head[4:12] in {b"ftypavif", b"ftypavis"}:
        return "AVIF"
    if head[:2] == b"BM" and len(head) > 26 and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[:2] in {b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"} and head[2:3].isspace():
        return "PNM"
    return ""


@modalities.register("image")
class ImageModality(Modality):
    """Pictures: any number of channels, 8 or 16 bits or float, from files, bytes, arrays or nested lists.

    Options: ``max_pixels`` (bound on height times width), ``layout`` (``hwc`` or ``chw`` for arrays; guessed by default).
    """

    name: ClassVar[str] = "image"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim a column that its metadata, its bytes, its paths or its nested lists mark as pictures."""
        many = pixels.sample_is_list(sample)
        if sample.hint == "image":
            return Guess(0.99, "the file's metadata say image", many)
        heads, where = pixels.probe_bytes(sample, SUFFIXES)
        kinds = [picture_kind(h) for h in heads]
        found = sorted({k for k in kinds if k})
        if heads and sum(map(bool, kinds)) >= 0.5 * len(kinds):
            what = {"path": "paths of", "struct": "structs with", "bytes": "bytes of"}[where]
            return Guess(0.95, f"{what} {', '.join(found)} pictures", many)
        if where == "path":
            doubt = "" if heads else "text: none of the files was found"
            return Guess(0.9 if heads else 0.7, "texts that end like picture files", many, doubt=doubt)
        heads, where = pixels.probe_bytes(sample, frozenset({".npy"}))
        shapes = [pixels.npy_shape(h) for h in heads]
        if shapes and all(len(s) == 3 and min(s[0], s[2]) <= 4 for s in shapes):
            return Guess(0.85, f"{where} of .npy arrays of shape {shapes[0]}", many)
        if shapes and all(len(s) == 2 and min(s) >= _SMALLEST_LIST and max(s) <= 4 * min(s) for s in shapes):
            return Guess(0.6, f"{where} of .npy arrays of shape {shapes[0]}", many, doubt="a series of several channels")
        return self._detect_nested(sample)

    def _detect_nested(self, sample: ColumnSample) -> Guess | None:
        shapes, arrays = pixels.nested_shapes(sample)
        if not shapes or len({len(s) for s in shapes}) != 1:
            return None
        bytes_like = all(a.dtype.kind in "iub" and a.size and a.min() >= 0 and a.max() <= 255 for a in arrays)
        shape = shapes[0]
        if len(shape) == 3 and all(min(s[0], s[2]) <= 4 and s[1] >= _SMALLEST_LIST for s in shapes):
            return Guess(0.9 if bytes_like else 0.8, f"nested lists of shape {shape}")
        if len(shape) == 2 and all(min(s) >= _SMALLEST_LIST and max(s) <= 4 * min(s) for s in shapes):
            same = len(set(shapes)) == 1
            doubt = f"a series of {shape[1]} channels"
            if bytes_like:
                return Guess(0.85 if same else 0.6, f"nested lists of shape {shape}, whole numbers from 0 to 255", doubt=doubt)
            if same and shape[0] == shape[1]:
                return Guess(0.6, f"square nested lists of shape {shape}", doubt=doubt)
        return None

    def decode(self, cell: Any, column: Column, context: Context) -> Any:
        """One picture as (H, W, C), uint8 or float32; with ``context.want["size"]`` already of that size.

        EXIF orientation is applied, palettes and CMYK become RGB, colours lie on white where something is transparent and the opacity
        is the last channel.

        Raises:
            Unreadable: empty, truncated, of no known format, or larger than ``max_pixels``.
        """
        limit = int(column.options.get("max_pixels", pixels.MAX_PIXELS))
        content = pixels.fetch(cell, context.root, limit)
        if isinstance(content, np.ndarray):
            return _from_array(content, str(column.options.get("layout", "")))
        size = context.want.get("size")
        return decode_picture(content, limit, None if size is None else (int(size[0]), int(size[1])))

    def show(self, cell: Any) -> Any:
        """The picture as a PNG."""
        from PIL import Image

        array = pixels.to_channels(np.asarray(cell), 1 if cell.shape[-1] < 3 else 3)
        if array.dtype != np.uint8:
            low, high = float(np.nanmin(array)), float(np.nanmax(array))
            array = np.nan_to_num((array - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else np.ascontiguousarray(array)).save(stream, "PNG")
        return {"kind": "image", "data": stream.getvalue(), "type": "image/png"}


def _from_array(array: pixels.Pixels, layout: str) -> pixels.Pixels:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise Unreadable(f"a picture has the shape (height, width) or (height, width, channel), got {array.shape}")
    channels_first = layout == "chw" or (not layout and array.shape[0] <= 4 < array.shape[2])
    return pixels.tidy_values(np.ascontiguousarray(array.transpose(1, 2, 0)) if channels_first else array)


def decode_picture(data: bytes, limit: int = pixels.MAX_PIXELS, size: tuple[int, int] | None = None) -> pixels.Pixels:
    """Decode a picture file with Pillow, bounded by its header before anything is unpacked.

    Args:
        data: the file's bytes.
        limit: the largest height times width.
        size: (H, W) to resize to (bilinear); JPEG files are then unpacked at a reduced scale where that is at least as large.

    Returns:
        (H, W, C) uint8 or float32.

    Raises:
        Unreadable: of no known format, too large, truncated or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > limit:
                raise Unreadable(f"the picture has {width:,} x {height:,} pixels, more than the {limit:,} allowed (option max_pixels)")
            return _unpack(image, size)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"no picture: {_what_else(data)}") from None
    except Image.DecompressionBombError as error:
        raise Unreadable(f"the picture is too large: {error}") from None
    except MemoryError:
        raise Unreadable("the picture does not fit into memory") from None
    except Exception as error:  # the readers of the formats raise anything on a damaged file
        raise Unreadable(f"the picture is truncated or damaged: {error}") from None


def _what_else(data: bytes) -> str:
    kind = picture_kind(data[:64])
    if kind:
        return f"it begins like {kind} but its header is damaged or truncated"
    try:
        start = data[:200].decode("utf-8")
    except UnicodeDecodeError:
        return f"its format is unknown (it begins with {data[:8].hex(' ')})"
    return f"it is text, beginning with {start[:30]!r}" if start.isprintable() or "\n" in start else "its format is unknown"


def _unpack(image: Any, size: tuple[int, int] | None) -> pixels.Pixels:
    orientation = int(image.getexif().get(0x0112, 1)) if "exif" in image.info else 1
    turned = orientation > 4
    wanted = None if size is None else ((size[0], size[1]) if turned else (size[1], size[0]))
    if wanted is not None and image.format == "JPEG":
        image.draft(image.mode if image.mode in {"L", "RGB"} else None, wanted)
    image.load()
    image = _common_mode(image)
    resizing = wanted is not None and image.size != wanted
    array = upright(_resized(image, wanted) if resizing and wanted is not None else np.asarray(image), orientation)
    if array.dtype.kind != "u" or array.dtype.itemsize != 1:
        array = pixels.tidy_values(array)
    array = array[..., None] if array.ndim == 2 else array
    if image.mode in {"RGBA", "LA"}:
        return on_white(array)
    return array


def upright(array: pixels.Pixels, orientation: int) -> pixels.Pixels:
    """Turn (H, W[, C]) as the EXIF tag ``Orientation`` (1 to 8) asks."""
    if orientation == 1:
        return array
    if orientation in {5, 6, 7, 8}:
        array = array.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _shared(image: Any) -> Tensor:
    """The pixels of an RGB picture as (H, W, 3 or 4), a fourth channel unused, without a copy where Pillow holds them in one block."""
    try:
        return torch.utils.dlpack.from_dlpack(pa.array(image).flatten()).view(image.height, image.width, 4)
    except (ValueError, TypeError, NotImplementedError, pa.ArrowException):
        return torch.from_numpy(np.array(image))


def _resized(image: Any, size: tuple[int, int]) -> pixels.Pixels:
    """Antialiased bilinear resizing to (width, height); opaque colours by torch on Pillow's own memory, 2.5 times as fast."""
    if image.mode != "RGB":
        return np.asarray(image.resize(size, 2))
    x = _shared(image).movedim(-1, 0)[None]
    x = nn.functional.interpolate(x, size=(size[1], size[0]), mode="bilinear", align_corners=False, antialias=True)
    array: pixels.Pixels = x[0].movedim(0, -1)[..., :3].numpy()
    return array


def _common_mode(image: Any) -> Any:
    """Bring the modes of Pillow to L, RGB, LA, RGBA, or one wide channel."""
    mode = image.mode
    if mode in {"L", "RGB", "LA", "RGBA", "F", "I", "I;16", "I;16B", "I;16L", "I;16N"}:
        if mode in {"L", "RGB"} and "transparency" in image.info:
            return image.convert("RGBA" if mode == "RGB" else "LA")
        if mode.startswith("I;16"):
            return image if mode == "I;16" else image.convert("I;16")
        return image
    if mode in {"P", "PA"}:
        return image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
    if mode in {"RGBa", "La"}:
        return image.convert(mode.upper())
    return image.convert("L" if mode == "1" else "RGB")


def on_white(array: pixels.Pixels) -> pixels.Pixels:
    """Lay the colours of (..., colour + opacity) bytes on white; the opacity stays: ``c a + 255 (1 - a)``."""
    alpha = array[..., -1:].astype(np.uint16)
    colour = (array[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return np.concatenate([colour.astype(np.uint8), array[..., -1:]], -1)


@tokenisers.register("patches", source="arXiv:2106.14881")
class Patches(GridTokeniser):
    """A grid of tokens from each picture, by a small convolutional network or one linear map of patches.

    Pictures of a column are brought to one size (the median of the training pictures, at most ``size`` a side) and channel count (grey
    is repeated, surplus channels are dropped, colours lie on white where something is transparent), and normalised for each channel.

    Args:
        size: the longest side in pixels; smaller pictures keep their size. None for 64, or 32 where fewer than 2,000 pictures are
            trained on, where a quarter of the pixels leaves time for the steps that so few rows can use.
        grid: at most so many tokens along a side.
        stem: ``conv``, ``linear``, or ``scales`` for linear maps of patches of four sizes around each token (arXiv:2108.00154).
        base: channels of the first stage of the convolutional stem.
        depth: residual blocks a stage.
        augment: strength of the random shifts, scales, rotations, contrast and erasing in training; 0 for none.
        flips: mirror left and right in training (wrong for digits, letters, arrows).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})

    def __init__(
        self,
        *,
        size: Count | None = None,
        grid: Count = 4,
        stem: Literal["conv", "linear", "scales"] = "conv",
        base: Count = 32,
        depth: Count = 1,
        augment: NonNegative = 1.0,
        flips: bool = False,
    ) -> None:
        self.size, self.grid, self.stem, self.base, self.depth = size, grid, stem, base, depth
        self.augment, self.flips = augment, flips

    def largest(self, count: int) -> int:
        """``size``, or what suits the number of pictures."""
        return self.size or (SMALL if count < PLENTY else LARGE)

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One picture of the batch after the other, each a grid in reading order; inputs ``pixels`` (N, H, W, C) and the augmentation."""
        (column,) = columns
        items = Items.of(column, cells[column.name])
        inputs = self.picture_inputs(column, items.arrays, items.sample, draw)
        place = lattice(*self.grid_shape(column))
        n, per = len(items.arrays), len(place)
        return Packed.of(
            inputs,
            np.repeat(items.sample, per),
            column.index,
            item=np.repeat(items.item, per),
            place=np.tile(place, (n, 1)),
        )

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The stem with normalisation, augmentation and positions."""
        (column,) = columns
        found = column.statistics
        channels, steps = int(found["channels"]), halvings(self.picture_shape(column), self.grid)
        stem: nn.Module
        if self.stem == "conv":
            stem = ConvStem(channels, width, halvings=steps, base=self.base, depth=self.depth)
        else:
            stem = (LinearStem if self.stem == "linear" else ScalesStem)(channels, width, halvings=steps)
        return PictureTokens(stem, found["mean"], found["std"], width)


class PictureTokens(nn.Module):
    """Normalise, augment in training, apply the stem, and add where each token lies.

    Args:
        stem: (N, C, H, W) -> (N, D, h, w).
        mean: (C,) of the training pictures, in the unit of the pixels.
        std: (C,) likewise.
        width: D.
    """

    def __init__(self, stem: nn.Module, mean: Sequence[float], std: Sequence[float], width: int) -> None:
        super().__init__()
        self.stem = stem
        self.pixels = Normalised(mean, std)
        self.norm = nn.LayerNorm(width)
        self.position = Position(2, width, gain=0.3)

    def forward(self, packed: Packed) -> Tensor:
        """(T, D) in the order of the pack."""
        grid: Tensor = self.stem(self.pixels(packed)).movedim(1, -1)
        place = packed.place[:, :2].to(grid.device)
        values: Tensor = self.norm(grid.reshape(-1, grid.shape[-1])) + self.position(place)
        return values
