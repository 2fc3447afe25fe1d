"""What a scene looks like: image, depth, masks, boxes and video.

Letters: ``S`` side of the picture in pixels, ``F`` frames. Pictures are composed of antialiased stamps made once per (shape, size,
texture, side); only additions, multiplications and comparisons take part, so the pixels are the same on every machine.
"""

from __future__ import annotations

import io
from functools import lru_cache
from math import cos, pi, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.data.png import encode_png
from unisono.data.scenes import COLOURS, PIXELS, RADIUS, SHAPES, Scene, Thing
from unisono.data.stream import Stream

Floats = NDArray[np.float32]

INK = {
    "red": (222, 45, 48),
    "orange": (248, 138, 28),
    "yellow": (252, 216, 48),
    "green": (52, 158, 70),
    "blue": (44, 104, 222),
    "purple": (126, 60, 176),
    "pink": (248, 132, 184),
    "brown": (132, 84, 48),
}
SKY = {
    "day": ((178, 218, 248), (236, 246, 252)),
    "dawn": ((252, 216, 190), (255, 240, 208)),
    "dusk": ((92, 70, 120), (164, 112, 132)),
    "night": ((18, 26, 58), (44, 58, 98)),
}
FRAMES = 8
FRAME_MS = 120
_FINE = 6  # samples a pixel and axis in a stamp
_LEVELS = 8  # steps of coverage in the video's palette
_TRAVEL = 0.3
_CIRCLE = 0.09


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape in the square [-1, 1]^2, y downwards."""
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0.0, -1.0), (0.98, 0.8), (-0.98, 0.8)]
    if shape == "cross":
        a, b = 0.96, 0.34
        return [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
    spokes = [(1.05 if k % 2 == 0 else 0.45, pi * (k / 5 - 0.5)) for k in range(10)]
    return [(round(r * cos(a), 6), round(r * sin(a) + 0.06, 6)) for r, a in spokes]


def inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which points of [-1, 1]^2 (y downwards) a shape covers."""
    if shape == "circle":
        return np.less_equal(x * x + y * y, 0.96)
    if shape == "heart":
        u, v = 1.2 * x, 0.12 - 1.15 * y
        body = u * u + v * v - 1
        return np.less_equal(body * body * body, u * u * v * v * v)
    hit = np.zeros(x.shape, dtype=bool)
    corners = _polygon(shape)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            hit ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * ((y - y0) / (y1 - y0)) + x0)
    return hit


