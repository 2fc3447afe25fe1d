"""The shapes world as a table: columns, missing cells, streams of batches, folders of files."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from unisono.core.errors import ConfigError, nearest
from unisono.data import geometry, picture, tones, words
from unisono.data.scenes import MISSING, SPLIT, Scene, scene
from unisono.data.stream import Stream
from unisono.data.truth import TARGETS, Noise, as_noise, target_value

_EPOCH = datetime.date(2000, 1, 1).toordinal()
_FRAME = [("x0", pa.float32()), ("y0", pa.float32()), ("x1", pa.float32()), ("y1", pa.float32())]
_ARROW = {"category": pa.string(), "boolean": pa.bool_(), "number": pa.float64(), "labels": pa.list_(pa.string())}


@dataclass(frozen=True, slots=True)
class _Look:
    """How scenes are rendered: side of the pictures in pixels, and the noise."""

    side: int
    noise: Noise


@dataclass(frozen=True, slots=True)
class _Column:
    kind: pa.DataType
    make: Callable[[Scene, _Look], Any]
    suffix: str = ""  # of the file a media cell becomes in a folder


def _split(s: Scene, _: _Look) -> str:
    draw = Stream(s.seed, s.row, SPLIT).below(10)
    return "test" if draw < 2 else "val" if draw < 3 else "train"


_NUMBERS = pa.list_(pa.list_(pa.float32()))
_GRAPH = pa.struct([("nodes", _NUMBERS), ("edges", pa.list_(pa.list_(pa.int64()))), ("edge_values", _NUMBERS), ("directed", pa.bool_())])
_INPUTS: dict[str, _Column] = {
    "image": _Column(pa.binary(), lambda s, o: picture.image(s, o.side, o.noise.pixels), ".png"),
    "caption": _Column(pa.string(), lambda s, o: words.caption(s)),
    "sound": _Column(pa.binary(), lambda s, o: tones.sound(s, o.noise.sound), ".wav"),
    "weight": _Column(pa.float64(), lambda s, o: s.weight),
    "material": _Column(pa.string(), lambda s, o: s.material),
    "fragile": _Column(pa.bool_(), lambda s, o: s.fragile),
    "made": _Column(pa.timestamp("s"), lambda s, o: datetime.datetime.fromordinal(_EPOCH + s.made)),
    "depth": _Column(pa.binary(), lambda s, o: picture.depth(s, o.side), ".png"),
    "mask": _Column(pa.binary(), lambda s, o: picture.mask(s, o.side), ".png"),
    "instances": _Column(pa.binary(), lambda s, o: picture.instances(s, o.side), ".png"),
    "boxes": _Column(
        pa.list_(pa.struct([*_FRAME, ("shape", pa.string()), ("colour", pa.string())])), lambda s, o: picture.boxes(s, o.side)
    ),
    "points": _Column(pa.binary(), lambda s, o: geometry.points(s), ".npy"),
    "video": _Column(pa.binary(), lambda s, o: picture.video(s, o.side), ".gif"),
    "series": _Column(pa.struct([("values", _NUMBERS), ("rate", pa.float64())]), lambda s, o: geometry.series(s)),
    "graph": _Column(_GRAPH, lambda s, o: geometry.graph(s)),
    "questions": _Column(
        pa.list_(pa.struct([("kind", pa.string()), ("question", pa.string()), ("answer", pa.string())])), lambda s, o: words.questions(s)
    ),
    "references": _Column(pa.list_(pa.struct([("expression", pa.string()), *_FRAME])), lambda s, o: words.references(s, o.side)),
}


def _target_column(name: str) -> _Column:
    return _Column(_ARROW[TARGETS[name].kind], lambda s, o: target_value(s, name, o.noise))


_ALL: dict[str, _Column] = {
    "key": _Column(pa.string(), lambda s, o: f"scene-{s.row:06d}"),
    "split": _Column(pa.string(), _split),
    **_INPUTS,
    **{name: _target_column(name) for name in TARGETS},
}
TABLE = ("weight", "material", "fragile", "made")
COLUMNS = tuple(_ALL)
DEFAULT_COLUMNS = ("key", "split", "image", "caption", "sound", *TABLE, "shape")


def _chosen(columns: Sequence[str] | None) -> list[str]:
    wanted: list[str] = []
    for word in DEFAULT_COLUMNS if columns is None else columns:
        wanted += TABLE if word == "table" else [word]
    for word in wanted:
        if word not in _ALL:
            raise ConfigError(f"the shapes world has no column {word!r}{nearest(word, [*_ALL, 'table'])}")
    return list(dict.fromkeys(wanted))


def _gone(s: Scene, names: Sequence[str], missing: str | None, rate: float) -> set[str]:
    """Say which of a row's input cells are missing: each column has its own draw, whichever columns are asked for."""
    if missing is None or rate == 0:
        return set()
    chance = rate if missing == "random" else rate * (1.6 if s.fragile else 0.4)
    stream = Stream(s.seed, s.row, MISSING)
    draws = {name: stream.unit() for name in _INPUTS}
    return {name for name in names if name in draws and draws[name] < chance}


