"""Log-mel spectra of many sounds at once, with the augmentations that cost nothing there.

Letters: C sounds, N samples, F frames of all sounds together, W window, K = n_fft / 2 + 1 frequency bins, M mel bands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
#: How many distinct warps of the frequency axis there are between the strongest compression and stretch.
WARP_LEVELS = 33
_BLOCK = 1024


@dataclass(frozen=True)
class MelSettings:
    """What a log-mel spectrum is made with.

    Attributes:
        rate: samples a second.
        window: samples in a frame.
        hop: samples from one frame to the next.
        n_fft: length of the transform.
        bands: M.
        low: lowest frequency in Hz.
        high: highest frequency in Hz.
        warp: the strongest factor on the frequency axis less one, for augmentation.
    """

    rate: int
    window: int
    hop: int
    n_fft: int
    bands: int
    low: float
    high: float
    warp: float = 0.0

    @classmethod
    def of(cls, rate: int, bands: int, window_ms: float, hop_ms: float, warp: float = 0.0) -> MelSettings:
        """Settings for a rate: the window in milliseconds, the transform the next power of two, the band up to 0.95 Nyquist."""
        window = max(round(rate * window_ms / 1000), 8)
        n_fft = 1 << (window - 1).bit_length()
        hop = max(round(rate * hop_ms / 1000), 1)
        return cls(rate, window, hop, n_fft, bands, min(40.0, rate / 40), rate * 0.475, warp)


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mels of a frequency: 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of ``hz_to_mel``."""
    return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


