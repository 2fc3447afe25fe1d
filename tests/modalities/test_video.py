from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.schema import Column
from unisono.modalities.base import ColumnSample, Context
from unisono.modalities.video import Clip, Frames, VideoModality, evenly

COLUMN = Column("clip", "video", "clip", 1)
VIDEO = VideoModality()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def animation(frames: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    images = [Image.fromarray(f) for f in frames]
    images[0].save(stream, kind, save_all=True, append_images=images[1:], duration=250, loop=0)
    return stream.getvalue()


def movie(frames: np.ndarray, rate: int = 10) -> bytes:
    av = pytest.importorskip("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track = container.add_stream("mpeg4", rate=rate)
        track.height, track.width, track.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(track.encode())
    return stream.getvalue()


def test_animated_png_keeps_frames_and_times() -> None:
    frames = noise(5, 6, 8, 3)
    clip = VIDEO.decode(animation(frames), COLUMN, Context())
    assert (clip.frames == frames).all()
    assert np.allclose(clip.times, np.arange(5) * 0.25)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_movie_is_sampled_evenly(count: int) -> None:
    levels = np.linspace(20, 230, count).astype(np.uint8)
    clip = VIDEO.decode(movie(np.broadcast_to(levels[:, None, None, None], (count, 32, 48, 3)).copy()), COLUMN, Context())
    assert clip.frames.shape == (min(count, 8), 32, 48, 3) and clip.times[0] == 0
    expected = np.interp(clip.times * 10 + (clip.frames[0].mean() - 20) / max(1e-9, 210 / max(1, count - 1)), np.arange(count), levels)
    assert np.abs(clip.frames.mean((1, 2, 3)) - expected).max() < 12
    assert VIDEO.decode(movie(noise(3, 32, 48, 3)), COLUMN, Context(want={"size": (10, 12)})).frames.shape[1:] == (10, 12, 3)


def test_arrays_have_a_rate() -> None:
    clip = VIDEO.decode({"values": noise(16, 4, 5, 3).tolist(), "rate": 4.0}, COLUMN, Context())
    assert clip.frames.shape == (8, 4, 5, 3) and np.allclose(np.diff(clip.times), 0.5)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b"", "zero bytes"),
        (b"plain text", "no video, or truncated"),
        (animation(noise(4, 20, 20, 3))[:900], "truncated or damaged"),
        (noise(4, 4), "has the shape"),
        (noise(0, 4, 4, 3), "holds nothing"),
        ({"values": noise(2, 4, 4, 3).tolist(), "rate": -1.0}, "not above zero"),
    ],
)
def test_bad_cells_say_why(cell: object, message: str) -> None:
    pytest.importorskip("av")
    with pytest.raises(Unreadable, match=message):
        VIDEO.decode(cell, COLUMN, Context())


def test_size_is_bounded_before_decoding() -> None:
    small = replace(COLUMN, options={"max_pixels": 500})
    for cell in (animation(noise(4, 20, 20, 3)), movie(noise(4, 32, 32, 3))):
        with pytest.raises(Unreadable, match="allowed"):
            VIDEO.decode(cell, small, Context())


def test_detection() -> None:
    def guess(values: list) -> object:
        array = pa.array(values)
        return VIDEO.detect(ColumnSample("clip", array.type, array, values))

    for values in (
        [movie(noise(2, 32, 32, 3))],
        [animation(noise(3, 9, 9, 3))],
        [animation(noise(3, 9, 9, 3), "GIF")],
        ["a.mp4"],
        [noise(2, 4, 4, 3).tolist()],
    ):
        assert guess(values) is not None
    for values in (["a.gif"], ["text"], [b"\x89PNG\r\n\x1a\n"], [noise(4, 4, 3).tolist()]):
        assert guess(values) is None


def test_tokens_of_a_clip() -> None:
    torch.manual_seed(0)
    tokeniser = Frames(base=8)
    clips = [Clip(noise(n, 20, 24, 3, seed=n), np.arange(n, dtype=np.float32)) for n in (1, 8, 12)]
    column = replace(COLUMN, statistics=tokeniser.fit(COLUMN, [clips, [None]]))
    module = tokeniser.module([column], 16)
    packed = tokeniser.pack([column], {"clip": [clips[0], None, *clips[1:]]}, None)
    assert packed.sample.bincount().tolist() == [4, 0, 32, 32]
    assert packed.place[:, 0].max() == 7 and packed.time.max() == 11
    module.eval()
    alone = module(tokeniser.pack([column], {"clip": [clips[2]]}, None))
    assert torch.allclose(module(packed)[packed.sample == 3], alone, atol=1e-5)
    assert module(tokeniser.pack([column], {"clip": [None]}, None)).shape == (0, 16)
    values = module(tokeniser.pack([column], {"clip": clips}, Draw(0, 0, np.arange(3))))
    (values * torch.randn_like(values)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    again = module(tokeniser.pack([column], {"clip": clips[1:]}, Draw(0, 0, np.arange(1, 3))))
    assert torch.allclose(values[4:], again, atol=1e-5)


def test_evenly_takes_the_middles() -> None:
    assert evenly(3, 8).tolist() == [0, 1, 2]
    assert evenly(8, 2).tolist() == [2, 6]


def test_show_is_an_animation() -> None:
    assert VIDEO.show(Clip(noise(2, 4, 4, 3), np.arange(2, dtype=np.float32)))["data"].startswith(b"\x89PNG")
