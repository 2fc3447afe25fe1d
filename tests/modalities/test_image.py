from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from unisono.core.draw import Draw
from unisono.core.errors import ConfigError, Unreadable
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.modalities.base import ColumnSample, Context
from unisono.modalities.image import LARGE, PLENTY, SMALL, ImageModality, Patches
from unisono.nn.stem import ScalesStem

COLUMN = Column("photo", "image", "photo", 3)
IMAGE = ImageModality()


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def sample_of(array: pa.Array, root: Path | None = None, hint: str | None = None) -> ColumnSample:
    return ColumnSample("photo", array.type, array, [v for v in array.to_pylist() if v is not None], hint, root)


def fitted(tokeniser: Patches, cells: list) -> Column:
    return replace(COLUMN, statistics=tokeniser.fit(COLUMN, [cells]))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_lossless_files_decode_to_their_pixels(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    assert (IMAGE.decode(encoded(array), COLUMN, Context()) == array.reshape(5, 7, -1)).all()


def test_jpeg_decodes_as_pillow_does() -> None:
    data = encoded(np.asarray(Image.fromarray(noise(6, 9, 3)).resize((90, 60), Image.Resampling.BICUBIC)), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(image.convert("RGB"))
        small = np.asarray(image.convert("RGB").resize((32, 40), Image.Resampling.BILINEAR)).astype(int)
    assert (IMAGE.decode(data, COLUMN, Context()) == plain).all()
    ours = IMAGE.decode(data, COLUMN, Context(want={"size": (40, 32)})).astype(int)
    assert np.abs(ours - small).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    image = Image.fromarray(noise(4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    with Image.open(io.BytesIO(stream.getvalue())) as again:
        expected = np.asarray(ImageOps.exif_transpose(again))
    assert (IMAGE.decode(stream.getvalue(), COLUMN, Context()) == expected).all()
    assert IMAGE.decode(stream.getvalue(), COLUMN, Context(want={"size": (3, 5)})).shape == (3, 5, 3)


def test_modes_come_to_bytes_or_floats() -> None:
    deep = np.array([[0, 65535], [257, 514]], np.uint16)
    assert np.allclose(IMAGE.decode(encoded(deep), COLUMN, Context())[..., 0], [[0, 255], [1, 2]])
    stream = io.BytesIO()
    Image.fromarray(noise(4, 4, 3)).convert("P").save(stream, "PNG")
    assert IMAGE.decode(stream.getvalue(), COLUMN, Context()).shape == (4, 4, 3)
    stream = io.BytesIO()
    Image.fromarray(noise(4, 4, 3)).convert("CMYK").save(stream, "JPEG")
    assert IMAGE.decode(stream.getvalue(), COLUMN, Context()).shape == (4, 4, 3)


def test_transparent_colours_lie_on_white_and_opacity_stays() -> None:
    array = noise(4, 4, 4)
    array[0, 0] = (9, 9, 9, 0)
    array[1, 1] = (10, 20, 30, 255)
    decoded = IMAGE.decode(encoded(array), COLUMN, Context())
    assert decoded[0, 0].tolist() == [255, 255, 255, 0]
    assert decoded[1, 1].tolist() == [10, 20, 30, 255]


def test_arrays_and_lists_are_pictures_too() -> None:
    stream = io.BytesIO()
    np.save(stream, np.arange(12.0).reshape(3, 4))
    assert IMAGE.decode(stream.getvalue(), COLUMN, Context()).dtype == np.float32
    assert IMAGE.decode([[0, 255], [1, 2]], COLUMN, Context()).dtype == np.uint8
    assert IMAGE.decode(np.zeros((3, 8, 9)), COLUMN, Context()).shape == (8, 9, 3)


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([None], object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (encoded(noise(30, 30, 3))[:900], "truncated or damaged"),
        (encoded(noise(60, 60, 3), "JPEG")[:900], "truncated or damaged"),
        (encoded(noise(30, 30, 3))[:20], "truncated or damaged"),
        (encoded(noise(30, 30, 3), "JPEG")[:20], "begins like JPEG"),
        (b"", "zero bytes"),
        (b"not a picture", "it is text, beginning with 'not a picture'"),
        (b"\x00\x01\x02\x03\xff", "format is unknown"),
        ("absent.png", "does not exist"),
        ("../outside.png", "leaves the folder"),
        ([[1, 2], [3]], "ragged"),
        ([[1, None]], "no number"),
        ([1, 2, 3], "has the shape"),
        (np.zeros((0, 3)), "holds nothing"),
        ([[1.0, float("inf")]], "infinity"),
        (_pickled(), "object instead of numbers"),
        (7, "expected bytes, a path"),
    ],
)
def test_bad_cells_say_why(cell: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=message):
        IMAGE.decode(cell, COLUMN, Context(root=tmp_path))


def test_text_named_png_and_bombs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(Unreadable, match="it is text"):
        IMAGE.decode("a.png", COLUMN, Context(root=tmp_path))
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, "PNG")
    with pytest.raises(Unreadable, match=r"9,000 x 9,000 pixels, more than the 67,108,864"):
        IMAGE.decode(stream.getvalue(), COLUMN, Context())
    with pytest.raises(Unreadable, match="more than the 100 allowed"):
        IMAGE.decode(encoded(noise(11, 11)), replace(COLUMN, options={"max_pixels": 100}), Context())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    with pytest.raises(Unreadable, match="more than"):
        IMAGE.decode(header.getvalue(), COLUMN, Context())


def test_detection(tmp_path: Path) -> None:
    data = encoded(noise(8, 8, 3))
    (tmp_path / "a.png").write_bytes(data)
    confident = [
        sample_of(pa.array([data, None])),
        sample_of(pa.array([{"bytes": data, "path": "a.png"}])),
        sample_of(pa.array(["a.png"]), tmp_path),
        sample_of(pa.array([["a.png", "a.png"]]), tmp_path),
        sample_of(pa.array([noise(8, 8).tolist()])),
        sample_of(pa.array(["x"]), hint="image"),
    ]
    for sample in confident:
        guess = IMAGE.detect(sample)
        assert guess is not None and guess.confidence >= 0.85
    many = IMAGE.detect(confident[3])
    assert many is not None and many.many
    for other in (
        pa.array(["a cat", "a dog"]),
        pa.array([1.0]),
        pa.array([b"RIFF"]),
        pa.array([[1.0, 2.0]]),
        pa.array([None], pa.string()),
    ):
        assert IMAGE.detect(sample_of(other)) is None


def test_bad_cells_of_a_chunk_are_missing_and_counted() -> None:
    decoded = IMAGE.decode_many(pa.array([encoded(noise(4, 4)), None, b"x"]), COLUMN, Context())
    assert [c is None for c in decoded.cells] == [False, True, True]
    assert [row for row, _ in decoded.bad] == [2]


def test_fit_keeps_small_sizes_and_finds_channels() -> None:
    tokeniser = Patches()
    assert tokeniser.fit(COLUMN, [[noise(28, 28, 1)]])["size"] == [28, 28]
    assert tokeniser.fit(COLUMN, [[noise(100, 200, 3)], [None]])["size"] == [16, 32]
    assert tokeniser.fit(COLUMN, [[np.repeat(noise(9, 9, 1), 3, -1)]])["channels"] == 1
    opaque = np.concatenate([noise(9, 9, 3), np.full((9, 9, 1), 255, np.uint8)], -1)
    assert tokeniser.fit(COLUMN, [[opaque]])["channels"] == 3
    assert tokeniser.fit(COLUMN, [[noise(9, 9, 4)]])["channels"] == 4
    found = tokeniser.fit(COLUMN, [[np.full((5, 5, 2), 7, np.float32), None]])
    assert found["mean"] == [7, 7] and found["std"] == [1, 1]
    assert tokeniser.fit(COLUMN, [[None]])["channels"] == 1


@pytest.mark.parametrize(("count", "size", "side"), [(PLENTY - 1, None, SMALL), (PLENTY, None, LARGE), (1, 50, 50), (PLENTY, 50, 50)])
def test_few_pictures_are_read_small(count: int, size: int | None, side: int) -> None:
    cells: list[np.ndarray | None] = [noise(70, 70, 1)] * count
    assert Patches(size=size).fit(COLUMN, [[None], cells[: count // 2], cells[count // 2 :]])["size"] == [side, side]


@given(have=st.integers(1, 7), want=st.integers(1, 7), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_any_shape_comes_to_the_columns_shape(have: int, want: int, height: int, width: int) -> None:
    statistics = {"size": [5, 4], "channels": want, "mean": [1.0] * want, "std": [1.0] * want}
    assert pixels.stack([noise(height, width, have)], statistics).shape == (1, 5, 4, want)


@pytest.mark.parametrize("stem", ["conv", "linear", "scales"])
def test_missing_cells_and_batch_mates_change_nothing(stem: str) -> None:
    torch.manual_seed(0)
    tokeniser = Patches(stem=stem)
    cells = [noise(28, 30, 3, seed=i) for i in range(4)]
    column = fitted(tokeniser, cells)
    module = tokeniser.module([column], 16).eval()
    packed = tokeniser.pack([column], {"photo": [cells[0], None, *cells[1:]]}, None)
    together = module(packed)
    assert packed.sample.unique().tolist() == [0, 2, 3, 4] and set(packed.column.tolist()) == {3}
    alone = module(tokeniser.pack([column], {"photo": [None, cells[2]]}, None))
    assert torch.allclose(together[packed.sample == 3], alone, atol=1e-5)
    empty = tokeniser.pack([column], {"photo": [None, None]}, None)
    assert len(empty) == 0 and module(empty).shape == (0, 16)


@pytest.mark.parametrize("stem", ["conv", "linear", "scales"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 8, 1), (28, 28, 1), (64, 40, 4), (3, 50, 2)])
def test_every_parameter_gets_gradient(stem: str, shape: tuple[int, int, int]) -> None:
    tokeniser = Patches(stem=stem, base=8)
    cells = [noise(*shape, seed=i) for i in range(3)]
    column = fitted(tokeniser, cells)
    module = tokeniser.module([column], 8)
    packed = tokeniser.pack([column], {"photo": cells}, Draw(0, 0, np.arange(3)))
    values = module(packed)
    assert values.shape == (len(packed), 8) and len(packed) == 3 * np.prod(tokeniser.grid_shape(column))
    (values * torch.randn_like(values)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_augmentation_depends_on_seed_epoch_and_row_only() -> None:
    tokeniser = Patches(flips=True)
    cells = [noise(20, 20, 3, seed=i) for i in range(4)]
    column = fitted(tokeniser, cells)
    module = tokeniser.module([column], 8).eval()

    def tokens(rows: list[int], epoch: int = 0, seed: int = 5) -> torch.Tensor:
        packed = tokeniser.pack([column], {"photo": [cells[r] for r in rows]}, Draw(seed, epoch, np.array(rows)))
        with torch.no_grad():
            return module(packed).reshape(len(rows), -1)

    assert torch.allclose(tokens([0, 1, 2])[2], tokens([3, 2])[1], atol=1e-5)
    assert not torch.allclose(tokens([0]), tokens([0], epoch=1), atol=1e-2)
    assert not torch.allclose(tokens([0]), tokens([0], seed=6), atol=1e-2)
    assert "affine" not in Patches(augment=0).pack([column], {"photo": cells}, Draw(0, 0, np.arange(4))).inputs


def test_nan_counts_as_the_mean() -> None:
    tokeniser = Patches()
    whole = np.random.default_rng(0).normal(size=(9, 9, 1)).astype(np.float32)
    column = fitted(tokeniser, [whole])
    holed = whole.copy()
    holed[2, 3] = np.nan
    packed = tokeniser.pack([column], {"photo": [holed]}, None)
    assert packed.inputs["pixels"][0, 2, 3, 0] == pytest.approx(column.statistics["mean"][0])


def test_show_is_a_png() -> None:
    for cell in (noise(4, 4, 1), noise(4, 4, 4), np.ones((4, 4, 3), np.float32), noise(4, 4, 2)):
        shown = IMAGE.show(cell)
        assert shown["kind"] == "image" and shown["data"].startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", [(16, 16), (13, 22)])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_cross_scale_embedding_sees_patches_of_four_sizes_around_each_token(shape: tuple[int, int], steps: int) -> None:
    stem, side = ScalesStem(3, 16, halvings=steps).double(), 2**steps
    picture = torch.randn(1, 3, *shape, dtype=torch.float64)
    out = stem(picture)
    assert out.shape == (1, 16, -(-shape[0] // side), -(-shape[1] // side))
    wide = torch.zeros(3, shape[0] + 99, shape[1] + 99, dtype=torch.float64)
    wide[:, 40 : 40 + shape[0], 40 : 40 + shape[1]] = picture[0]
    for i, j in ((0, 0), (out.shape[2] - 1, out.shape[3] - 1), (1, 2)):
        parts = []
        for k, conv in enumerate(stem.convs):
            size = side * 2**k
            top, left = (40 + p * side - (size - side) // 2 for p in (i, j))
            patch = wide[:, top : top + size, left : left + size]
            parts.append(torch.einsum("dchw,chw->d", conv.weight, patch) + conv.bias)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(out[0, :, i, j], torch.cat(parts), rtol=0, atol=1e-10)
    assert [conv.out_channels for conv in stem.convs] == [8, 4, 2, 2]


def test_the_cross_scale_embedding_needs_channels_for_every_scale() -> None:
    with pytest.raises(ConfigError, match="take 8"):
        ScalesStem(3, 7, halvings=1)
