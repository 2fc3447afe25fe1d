"""Sound: recordings in files or bytes, or samples with a rate, as log-mel spectra before a small convolutional stem.

Letters: C sounds, N samples, F frames, M mel bands, T tokens, D width.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.media import media_bytes
from unisono.core.registry import Count, NonNegative, Positive
from unisono.core.schema import Column
from unisono.modalities.base import Cells, ColumnSample, Context, Guess, Items, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.signal import Signal, resample, split_rate
from unisono.modalities.spectrogram import WARP_LEVELS, Floats, MelSettings, Spectra, log_mel
from unisono.nn.stem1d import Line, SpectrogramStem

#: The largest sound that is decoded, in samples over all channels.
MAX_SAMPLES = 2**26
#: Rates below this are no sound but a series.
AUDIO_RATE = 2000.0
_EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_STREAMED = (0, 0xFFFFFFFF, 0x7FFFFFFF)


def looks_like_sound(head: bytes) -> bool:
    """Whether bytes begin like a WAV, FLAC, Ogg, MP3, AIFF or AU file."""
    if head[:4] in (b"RIFF", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    mpeg = len(head) > 1 and head[0] == 0xFF and (head[1] & 0xE6) in (0xE2, 0xE4, 0xE6)
    return head[:4] in (b"fLaC", b"OggS", b".snd") or head[:3] == b"ID3" or mpeg


@dataclass(frozen=True)
class _Wav:
    code: int
    channels: int
    rate: int
    bits: int
    start: int
    size: int


def _wav_header(data: bytes) -> _Wav | None:
    """The format and data chunk of a RIFF WAVE file; None when it is none or has no such chunks."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    place, found = 12, None
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        if name == b"fmt " and place + 24 <= len(data):
            code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, place + 8)
            if code == _EXTENSIBLE and size >= 40 and place + 34 <= len(data):
                code = struct.unpack_from("<H", data, place + 32)[0]
            found = (code, channels, rate, bits)
        elif name == b"data":
            return _Wav(*found, place + 8, size) if found else None
        place += 8 + size + size % 2
    return None


def _bounded(frames: int, channels: int) -> None:
    if frames <= 0:
        raise Unreadable("the sound has zero samples")
    if frames * channels > MAX_SAMPLES:
        raise Unreadable(f"the sound has {frames:,} samples in {channels} channels, more than the {MAX_SAMPLES:,} allowed")


