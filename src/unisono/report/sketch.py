"""Cells as small pictures: thumbnails, film strips, curves, clouds and graphs, each a few kilobytes.

Letters: N samples in time or points, C channels, F frames, H height, W width.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unisono.report.content import Cell
from unisono.report.figures import plural
from unisono.report.svg import drawing, tag

_W, _H = 180.0, 90.0
_SIDE = 144
_FEW_PIXELS = 48
#: A grey picture no brighter than this is a mask of numbered parts rather than a photograph.
_DARK = 32
_POINTS = 300
_NODES = 60
_EDGES = 150
_CHANNELS = 4

Array = NDArray[Any]


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address that needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture(data: bytes, words: str = "", side: int = _SIDE) -> Cell:
    """A picture file as a thumbnail of at most ``side`` pixels; small pictures stay as they are, nearly black ones are brightened."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as file:
        image: Any = file.convert("L" if file.mode in {"1", "L"} else "RGB")
    said = words or f"picture of {image.width} × {image.height} pixels"
    if image.mode == "L" and 0 < image.getextrema()[1] <= _DARK:
        image, said = ImageOps.autocontrast(image), f"{said}, brightened"
    small = max(image.size) <= _FEW_PIXELS
    image.thumbnail((side, side))
    return Cell("image", said, _encoded(image, png=small), small=small)