def _light(texture: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say where a texture is light."""
    if texture == "striped":
        return np.asarray(np.floor((x + y) * 1.8) % 2 == 0, dtype=np.bool_)
    if texture == "checked":
        return np.asarray((np.floor(x * 2.2) + np.floor(y * 2.2)) % 2 == 0, dtype=np.bool_)
    if texture == "dotted":
        u, v = (x * 1.6 + 0.5) % 1.0 - 0.5, (y * 1.6 + 0.5) % 1.0 - 0.5
        return u * u + v * v < 0.075
    return np.zeros(x.shape, dtype=bool)


@lru_cache(maxsize=512)
def _stamp(shape: str, size: str, texture: str, side: int) -> tuple[Floats, Floats, Floats]:
    """Coverage, rim and light share of one thing, each (h, h) with odd h."""
    radius = RADIUS[size] * side
    half = int(radius * 1.06) + 1
    grid = (np.arange((2 * half + 1) * _FINE) + 0.5) / _FINE - half - 0.5
    x, y = np.meshgrid(grid / radius, grid / radius)
    cover = inside(shape, x, y)
    rim = cover & ~inside(shape, x * 1.2, y * 1.2)
    light = cover & ~rim & _light(texture, x, y)

    def shrink(fine: NDArray[np.bool_]) -> Floats:
        h = 2 * half + 1
        return np.asarray(fine.reshape(h, _FINE, h, _FINE).sum((1, 3)) / (_FINE * _FINE), dtype=np.float32)

    return shrink(cover), shrink(rim), shrink(light)


@lru_cache(maxsize=1024)
def _painted(shape: str, size: str, texture: str, colour: str, side: int) -> tuple[Floats, Floats]:
    """What stays of the ground (h, h, 1) and what is added to it (h, h, 3)."""
    cover, rim, light = (part[..., None] for part in _stamp(shape, size, texture, side))
    ink = np.array(INK[colour], dtype=np.float32)
    plain = cover - rim - light
    return 1 - cover, plain * ink + rim * (ink * np.float32(0.66)) + light * (ink * np.float32(0.3) + np.float32(178))


@lru_cache(maxsize=64)
def _sky(backdrop: str, side: int) -> Floats:
    top, bottom = (np.array(c, dtype=np.float32) for c in SKY[backdrop])
    share = ((np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side))[:, None, None]
    return np.broadcast_to(top + (bottom - top) * share, (side, side, 3)).copy()


def _window(x: float, y: float, half: int, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a stamp around (x, y) lies in the picture, and which part of the stamp that is."""
    left, top = int(x * side) - half, int(y * side) - half
    lo_x, lo_y = max(left, 0), max(top, 0)
    hi_x, hi_y = max(min(left + 2 * half + 1, side), lo_x), max(min(top + 2 * half + 1, side), lo_y)
    return (slice(lo_y, hi_y), slice(lo_x, hi_x)), (slice(lo_y - top, hi_y - top), slice(lo_x - left, hi_x - left))


def image(scene: Scene, side: int = 48, noise: float = 0.0) -> bytes:
    """Paint the scene before its backdrop.

    Args:
        scene: the scene.
        side: width and height in pixels.
        noise: standard deviation of the noise in every channel, as a share of the full range.

    Returns:
        An RGB PNG.
    """
    canvas = _sky(scene.backdrop, side).copy()
    for thing in scene.things:
        keep, add = _painted(thing.shape, thing.size, thing.texture, thing.colour, side)
        half = keep.shape[0] // 2
        where, part = _window(thing.x + 1.2 / side, thing.y + 1.2 / side, half, side)
        canvas[where] *= 1 - (1 - keep[part]) * np.float32(0.22)
        where, part = _window(thing.x, thing.y, half, side)
        canvas[where] = canvas[where] * keep[part] + add[part]
    if noise:
        canvas += Stream(scene.seed, scene.row, PIXELS).bells(canvas.size).reshape(canvas.shape) * np.float32(255 * noise)
        np.clip(canvas, 0, 255, out=canvas)
    return encode_png((canvas + np.float32(0.5)).astype(np.uint8))


def _marks(scene: Scene, side: int, values: list[int], ground: NDArray[np.uint8]) -> bytes:
    for thing, value in zip(scene.things, values, strict=True):
        cover = _stamp(thing.shape, thing.size, thing.texture, side)[0]
        where, part = _window(thing.x, thing.y, cover.shape[0] // 2, side)
        ground[where][cover[part] >= 0.5] = value
    return encode_png(ground)


def depth(scene: Scene, side: int = 48) -> bytes:
    """Give the distance of every pixel: a grey PNG, 255 near, 0 at the far end of the ground."""
    ground = np.repeat((np.arange(side) * 64 // side).astype(np.uint8)[:, None], side, axis=1)
    return _marks(scene, side, [int(255 - 150 * thing.depth) for thing in scene.things], ground)


def mask(scene: Scene, side: int = 48) -> bytes:
    """Give the class of every pixel: a grey PNG, 0 the ground, 1 to 6 the place in SHAPES plus one."""
    return _marks(scene, side, [SHAPES.index(thing.shape) + 1 for thing in scene.things], np.zeros((side, side), np.uint8))


def instances(scene: Scene, side: int = 48) -> bytes:
    """Give the thing of every pixel: a grey PNG, 0 the ground, k the k-th thing."""
    return _marks(scene, side, list(range(1, len(scene.things) + 1)), np.zeros((side, side), np.uint8))


def box(thing: Thing, side: int = 48) -> dict[str, float]:
    """Frame one thing, in pixels of a picture of that side; x1 and y1 lie just outside."""
    cover = _stamp(thing.shape, thing.size, thing.texture, side)[0] >= 0.5
    half = cover.shape[0] // 2
    columns, rows = np.flatnonzero(cover.any(0)), np.flatnonzero(cover.any(1))
    left, top = int(thing.x * side) - half, int(thing.y * side) - half
    edges = {"x0": left + columns[0], "y0": top + rows[0], "x1": left + columns[-1] + 1, "y1": top + rows[-1] + 1}
    return {name: float(min(max(int(edge), 0), side)) for name, edge in edges.items()}


def boxes(scene: Scene, side: int = 48) -> list[dict[str, Any]]:
    """Frame every thing: ``{x0, y0, x1, y1, shape, colour}``."""
    return [{**box(thing, side), "shape": thing.shape, "colour": thing.colour} for thing in scene.things]


def shift(motion: str, share: float) -> tuple[float, float]:
    """How far a motion has carried a thing when ``share`` (0 to 1) of the time has gone, as shares of the picture's side."""
    if motion == "circling":
        return _CIRCLE * round(cos(2 * pi * share), 6), _CIRCLE * round(sin(2 * pi * share), 6)
    way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    return way[0] * _TRAVEL * (share - 0.5), way[1] * _TRAVEL * (share - 0.5)


@lru_cache(maxsize=1)
def _palette() -> bytes:
    ground = np.array((232, 234, 238), dtype=np.float32)
    rows = [ground]
    for colour in COLOURS:
        ink = np.array(INK[colour], dtype=np.float32)
        for tone in (ink, ink * np.float32(0.66), ink * np.float32(0.3) + np.float32(178)):
            rows += [ground + (tone - ground) * np.float32(level / _LEVELS) for level in range(1, _LEVELS + 1)]
    rows.append(ground + np.float32(1))  # the tick of `frames`
    return (np.stack(rows) + np.float32(0.5)).astype(np.uint8).tobytes()


@lru_cache(maxsize=1024)
def _indexed(shape: str, size: str, texture: str, colour: str, side: int) -> NDArray[np.uint8]:
    cover, rim, light = _stamp(shape, size, texture, side)
    tone = np.where(rim > 0.5 * cover, 1, np.where(light > 0.5 * cover, 2, 0))
    level = np.floor(cover * _LEVELS + np.float32(0.5)).astype(np.int64)
    index = 1 + (COLOURS.index(colour) * 3 + tone) * _LEVELS + level - 1
    return np.where(level > 0, index, 0).astype(np.uint8)


def frames(scene: Scene, side: int = 48) -> NDArray[np.uint8]:
    """Draw the moving scene before a grey ground as palette indices (F, S, S).

    A corner of the ground ticks by one unseen step of grey, since writers of GIF join frames that are alike.
    """
    film = np.zeros((FRAMES, side, side), dtype=np.uint8)
    film[1::2, 0, 0] = 1 + len(COLOURS) * 3 * _LEVELS
    for f in range(FRAMES):
        for thing in scene.things:
            stamp = _indexed(thing.shape, thing.size, thing.texture, thing.colour, side)
            dx, dy = shift(thing.motion, f / (FRAMES - 1))
            where, part = _window(thing.x + dx, thing.y + dy, stamp.shape[0] // 2, side)
            film[f][where] = np.where(stamp[part] > 0, stamp[part], film[f][where])
    return film


def video(scene: Scene, side: int = 48) -> bytes:
    """Film the moving scene before a grey ground.

    Returns:
        An animated GIF of eight frames, 120 ms each: Pillow, FFmpeg and every browser decode it.
    """
    from PIL import Image

    pictures = []
    for frame in frames(scene, side):
        picture = Image.fromarray(frame, mode="P")
        picture.putpalette(_palette())
        pictures.append(picture)
    out = io.BytesIO()
    pictures[0].save(out, format="GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0, optimize=False, disposal=1)
    return out.getvalue()