def _read_wav(data: bytes, wav: _Wav) -> Floats | None:
    """The (N, channels) samples of 16-bit or float WAV data; None for formats that are left to libsndfile."""
    present = len(data) - wav.start
    step = max(wav.channels * wav.bits // 8, 1)
    if wav.size not in _STREAMED and wav.size > present:
        raise Unreadable(f"the WAV file is truncated: its header promises {wav.size:,} bytes of samples, {present:,} are there")
    frames = (present if wav.size in _STREAMED[1:] else wav.size) // step
    _bounded(frames, wav.channels)
    raw = memoryview(data)[wav.start : wav.start + frames * step]
    if (wav.code, wav.bits) == (_PCM, 16):
        samples = np.frombuffer(raw, "<i2").astype(np.float32) * np.float32(2.0**-15)
    elif (wav.code, wav.bits) == (_FLOAT, 32):
        samples = np.frombuffer(raw, "<f4").astype(np.float32)
    else:
        return None
    return samples.reshape(frames, wav.channels)


def decode_sound(data: bytes) -> Signal:
    """Decode a sound file to mono.

    Plain WAV is read directly, everything else by libsndfile (FLAC, Ogg, MP3, AIFF and other WAV). The number of samples is
    bounded from the header before anything is decoded.

    Raises:
        Unreadable: no sound file, zero samples, truncated, too large, or samples that are not finite.
    """
    if not data:
        raise Unreadable("the sound file is empty")
    wav = _wav_header(data)
    if wav is not None and wav.channels and wav.rate:
        samples = _read_wav(data, wav)
        if samples is not None:
            return _mono(samples, wav.rate)
    return _decode_with_libsndfile(data)


def _decode_with_libsndfile(data: bytes) -> Signal:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _bounded(file.frames, file.channels)
            samples, promised = file.read(dtype="float32", always_2d=True), file.frames
            rate, kind = file.samplerate, file.format
    except (soundfile.SoundFileError, RuntimeError) as error:
        head = "" if looks_like_sound(data[:16]) else f" (it begins with {data[:12]!r})"
        raise Unreadable(f"no readable sound file{head}: {str(error).rsplit(': ', 1)[-1].rstrip('.')}") from None
    if len(samples) < promised and kind != "MP3":
        raise Unreadable(f"the {kind} file is truncated: {promised:,} samples promised, {len(samples):,} are there")
    return _mono(samples, rate)


def _mono(samples: Floats, rate: float) -> Signal:
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise Unreadable("the sound holds samples that are infinite or not numbers")
    return Signal(np.ascontiguousarray(mono), float(rate))


def _samples(values: Any, rate: float) -> Signal:
    if np.isnan(rate):
        raise Unreadable("samples without a rate: give {values, rate}, or the column option rate (Hz)")
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise Unreadable("the samples are no list of numbers, or rows of different lengths") from None
    if array.ndim not in (1, 2):
        raise Unreadable(f"samples have the shape (time) or (time, channel), got {array.ndim} dimensions")
    _bounded(len(array), 1 if array.ndim == 1 else array.shape[1])
    return _mono(array.reshape(len(array), -1), rate)


@modalities.register("audio")
class AudioModality(Modality):
    """Recordings: wav, flac, ogg or mp3 as bytes or path, or samples with a rate."""

    name: ClassVar[str] = "audio"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim sound files by their first bytes or their extension, and samples at a rate of sound."""
        if sample.hint == self.name:
            return Guess(1.0, "the file's metadata says audio", many=_is_list(sample.type))
        values = [v for v in sample.values if v is not None]
        many = bool(values) and all(isinstance(v, list) for v in values)
        items = [v for cell in values for v in cell if v is not None] if many else values
        if not items:
            return None
        known = [_kind(v) for v in items[:200]]
        share = sum(k is not None for k in known) / len(known)
        if share < 0.5:
            return None
        what = next(k for k in known if k is not None)
        return Guess(0.95 if share == 1 else 0.8, f"{share:.0%} of the cells are {what}", many=many)

    def decode(self, cell: Any, column: Column, context: Context) -> Signal:
        """Decode one sound to mono float32 at its own rate, or at the rate the tokeniser wants."""
        if (isinstance(cell, dict) and "values" in cell) or isinstance(cell, list):
            signal = _samples(*split_rate(cell, column.options))
        else:
            signal = decode_sound(media_bytes(cell, context.root))
        rate = context.want.get("rate")
        return signal if rate is None else Signal(resample(signal.values, signal.rate, rate), float(rate))

    def show(self, cell: Any) -> Any:
        """A 16-bit WAV file for a player."""
        return {"kind": "audio", "data": encode_wav(cell), "type": "audio/wav"}


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _kind(value: Any) -> str | None:
    """What kind of sound cell a value is, in words; None when it is none."""
    if isinstance(value, dict):
        if value.get("values") is not None:
            rate = value.get("rate")
            flat = isinstance(value["values"], list | np.ndarray) and len(value["values"]) and np.ndim(value["values"][0]) == 0
            return "samples with a rate of sound" if flat and isinstance(rate, int | float) and rate >= AUDIO_RATE else None
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes | bytearray | memoryview):
        return "sound files by their first bytes" if looks_like_sound(bytes(value[:16])) else None
    if isinstance(value, str):
        return "paths of sound files" if value.lower().endswith(_EXTENSIONS) else None
    return None


def encode_wav(signal: Signal) -> bytes:
    """A mono 16-bit WAV file of a sound."""
    pcm = np.round(np.clip(signal.values, -1, 1) * 32767).astype("<i2").tobytes()
    rate = round(signal.rate)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", len(pcm))
    return head + pcm


@tokenisers.register("spectrogram", source="Davis and Mermelstein 1980; augmentation: arXiv:1904.08779, Jaitly and Hinton 2013")
class Spectrogram(Tokeniser):
    """Log-mel spectra, a small convolutional stem, and one token for every four frames.

    Args:
        bands: mel bands.
        window: milliseconds in a frame.
        hop: milliseconds from frame to frame.
        channels: of the stem's first convolution; the others have twice and twice as many.
        max_rate: sounds with more samples a second are resampled to this.
        max_tokens: the most tokens of one sound; the hop of longer sounds grows.
        level: ``utterance`` takes each sound's own mean off every band, which forgets speaker and channel; ``column`` the training mean.
        augment: strength of the augmentation in training; 0 for none.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"audio"})
    STRIDE: ClassVar[int] = 4

    def __init__(
        self,
        *,
        bands: Annotated[int, Ge(8), Le(256)] = 24,
        window: Positive = 16.0,
        hop: Positive = 10.0,
        channels: Count = 16,
        max_rate: Positive = 16000.0,
        max_tokens: Count = 256,
        level: Literal["utterance", "column"] = "utterance",
        augment: NonNegative = 0.6,
    ) -> None:
        self.bands, self.window, self.hop, self.channels = bands, window, hop, channels
        self.max_rate, self.max_tokens, self.level, self.augment = max_rate, max_tokens, level, augment

    def wants(self, column: Column) -> Mapping[str, Any]:
        """The rate that training sounds have."""
        return {"rate": column.statistics["rate"]} if "rate" in column.statistics else {}

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """The commonest rate, and mean and spread of every band."""
        rates: dict[int, int] = {}
        count, total, square, spread = 0, np.zeros(self.bands), np.zeros(self.bands), np.zeros(self.bands)
        held: list[Signal] = []
        for cells in chunks:
            held.extend(Items.of(column, cells).arrays)
            for signal in held:
                rates[round(signal.rate)] = rates.get(round(signal.rate), 0) + 1
        rate = min(max(rates, key=lambda r: (rates[r], r)), round(self.max_rate)) if rates else round(self.max_rate)
        settings = MelSettings.of(rate, self.bands, self.window, self.hop)
        for k in range(0, len(held), 256):
            spectra = self._spectra([resample(s.values, s.rate, rate) for s in held[k : k + 256]], settings)
            x = spectra.values.astype(np.float64)
            owner = np.repeat(np.arange(len(spectra.counts)), spectra.counts)
            centred = x - _means(spectra)[owner]
            count, total, square = count + len(x), total + x.sum(0), square + (x**2).sum(0)
            spread += (centred**2).sum(0)
        mean = total / max(count, 1)
        own = np.sqrt(np.maximum(spread / max(count, 1), 1e-4))
        std = own if self.level == "utterance" else np.sqrt(np.maximum(square / max(count, 1) - mean**2, 1e-4))
        return {"rate": rate, "mean": mean.round(5).tolist(), "std": std.round(5).tolist()}

    def _spectra(self, sounds: Sequence[Floats], settings: MelSettings, **augmented: Any) -> Spectra:
        return log_mel(sounds, settings, max_frames=self.max_tokens * self.STRIDE, **augmented)

    def spectra(self, signals: Sequence[Signal], column: Column, u: NDArray[np.float64] | None) -> Spectra:
        """Normalised log-mel spectra, augmented by uniform numbers ``u`` (C, 16) where they are given."""
        rate = int(column.statistics["rate"])
        sounds = [resample(s.values, s.rate, rate) for s in signals]
        if u is None:
            found = self._spectra(sounds, MelSettings.of(rate, self.bands, self.window, self.hop))
            return replace(found, values=self._normalise(found, column))
        settings = MelSettings.of(rate, self.bands, self.window, self.hop, 0.25 * min(self.augment, 1.5))
        found = self._spectra(sounds, settings, **_perturb(u, self.augment))
        _add_noise(found, u, self.augment)
        found = replace(found, values=self._normalise(found, column))
        _mask(found.values, found.counts, u[:, 8:], self.augment)
        return found

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """Spectra of all sounds on one line, with the places of the stem's outputs."""
        (column,) = columns
        items = Items.of(column, cells[column.name])
        u = None if draw is None or self.augment == 0 else draw.at(items.sample).uniform(f"audio.{column.name}", 16)
        spectra = self.spectra(items.arrays, column, u)
        line = Line.of(spectra.counts, self.STRIDE, 4)
        owner = np.repeat(np.arange(len(items.arrays)), line.tokens)
        within = line.outputs - line.starts[owner] // self.STRIDE
        time = (within * self.STRIDE * spectra.hops[owner]).astype(np.float32)
        inputs = {"line": torch.from_numpy(line.lay(spectra.values)[None]), "mask": torch.from_numpy(line.mask)}
        inputs |= {"outputs": torch.from_numpy(line.outputs), "phase": torch.from_numpy((within / line.tokens[owner]).astype(np.float32))}
        return Packed.of(inputs, items.sample[owner], column.index, item=items.item[owner], place=within[:, None], time=time)

    def _normalise(self, spectra: Spectra, column: Column) -> Floats:
        std = np.array(column.statistics["std"], np.float32)
        if self.level == "column":
            return np.asarray((spectra.values - np.array(column.statistics["mean"], np.float32)) / std, np.float32)
        owner = np.repeat(np.arange(len(spectra.counts)), spectra.counts)
        return np.asarray((spectra.values - _means(spectra)[owner]) / std, np.float32)

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The stem with places added."""
        return SpectrogramModule(bands=self.bands, channels=self.channels, width=width)


def _means(spectra: Spectra) -> Floats:
    """(C, M) mean over each sound's frames."""
    if not len(spectra.counts):
        return np.zeros((0, spectra.values.shape[1]), np.float32)
    sums = np.add.reduceat(spectra.values, np.cumsum(spectra.counts) - spectra.counts, axis=0)
    return np.asarray(sums / spectra.counts[:, None], np.float32)


