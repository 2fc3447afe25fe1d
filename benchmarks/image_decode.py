"""Pictures a second from JPEG bytes to a model's input on one core, against plain Pillow and NumPy.

All arms read the same 500 x 333 JPEG files and end at 224 x 224. The plain arm ends at normalised float32 (C, H, W); ``bytes`` ends at the
uint8 (N, H, W, C) tensor that a batch holds, and which the model normalises; ``normalised`` adds that normalisation to our time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image

from benchmarks import Goal, Measured, row
from benchmarks.timing import interleave, slots_of
from unisono.modalities.image import decode_picture

SIZE = (224, 224)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def pictures(count: int = 16, seed: int = 0) -> list[bytes]:
    """Smooth random pictures with grain, as JPEG files of photographs' usual size."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 333), Image.Resampling.BICUBIC)
        grain = np.asarray(smooth).astype(np.float32) + rng.normal(0, 6, (333, 500, 3))
        stream = io.BytesIO()
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        found.append(stream.getvalue())
    return found


def plain(files: Sequence[bytes]) -> None:
    """Pillow's decoding and resizing, NumPy's normalisation."""
    for data in files:
        image = Image.open(io.BytesIO(data)).convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)
        np.ascontiguousarray(((np.asarray(image, np.float32) / 255.0 - MEAN) / STD).transpose(2, 0, 1))


def to_bytes(files: Sequence[bytes]) -> torch.Tensor:
    """Decoding at the size wanted, stacked."""
    return torch.from_numpy(np.stack([decode_picture(data, size=SIZE) for data in files]))


def to_normalised(files: Sequence[bytes]) -> None:
    """The same, and the normalisation of the whole batch."""
    to_bytes(files).float().sub_(torch.from_numpy(MEAN * 255)).mul_(torch.from_numpy(1 / (STD * 255)))


@row(
    "image_decode",
    goals=[Goal("normalised_ratio", must=2.0, aim=3.2), Goal("bytes_ratio"), Goal("plain"), Goal("normalised")],
    seeds=(0, 1, 2),
)
def image_decode(*, arm: str, seed: int) -> Measured:
    """Pictures a second from JPEG bytes to a model's input on one core, against plain Pillow and NumPy."""
    files, threads = pictures(seed=seed), torch.get_num_threads()
    arms = {"plain": plain, "bytes": to_bytes, "normalised": to_normalised}
    torch.set_num_threads(1)
    try:
        timings = interleave({name: partial(function, files) for name, function in arms.items()}, slots=15, calls=2)
    finally:
        torch.set_num_threads(threads)
    rates = {name: len(files) / timing.seconds for name, timing in timings.items()}
    ratios = {f"{name}_ratio": (rates[name] / rates["plain"], "ratio") for name in ("bytes", "normalised")}
    return {**{name: (value, "pictures/s") for name, value in rates.items()}, **ratios, **slots_of(timings)}