@dataclass(frozen=True, slots=True)
class _World:
    """Everything that says what a row of the table is."""

    seed: int
    names: list[str]
    look: _Look
    missing: str | None
    rate: float
    unique: bool

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, _ALL[name].kind) for name in self.names])

    def row(self, i: int) -> dict[str, Any]:
        s = scene(self.seed, i, unique=self.unique)
        gone = _gone(s, self.names, self.missing, self.rate)
        return {name: None if name in gone else _ALL[name].make(s, self.look) for name in self.names}

    def batch(self, start: int, stop: int) -> pa.RecordBatch:
        rows = [self.row(i) for i in range(start, stop)]
        return pa.RecordBatch.from_arrays([pa.array([r[n] for r in rows], type=_ALL[n].kind) for n in self.names], schema=self.schema)


def _world(
    seed: int, columns: Sequence[str] | None, noise: Noise | float, missing: str | None, rate: float, size: int, unique: bool
) -> _World:
    if missing not in (None, "random", "informative"):
        raise ConfigError(f"missing is {missing!r}{nearest(str(missing), ['random', 'informative'])}")
    if not 0 <= rate <= 0.6:
        raise ConfigError(f"the rate of missing cells is {rate}: give a number from 0 to 0.6")
    if not 16 <= size <= 1024:
        raise ConfigError(f"pictures of {size} pixels: give a size from 16 to 1024")
    return _World(seed, _chosen(columns), _Look(size, as_noise(noise)), missing, rate, unique)


Missing = Literal["random", "informative"]


def stream_shapes(
    rows: int = 1000,
    *,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    noise: Noise | float = 1.0,
    missing: Missing | None = None,
    rate: float = 0.2,
    size: int = 48,
    unique: bool = False,
    batch: int = 256,
) -> Iterator[pa.RecordBatch]:
    """Make a shapes world batch by batch, in memory that does not grow with the rows; the arguments are those of ``shapes``."""
    world = _world(seed, columns, noise, missing, rate, size, unique)
    if rows < 0 or batch < 1:
        raise ConfigError(f"{rows} rows in batches of {batch}: give at least 0 rows and batches of at least 1")
    return (world.batch(start, min(start + batch, rows)) for start in range(0, rows, batch))


def shapes(
    rows: int = 1000,
    *,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    noise: Noise | float = 1.0,
    missing: Missing | None = None,
    rate: float = 0.2,
    size: int = 48,
    unique: bool = False,
) -> pa.Table:
    """Make a shapes world: a table whose columns show, sound, tell and measure the same procedural scenes.

    Row ``i`` depends on ``seed`` and ``i`` only, so a longer table begins with the rows of a shorter one, and a column is the same
    whichever others are asked for. ``shapes_truth`` says what is planted.

    Args:
        rows: number of rows.
        seed: the world's seed.
        columns: what to include, from COLUMNS; ``table`` stands for weight, material, fragile and made. By default key, split, image,
            caption, sound, table and the target shape. A target left in beside another is an input like any other.
        noise: a factor on the usual noise (0 for none), or a Noise.
        missing: None; ``random``: each input cell is missing with probability ``rate``; ``informative``: with 1.6 times the rate where
            the row is fragile and 0.4 times where it is not (fragile cells included).
        rate: mean share of missing cells, 0 to 0.6.
        size: side of the pictures in pixels.
        unique: no two rows show the same set of (shape, colour) pairs; every scene then has three to five things.

    Returns:
        The table: pictures as PNG, sounds as WAV, videos as GIF, points as NPY bytes; series, graphs, boxes, questions and references
        as structs and lists.

    Raises:
        ConfigError: an unknown column or mechanism, a number out of bounds, or more rows than unique scenes.
    """
    world = _world(seed, columns, noise, missing, rate, size, unique)
    batches = stream_shapes(rows, seed=seed, columns=columns, noise=noise, missing=missing, rate=rate, size=size, unique=unique)
    return pa.Table.from_batches(batches, schema=world.schema)


def write_shapes(
    folder: str | Path, rows: int = 1000, *, table: Literal["table.csv", "table.parquet"] = "table.csv", **options: Any
) -> Path:
    """Write a shapes world as a folder: a table, and its pictures and sounds as files whose paths are relative to it.

    In CSV, lists and structs are JSON, a missing cell is an unquoted empty field.

    Args:
        folder: where to; made if need be, and left alone unless empty.
        rows: number of rows.
        table: the table's file name, which says its format.
        options: those of ``stream_shapes``.

    Returns:
        The table's path.

    Raises:
        ConfigError: the folder holds something already, or an option is wrong.
    """
    if table not in ("table.csv", "table.parquet"):
        raise ConfigError(f"cannot write {table!r}{nearest(table, ['table.csv', 'table.parquet'])}")
    batches = stream_shapes(rows, **options)
    base = Path(folder)
    base.mkdir(parents=True, exist_ok=True)
    if any(base.iterdir()):
        raise ConfigError(f"{base} is not empty: give a new folder")
    from unisono.data.files import write_batches

    names = _chosen(options.get("columns"))
    suffixes = {name: _ALL[name].suffix for name in names if _ALL[name].suffix}
    return write_batches(base / table, pa.schema([(n, _ALL[n].kind) for n in names]), batches, suffixes)
