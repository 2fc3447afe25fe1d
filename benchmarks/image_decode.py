"""Pictures a second from JPEG bytes to a model's input on one core, against plain Pillow and NumPy.

All arms read the same 500 x 333 JPEG files and end at 224 x 224. The plain arm ends at normalised float32 (C, H, W); ``bytes`` ends at the
uint8 (N, H, W, C) tensor that a batch holds, and which the model normalises; ``normalised`` adds that normalisation to our time.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

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


def rate(arm: Callable[[Sequence[bytes]], object], files: Sequence[bytes], repeats: int = 7) -> list[float]:
    """Pictures a second, of each repeat after one warm-up."""
    arm(files)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(4):
            arm(files)
        rates.append(4 * len(files) / (time.perf_counter() - start))
    return rates


def main() -> None:
    """Print one JSON object a line for each arm, and its ratio to the plain one."""
    torch.set_num_threads(1)
    files = pictures()
    found = {name: rate(arm, files) for name, arm in (("plain", plain), ("bytes", to_bytes), ("normalised", to_normalised))}
    for name, rates in found.items():
        print(
            json.dumps(
                {"arm": name, "median": round(float(np.median(rates)), 1), "low": round(min(rates), 1), "high": round(max(rates), 1)}
            )
        )
    for name in ("bytes", "normalised"):
        print(json.dumps({"arm": name, "ratio": round(float(np.median(found[name]) / np.median(found["plain"])), 2)}))


if __name__ == "__main__":
    main()