def _encoded(image: Any, *, png: bool) -> str:
    """The smaller of PNG and JPEG; PNG where asked for."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    if not png:
        lossy = io.BytesIO()
        image.save(lossy, "JPEG", quality=85)
        if lossy.tell() < stream.tell():
            return data_uri(lossy.getvalue(), "image/jpeg")
    return data_uri(stream.getvalue(), "image/png")


def film(frames: Array, words: str = "", shown: int = 4, side: int = 96) -> Cell:
    """A few frames (F, H, W, C) beside each other."""
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(frames) - 1, min(shown, len(frames))).astype(int))
    images = [Image.fromarray(_colours(frames[i])) for i in chosen]
    for image in images:
        image.thumbnail((side, side))
    width, height = sum(i.width + 2 for i in images) - 2, max(i.height for i in images)
    strip = Image.new("RGB", (width, height), "white")
    x = 0
    for image in images:
        strip.paste(image, (x, 0))
        x += image.width + 2
    said = words or f"{len(images)} of {plural(len(frames), 'frame')}"
    return Cell("image", said, _encoded(strip, png=False), small=height <= _FEW_PIXELS)


def _colours(frame: Array) -> Array:
    """(H, W, C) of any kind as (H, W, 3) uint8."""
    array = np.asarray(frame)
    array = array[..., :3] if array.shape[-1] >= 3 else np.repeat(array[..., :1], 3, axis=-1)
    if array.dtype != np.uint8:
        array = np.clip(np.nan_to_num(array), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def curve(values: Array, words: str = "") -> Cell:
    """A series (N, C) as one curve for each of the first channels, each on its own scale when they differ."""
    array = np.asarray(values, np.float64)
    array = array[:, None] if array.ndim == 1 else array
    n, channels = array.shape
    parts: list[Markup] = []
    shown = array[:, :_CHANNELS]
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    places = np.unique(np.linspace(0, n - 1, min(n, 240)).astype(int))
    for c in range(shown.shape[1]):
        ys = shown[places, c]
        path = " ".join(
            f"{4 + (_W - 8) * i / max(n - 1, 1):.1f},{_H - 5 - (_H - 10) * (y - low) / ((high - low) or 1.0):.1f}"
            for i, y in zip(places.tolist(), ys.tolist(), strict=True)
            if math.isfinite(y)
        )
        parts.append(tag("polyline", points=path, class_=f"line s{c} thin"))
    said = words or f"series of {plural(n, 'sample')}" + (f" in {channels} channels" if channels > 1 else "")
    return Cell("sketch", said, svg=drawing(_W, _H, said, parts, "sketch"))


def waveform(values: Array, words: str) -> Markup:
    """Lowest and highest sample of each of 120 stretches of a sound (N,)."""
    array = np.nan_to_num(np.asarray(values, np.float64).reshape(-1))
    if not len(array):
        return Markup("")
    stretches = np.array_split(array, min(120, len(array)))
    size = max(float(np.abs(array).max()), 1e-9)
    step, middle = (_W - 8) / len(stretches), 24.0
    lines = " ".join(
        f"M{4 + step * (k + 0.5):.1f} {middle - 20 * part.max() / size:.1f}V{middle - 20 * part.min() / size + 0.6:.1f}"
        for k, part in enumerate(stretches)
    )
    return drawing(_W, 2 * middle, words, [tag("path", d=lines, class_="line s0 thin")], "sketch")


def bars(values: Array, words: str = "") -> Cell:
    """A vector as thin bars from zero; long ones are averaged over stretches."""
    array = np.nan_to_num(np.asarray(values, np.float64).reshape(-1))
    said = words or f"vector of {plural(len(array), 'number')}"
    means = np.array([part.mean() for part in np.array_split(array, min(len(array), 90))]) if len(array) else np.zeros(1)
    low, high = min(0.0, float(means.min())), max(0.0, float(means.max()))
    span, step = (high - low) or 1.0, (_W - 8) / len(means)

    def py(v: float) -> float:
        return 4 + (high - v) / span * (_H - 8)

    lines = " ".join(f"M{4 + step * (k + 0.5):.1f} {py(0.0):.1f}V{py(v):.1f}" for k, v in enumerate(means.tolist()))
    path = tag("path", d=lines, class_="line s0", style=f"stroke-width:{max(step - 0.6, 0.8):.1f}")
    return Cell("sketch", said, svg=drawing(_W, _H, said, [path], "sketch"))


def cloud(points: Array, words: str = "") -> Cell:
    """Points (N, 3 or more) seen from above one side; nearer ones are darker."""
    array = np.asarray(points, np.float64)[:, :3]
    said = words or f"cloud of {plural(len(array), 'point')}"
    kept = array[np.unique(np.linspace(0, len(array) - 1, min(len(array), _POINTS)).astype(int))] if len(array) else array
    kept = kept[np.isfinite(kept).all(1)]
    if not len(kept):
        return Cell("text", said)
    centred = kept - (kept.max(0) + kept.min(0)) / 2
    a, b = math.radians(35), math.radians(25)
    x = centred[:, 0] * math.cos(a) - centred[:, 1] * math.sin(a)
    depth = centred[:, 0] * math.sin(a) + centred[:, 1] * math.cos(a)
    y = centred[:, 2] * math.cos(b) + depth * math.sin(b)
    height = 120.0
    scale = min((_W - 12) / max(float(np.ptp(x)), 1e-12), (height - 12) / max(float(np.ptp(y)), 1e-12))
    far = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-12)
    mid_x, mid_y = (x.max() + x.min()) / 2, (y.max() + y.min()) / 2
    dots = [
        tag("circle", cx=float(_W / 2 + scale * (u - mid_x)), cy=float(height / 2 - scale * (v - mid_y)), r=1.7, class_="f0",
            fill_opacity=f"{1 - 0.7 * d:.2f}")
        for u, v, d in zip(x, y, far, strict=True)
    ]  # fmt: skip
    return Cell("sketch", said, svg=drawing(_W, height, said, dots, "sketch"))


def network(nodes: int, edges: Array, words: str = "") -> Cell:
    """A graph, its nodes on a circle; edges (2, E)."""
    ends = np.asarray(edges, np.int64).reshape(2, -1)
    said = words or f"graph of {plural(nodes, 'node')} and {plural(ends.shape[1], 'edge')}"
    shown, size = min(nodes, _NODES), 130.0
    angles = [2 * math.pi * k / max(shown, 1) for k in range(shown)]
    place = [(size / 2 + (size / 2 - 8) * math.sin(t), size / 2 - (size / 2 - 8) * math.cos(t)) for t in angles]
    kept = [(int(u), int(v)) for u, v in ends.T if u < shown and v < shown and u != v][:_EDGES]
    parts = [tag("line", x1=place[u][0], y1=place[u][1], x2=place[v][0], y2=place[v][1], class_="edge") for u, v in kept]
    parts += [tag("circle", cx=x, cy=y, r=3.2, class_="f0") for x, y in place]
    return Cell("sketch", said, svg=drawing(size, size, said, parts, "sketch square"))
