"""What a scene sounds like: one tone per thing over a hum.

Pitch tells the colour, timbre the shape, loudness the size, onset the place (columns from left to right, in a column from top to
bottom, 60 ms a place); the hum's pitch is told by nothing else. Tones come from integer tables, so the samples are the same on
every machine.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from math import pi, sin

import numpy as np
from numpy.typing import NDArray

from unisono.data.scenes import COLOURS, HUMS, TONES, Scene
from unisono.data.stream import Stream

RATE = 8000
SAMPLES = 5760
SLOT = 480
TONE = 1200
PITCH = dict(zip(COLOURS, (523, 587, 659, 784, 880, 1047, 1175, 1319), strict=True))  # pentatonic, Hz
HUM_PITCH = dict(zip(HUMS, (90, 140, 215, 330), strict=True))
LOUDNESS = {"small": 0.3, "medium": 0.55, "large": 1.0}
_TIMBRE = {  # shares of the first three partials in thousandths, and the envelope
    "circle": ((1000, 0, 0), "pluck"),
    "square": ((700, 0, 550), "organ"),
    "triangle": ((1000, 0, 120), "swell"),
    "star": ((600, 450, 350), "pluck"),
    "heart": ((1000, 150, 0), "tremolo"),
    "cross": ((450, 800, 0), "organ"),
}
_PEAK, _HUM_PEAK = 7000, 2200
_SINE = np.array([round(32767 * sin(2 * pi * k / 8000)) for k in range(8000)], dtype=np.int64)


def _envelope(word: str) -> NDArray[np.int64]:
    """Loudness over a tone, in thousandths."""
    n = np.arange(TONE, dtype=np.int64)
    edge = np.minimum(np.minimum(n, TONE - 1 - n) * 1000 // 60, 1000)
    shape: NDArray[np.int64] = np.full(TONE, 620, dtype=np.int64)
    if word == "pluck":
        left = (TONE - 1 - n) * 1000 // TONE
        shape = left * left // 1000
    elif word == "swell":
        shape = n * 1000 // TONE
    elif word == "tremolo":
        shape = 550 + 450 * _SINE[(n * 27) % 8000] // 32767
    return np.asarray(edge * shape // 1000, dtype=np.int64)


@lru_cache(maxsize=256)
def tone(shape: str, colour: str, size: str) -> NDArray[np.int64]:
    """Samples of one thing's tone (1200,)."""
    shares, envelope = _TIMBRE[shape]
    n = np.arange(TONE, dtype=np.int64)
    wave = sum(share * _SINE[(n * PITCH[colour] * k) % RATE] for k, share in enumerate(shares, start=1)) // 1000
    return wave * _envelope(envelope) // 1000 * int(LOUDNESS[size] * _PEAK) // 32767


@lru_cache(maxsize=8)
def _hum(word: str) -> NDArray[np.int64]:
    n = np.arange(SAMPLES, dtype=np.int64)
    return _SINE[(n * HUM_PITCH[word]) % RATE] * _HUM_PEAK // 32767


def samples(scene: Scene, noise: float = 0.0) -> NDArray[np.int16]:
    """Play the scene: (5760,) samples at 8 kHz.

    Args:
        scene: the scene.
        noise: standard deviation of the noise, as a share of the full range.
    """
    track = _hum(scene.hum).copy()
    for thing in scene.things:
        start = SLOT * (3 * thing.place[0] + thing.place[1])
        track[start : start + TONE] += tone(thing.shape, thing.colour, thing.size)
    if noise:
        track += (Stream(scene.seed, scene.row, TONES).bells(SAMPLES) * np.float32(32767 * noise)).astype(np.int64)
    return np.clip(track, -32768, 32767).astype("<i2")


def sound(scene: Scene, noise: float = 0.0) -> bytes:
    """Play the scene as a WAV file: 8 kHz, mono, 16 bits, 0.72 s."""
    body = samples(scene, noise).tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", len(body)
    )
    return header + body
