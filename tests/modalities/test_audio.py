"""Sound: reading, spectra, and the contract of its tokeniser."""

from __future__ import annotations

import io
import struct

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.audio import AudioModality, Spectrogram, decode_sound, encode_wav
from unisono.modalities.base import ColumnSample, Context
from unisono.modalities.signal import Signal, resample
from unisono.modalities.spectrogram import MelSettings, log_mel, mel_filterbank

COLUMN = Column("sound", "audio", "sound", 3)


def tone(seconds: float, hz: float = 440.0, rate: int = 8000) -> Signal:
    t = np.arange(int(seconds * rate)) / rate
    return Signal((0.5 * np.sin(2 * np.pi * hz * t) + 0.01 * np.cos(7000 * t**2)).astype(np.float32), rate)


def written(signal: Signal, kind: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, signal.values, int(signal.rate), format=kind, subtype=subtype)
    return buffer.getvalue()


def fitted(tokeniser: Spectrogram, signals: list[Signal]) -> Column:
    return Column("sound", "audio", "sound", 3, statistics=tokeniser.fit(COLUMN, [signals]))


FORMATS = [("WAV", "PCM_16", 1e-4), ("WAV", "FLOAT", 0), ("WAV", "PCM_24", 1e-6), ("FLAC", None, 1e-4)]


@pytest.mark.parametrize(("kind", "subtype", "close"), FORMATS)
def test_files_decode_to_their_samples(kind: str, subtype: str | None, close: float) -> None:
    signal = tone(0.2)
    found = decode_sound(written(signal, kind, subtype))
    assert found.rate == 8000
    np.testing.assert_allclose(found.values, signal.values, atol=close)


@pytest.mark.parametrize("kind", ["OGG", "MP3"])
def test_lossy_files_decode(kind: str) -> None:
    found = decode_sound(written(tone(0.5, rate=16000), kind))
    assert found.rate == 16000 and abs(len(found) - 8000) < 3000