def _perturb(u: NDArray[np.float64], strength: float) -> dict[str, Any]:
    """Speed, shift in time and frequency warp of each sound, from uniform numbers (C, 16)."""
    level = np.round((u[:, 2] * 2 - 1) * min(strength, 1.0) * (WARP_LEVELS // 2)).astype(np.int64) + WARP_LEVELS // 2
    return {"stretch": np.exp((u[:, 0] * 2 - 1) * 0.25 * strength), "shift": (u[:, 1] - 0.5) * 4 * strength, "warp": level}


def _add_noise(spectra: Spectra, u: NDArray[np.float64], strength: float) -> None:
    """Tilt the spectrum and raise a noise floor, in place: log(e^x + e^n), n between 25 and 70 dB under the loudest band."""
    if not len(spectra.counts):
        return
    owner = np.repeat(np.arange(len(spectra.counts)), spectra.counts)
    x = spectra.values
    slope = np.linspace(-1, 1, x.shape[1], dtype=np.float32)
    x += ((u[:, 3] * 2 - 1) * 1.5 * strength)[owner, None].astype(np.float32) * slope
    peak = np.maximum.reduceat(x.max(1), np.cumsum(spectra.counts) - spectra.counts)
    noise = peak - np.float32(np.log(10) / 10) * (70 - 45 * u[:, 4] * min(strength, 1.0)).astype(np.float32)
    floor = np.exp(noise[:, None] + slope * (u[:, 5:6] * 2 - 1).astype(np.float32))
    np.exp(x, out=x)
    x += floor[owner]
    np.log(x, out=x)


def _mask(values: Floats, counts: NDArray[np.int64], u: NDArray[np.float64], strength: float) -> None:
    """SpecAugment's masks, in place: one of up to a fifth of the frames, two of up to a fifth of the bands, at strength 1."""
    bands = values.shape[1]
    owner = np.repeat(np.arange(len(counts)), counts)
    frame = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = 0.2 * min(strength, 2.0)
    long = u[:, 0] * share * counts
    start = u[:, 1] * (counts - long)
    hidden = (frame >= start[owner]) & (frame < (start + np.floor(long))[owner])
    wide, low = u[:, 2:4] * share * bands, u[:, 4:6]
    first = low * (bands - wide)
    band = np.arange(bands)[None, :, None]
    cover = ((band >= first[:, None]) & (band < (first + np.floor(wide))[:, None])).any(2)
    values[cover[owner] | hidden[:, None]] = 0.0


class SpectrogramModule(nn.Module):
    """The weights of ``spectrogram``: stem, place in the sound, norm."""

    def __init__(self, *, bands: int, channels: int, width: int) -> None:
        super().__init__()
        self.stem = SpectrogramStem(bands=bands, channels=(channels, 2 * channels, 4 * channels), width=width)
        self.place = nn.Linear(16, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, packed: Packed) -> Tensor:
        """(T, width) token values."""
        x = packed.inputs
        values = self.stem(x["line"], x["mask"], x["outputs"])
        k = torch.arange(1, 9, device=values.device, dtype=values.dtype) * (torch.pi / 2)
        angle = x["phase"][:, None].to(values.dtype) * k
        return self.norm(values) + self.place(torch.cat([angle.sin(), angle.cos()], 1))  # type: ignore[no-any-return]