def mel_filterbank(settings: MelSettings, factor: float = 1.0) -> Floats:
    """Triangular filters, evenly spaced in mels.

    Filter m rises from edge m to 1 at edge m + 1 and falls to 0 at edge m + 2, in mels, and is scaled to sum to one over the bins. A
    filter narrower than a bin takes the bin nearest to its centre. The edges are multiplied by ``factor``: the vocal-tract-length
    perturbation of Jaitly and Hinton (2013) without its knee, bounded by Nyquist.

    Args:
        settings: the band and transform.
        factor: on every edge's frequency.

    Returns:
        (K, M) float32.
    """
    low, high = hz_to_mel(np.array([settings.low, settings.high]))
    edges = mel_to_hz(np.linspace(float(low), float(high), settings.bands + 2)) * factor
    edges = np.minimum(edges, settings.rate / 2)
    bins = np.arange(settings.n_fft // 2 + 1) * (settings.rate / settings.n_fft)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rise = (bins[:, None] - left) / np.maximum(centre - left, 1e-9)
    fall = (right - bins[:, None]) / np.maximum(right - centre, 1e-9)
    bank = np.clip(np.minimum(rise, fall), 0.0, 1.0)
    empty = np.flatnonzero(bank.sum(0) <= 0)
    bank[np.abs(bins[:, None] - centre[empty]).argmin(0), empty] = 1.0
    return np.asarray(bank / bank.sum(0), np.float32)


@functools.lru_cache(maxsize=16)
def _banks(settings: MelSettings) -> Floats:
    """(WARP_LEVELS, K, M): a filterbank for every warp, the middle one without."""
    exponents = np.linspace(-1, 1, WARP_LEVELS) * np.log1p(settings.warp)
    return np.stack([mel_filterbank(settings, float(np.exp(e))) for e in exponents])


@functools.lru_cache(maxsize=16)
def hann(window: int) -> Floats:
    """The periodic Hann window: sin^2(pi n / W)."""
    return np.asarray(np.sin(np.pi * np.arange(window) / window) ** 2, np.float32)


@dataclass(frozen=True)
class Spectra:
    """Log-mel spectra of C sounds, one behind the other.

    Attributes:
        values: (F, M) natural logarithms of band power.
        counts: (C,) frames of each sound.
        hops: (C,) seconds from frame to frame.
    """

    values: Floats
    counts: NDArray[np.int64]
    hops: NDArray[np.float64]


def log_mel(
    sounds: Sequence[Floats],
    settings: MelSettings,
    *,
    max_frames: int,
    stretch: NDArray[np.float64] | None = None,
    shift: NDArray[np.float64] | None = None,
    warp: NDArray[np.int64] | None = None,
) -> Spectra:
    """Log-mel spectra: log(max(sum_k |rfft(w x)_k|^2 fb_km, floor)).

    Frame i of a sound is centred on sample (i + shift) hop, outside samples count as zero, and there are ceil(N / hop) frames. The
    floor is 80 dB under the sound's strongest band (1e-10 for silence). A sound longer than ``max_frames`` frames gets a
    longer hop, so that it is always covered whole.

    Args:
        sounds: C arrays (N,) at ``settings.rate``, none empty.
        settings: window, hop, bands.
        max_frames: the largest number of frames of one sound.
        stretch: (C,) factors on the hop: above one makes a sound faster without changing its pitch.
        shift: (C,) shifts in hops.
        warp: (C,) index of a frequency warp, 0 to WARP_LEVELS - 1; None for no warp.
    """
    lengths = np.array([len(s) for s in sounds], np.int64)
    hop = settings.hop * (np.ones(len(lengths)) if stretch is None else stretch)
    hop = np.maximum(hop, lengths / max_frames)
    counts = np.clip(np.ceil(lengths / hop - 1e-9).astype(np.int64), 1, max_frames)
    gap = settings.window
    offsets = np.concatenate([[0], np.cumsum(lengths + gap)]) + gap
    line = np.zeros(int(offsets[-1]) + gap, np.float32)
    for sound, start in zip(sounds, offsets[:-1], strict=True):
        line[start : start + len(sound)] = sound
    owner = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    centre = (within + (0.0 if shift is None else shift[owner])) * hop[owner]
    low = -(settings.window // 2)
    starts = offsets[owner] + np.clip(np.round(centre).astype(np.int64) + low, -gap, lengths[owner])
    power = _band_power(line, starts, settings, None if warp is None else warp[owner])
    if not len(power):
        return Spectra(power, counts, hop / settings.rate)
    peak = np.maximum.reduceat(power.max(1), np.cumsum(counts) - counts)
    floor = np.maximum(peak * 1e-8, 1e-10).astype(np.float32)
    return Spectra(np.log(np.maximum(power, floor[owner, None])), counts, hop / settings.rate)


def _band_power(line: Floats, starts: NDArray[np.int64], settings: MelSettings, warp: NDArray[np.int64] | None) -> Floats:
    """(F, M) power in each band of the frames that begin at ``starts``; frames of one warp are multiplied together."""
    power = np.empty((len(starts), settings.bands), np.float32)
    banks, window = _banks(settings), hann(settings.window)
    frames = np.lib.stride_tricks.sliding_window_view(line, settings.window)
    levels = np.full(len(starts), WARP_LEVELS // 2) if warp is None else warp
    order = np.argsort(levels, kind="stable")
    for first in range(0, len(order), _BLOCK):
        chosen = order[first : first + _BLOCK]
        energy = _energy(frames[starts[chosen]] * window, settings.n_fft)
        ends = np.append(np.flatnonzero(np.diff(levels[chosen])) + 1, len(chosen))
        mixed = np.empty((len(chosen), settings.bands), np.float32)
        for begin, end in pairwise([0, *ends.tolist()]):
            np.matmul(energy[begin:end], banks[levels[chosen[begin]]], out=mixed[begin:end])
        power[chosen] = mixed
    return power


def _energy(frames: Floats, n_fft: int) -> Floats:
    """Squared magnitudes (F, K) of the Fourier transform of windowed frames, which are overwritten."""
    from scipy.fft import rfft

    spectrum = rfft(frames, n_fft, axis=1, overwrite_x=True)
    parts = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
    np.square(parts, out=parts)
    return np.asarray(parts[..., 0] + parts[..., 1], np.float32)