def test_stereo_is_mixed_down() -> None:
    pair = np.stack([tone(0.1).values, -tone(0.1).values], 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, pair, 8000, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(decode_sound(buffer.getvalue()).values, 0, atol=1e-7)


def huge() -> bytes:
    head = bytearray(encode_wav(tone(0.01)))
    head[40:44] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(head)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is a text file that somebody named .wav", "no readable sound file.*begins with b'this is a te'"),
        (encode_wav(Signal(np.zeros(0, np.float32), 8000)), "zero samples"),
        (encode_wav(tone(0.5))[:1000], "truncated: its header promises 8,000 bytes of samples, 956 are there"),
        (huge(), "truncated"),
        (written(tone(2), "FLAC")[:2000], "truncated|no readable"),
        (written(Signal(np.array([0, np.nan, 1], np.float32), 8000), "WAV", "FLOAT"), "infinite or not numbers"),
    ],
    ids=["nothing", "text", "no samples", "cut short", "promising too much", "cut FLAC", "not numbers"],
)
def test_bad_files_say_why(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        decode_sound(data)


def test_samples_are_bounded_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unisono.modalities.audio.MAX_SAMPLES", 1000)
    for kind in ("WAV", "FLAC"):
        with pytest.raises(Unreadable, match="1,600 samples in 1 channels, more than the 1,000 allowed"):
            decode_sound(written(tone(0.2), kind))


def test_samples_with_a_rate() -> None:
    decode = AudioModality().decode
    found = decode({"values": [[0.0, 1.0], [0.5, 0.5]], "rate": 8000}, COLUMN, Context())
    assert found.rate == 8000 and found.values.tolist() == [0.5, 0.5]
    with pytest.raises(Unreadable, match="without a rate"):
        decode([0.0, 1.0], COLUMN, Context())
    with pytest.raises(Unreadable, match="positive number"):
        decode({"values": [0.0], "rate": -1}, COLUMN, Context())
    assert len(decode(encode_wav(tone(1)), COLUMN, Context(want={"rate": 4000}))) == 4000


def test_bad_cells_are_counted_and_the_rest_is_read() -> None:
    found = AudioModality().decode_many(pa.array([encode_wav(tone(0.1)), None, b"nothing"]), COLUMN, Context())
    assert [row for row, _ in found.bad] == [2] and found.cells[1] is None and len(found.cells[0]) == 800


def test_detection() -> None:
    def guess(values: list[object]) -> object:
        array = pa.array(values)
        return AudioModality().detect(ColumnSample("a", array.type, array, [v for v in values if v is not None]))

    assert guess([encode_wav(tone(0.1)), None]).confidence > 0.9
    assert guess(["a/b.wav", "c.FLAC"]).confidence > 0.9
    assert guess([{"bytes": encode_wav(tone(0.1)), "path": None}]).confidence > 0.9
    assert guess([{"values": [0.0, 1.0], "rate": 16000}]).confidence > 0.9
    assert guess([[encode_wav(tone(0.1))]]).many
    assert guess([{"values": [0.0, 1.0], "rate": 50}]) is None
    assert guess(["some words", "others"]) is None and guess([b"\x89PNG\r\n\x1a\n"]) is None


def test_log_mel_equals_the_sum_in_loops() -> None:
    settings = MelSettings(rate=1000, window=20, hop=10, n_fft=32, bands=4, low=20.0, high=480.0)
    x = np.random.default_rng(0).standard_normal(57).astype(np.float32)
    found = log_mel([np.ones(33, np.float32), x], settings, max_frames=100)
    assert found.counts.tolist() == [4, 6]
    bank = mel_filterbank(settings)
    for frame in range(6):
        power = np.zeros(17)
        for k in range(17):
            total = 0j
            for n in range(20):
                at = frame * 10 - 10 + n
                value = x[at] if 0 <= at < 57 else 0.0
                total += value * np.sin(np.pi * n / 20) ** 2 * np.exp(-2j * np.pi * k * n / 32)
            power[k] = abs(total) ** 2
        expected = [np.log(sum(power[k] * bank[k, m] for k in range(17))) for m in range(4)]
        np.testing.assert_allclose(found.values[4 + frame], expected, rtol=1e-4, atol=1e-4)


def test_filterbank_is_triangles_in_mels() -> None:
    settings = MelSettings.of(16000, 40, 25.0, 10.0)
    bank = mel_filterbank(settings)
    mels = np.linspace(2595 * np.log10(1 + settings.low / 700), 2595 * np.log10(1 + settings.high / 700), 42)
    edges = [700 * (10 ** (m / 2595) - 1) for m in mels]
    for m in (20, 30, 39):
        expected = []
        for k in range(257):
            f = k * 16000 / 512
            up, down = (f - edges[m]) / (edges[m + 1] - edges[m]), (edges[m + 2] - f) / (edges[m + 2] - edges[m + 1])
            expected.append(max(0.0, min(up, down)))
        np.testing.assert_allclose(bank[:, m], np.array(expected) / sum(expected), atol=1e-6)
    np.testing.assert_allclose(bank.sum(0), 1, atol=1e-5)


def test_resampling_keeps_a_tone() -> None:
    found = resample(tone(1, 300, 8000).values, 8000, 4000)
    assert len(found) == 4000 and np.abs(np.fft.rfft(found)).argmax() == 300


def test_long_sounds_have_bounded_tokens() -> None:
    tokeniser = Spectrogram(max_tokens=8)
    packed = tokeniser.pack([fitted(tokeniser, [tone(0.3)])], {"sound": [tone(5.0), tone(0.001)]}, None)
    counts = torch.bincount(packed.sample)
    assert counts.tolist() == [8, 1]
    assert 4.0 < float(packed.time[7]) < 5.0


def contract(tokeniser: Spectrogram) -> tuple[Column, torch.nn.Module, list[Signal | None]]:
    cells = [tone(0.4), None, tone(0.13, 900), tone(1.1, 200), Signal(np.zeros(50, np.float32), 8000.0)]
    column = fitted(tokeniser, [c for c in cells if c is not None])
    torch.manual_seed(0)
    return column, tokeniser.module([column], 16).eval(), cells


@pytest.mark.parametrize("level", ["utterance", "column"])
def test_batch_mates_do_not_interact(level: str) -> None:
    tokeniser = Spectrogram(level=level, channels=4)
    column, module, cells = contract(tokeniser)
    packed = tokeniser.pack([column], {"sound": cells}, None)
    whole = module(packed)
    assert len(whole) == len(packed) and 1 not in packed.sample and (packed.column == 3).all()
    for row, cell in enumerate(cells):
        alone = module(tokeniser.pack([column], {"sound": [cell]}, None))
        torch.testing.assert_close(whole[packed.sample == row], alone, rtol=0, atol=2e-6)


def test_an_empty_pack_has_no_tokens() -> None:
    tokeniser = Spectrogram(channels=4)
    column, module, _ = contract(tokeniser)
    for draw in (None, Draw(0, 0, np.array([5, 6]))):
        assert module(tokeniser.pack([column], {"sound": [None, None]}, draw)).shape == (0, 16)


def test_every_parameter_gets_gradient() -> None:
    tokeniser = Spectrogram(channels=4)
    column, module, cells = contract(tokeniser)
    module(tokeniser.pack([column], {"sound": cells}, None)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_augmentation_depends_on_the_row_alone() -> None:
    tokeniser = Spectrogram(channels=4)
    column, module, cells = contract(tokeniser)
    rows = np.array([7, 8, 9, 10, 11])
    packed = tokeniser.pack([column], {"sound": cells}, Draw(1, 2, rows))
    values = module(packed)
    alone = tokeniser.pack([column], {"sound": [cells[3]]}, Draw(1, 2, rows[3:4]))
    torch.testing.assert_close(values[packed.sample == 3], module(alone), rtol=0, atol=2e-6)
    other = tokeniser.pack([column], {"sound": [cells[3]]}, Draw(1, 3, rows[3:4]))
    assert other.inputs["line"].shape != alone.inputs["line"].shape or not torch.equal(other.inputs["line"], alone.inputs["line"])
