"""Tiny example columns for every modality: one place that every test which needs cells is fed from.

``canonical(word)`` gives one column a modality; ``COLUMNS`` adds the other spellings that detection has to recognise. A new modality
is covered by every contract as soon as it has an entry in ``CANONICAL``.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from unisono.core.schema import SCALARS, TABLE_SOURCE, Column
from unisono.modalities.base import Cells, Context, modalities

#: Rows of every example column.
ROWS = 12
_WORDS = ("a small cat sleeps on the warm roof", "two dogs run through wet grass", "the old tabby waits", "birds sing at dawn, loudly",
          "rain falls on the quiet garden", "nobody heard the bell ring twice", "she bought a red bicycle yesterday",
          "clouds drift over the hill",
          "fish swim under the wooden bridge", "a fox crosses the snowy field at night", "bread and honey for breakfast", "")  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    """A generator of the examples' random numbers."""
    return np.random.default_rng(seed)


def png(height: int, width: int, seed: int, channels: int = 3) -> bytes:
    """A picture as PNG bytes."""
    values = rng(seed).integers(0, 256, (height, width, channels) if channels > 1 else (height, width), np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def gif(frames: int, size: int, seed: int) -> bytes:
    """An animated picture as GIF bytes."""
    pictures = [Image.fromarray(rng(seed + k).integers(0, 256, (size, size, 3), np.uint8)) for k in range(frames)]
    out = io.BytesIO()
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    return out.getvalue()


def wav(samples: int, seed: int, rate: int = 8000) -> bytes:
    """A tone with noise as WAV bytes."""
    t = np.arange(samples) / rate
    sound = 0.4 * np.sin(2 * np.pi * (300 + 50 * seed) * t) + 0.1 * rng(seed).normal(size=samples)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def _lists(shapes: Sequence[tuple[int, ...]], seed: int = 3) -> pa.Array:
    values = [np.round(rng(seed + k).normal(size=shape), 3).astype(np.float32).tolist() for k, shape in enumerate(shapes)]
    return pa.array(values)


def graph(nodes: int, seed: int) -> dict[str, Any]:
    """A ring with one chord, two features a node."""
    edges = [[k, (k + 1) % nodes] for k in range(nodes)] + [[0, nodes // 2]]
    return {"nodes": np.round(rng(seed).normal(size=(nodes, 2)), 2).tolist(), "edges": edges}


def letters(alphabet: str, length: int, seed: int) -> str:
    """A random string over an alphabet."""
    return "".join(rng(seed).choice(list(alphabet), length))


def _each(make: Callable[[int], Any], type: pa.DataType | None = None) -> pa.Array:
    return pa.array([make(k) for k in range(ROWS)], type=type)


#: Modality -> a typical column of it.
CANONICAL: dict[str, Callable[[], pa.Array]] = {
    "number": lambda: pa.array(np.round(rng(1).normal(10, 3, ROWS), 3)),
    "category": lambda: _each(lambda k: ("red", "green", "blue")[k % 3]),
    "boolean": lambda: _each(lambda k: k % 3 == 0),
    "datetime": lambda: _each(lambda k: dt.datetime(2020, 1 + k % 12, 1 + 2 * k, 3 * k % 24, 7 * k % 60)),
    "text": lambda: _each(lambda k: _WORDS[k % len(_WORDS)]),
    "image": lambda: _each(lambda k: png(10 + k % 3, 12 + k % 2, k)),
    "video": lambda: _each(lambda k: rng(k).integers(0, 256, (3 + k % 2, 10, 12, 3)).tolist()),
    "audio": lambda: _each(lambda k: wav(1600 + 200 * (k % 3), k)),
    "series": lambda: _lists([(20 + 3 * (k % 5),) for k in range(ROWS)]),
    "points": lambda: _lists([(15 + k, 3) for k in range(ROWS)]),
    "graph": lambda: _each(lambda k: graph(4 + k % 3, k)),
    "sequence": lambda: _each(lambda k: letters("ACGT", 40 + k, k)),
    "cube": lambda: _lists([(6, 5, 8)] * ROWS),
    "vector": lambda: _lists([(7,)] * ROWS),
}


def canonical(word: str) -> pa.Array:
    """The typical column of a modality."""
    return CANONICAL[word]()


@dataclass(frozen=True)
class ExampleColumn:
    """A column as a table may hold it.

    Attributes:
        expect: the modality it has to be taken for.
        make: builds its values; files it needs are written to the given folder.
        name: the column's name.
        doubt: detection has to name what else it could be.
        many: cells are lists of items.
    """

    expect: str
    make: Callable[[Path], pa.Array]
    name: str = "column"
    doubt: bool = False
    many: bool = False


def _saved(folder: Path, suffix: str, make: Callable[[int], bytes]) -> pa.Array:
    for k in range(ROWS):
        (folder / f"file{k}{suffix}").write_bytes(make(k))
    return pa.array([f"file{k}{suffix}" for k in range(ROWS)])


def _npy(values: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=False)
    return out.getvalue()


def _long(make: Callable[[int], Any], n: int = 60, type: pa.DataType | None = None) -> pa.Array:
    return pa.array([make(k) for k in range(n)], type=type)


_NAMES = ("anna", "bert", "carla", "dora", "emil")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

#: What -> a column and what it has to be taken for; the canonical ones are added below.
COLUMNS: dict[str, ExampleColumn] = {
    "integers": ExampleColumn("number", lambda _: pa.array(rng(0).integers(-500, 500, 200))),
    "decimals in words": ExampleColumn("number", lambda _: _long(lambda k: f"{k * 1.37:.2f}")),
    "numbers with few words among them": ExampleColumn("number", lambda _: _long(lambda k: "unknown" if k == 7 else f"{k * 3.1:.1f}")),
    "years": ExampleColumn("number", lambda _: pa.array(rng(1).integers(1950, 2024, 80)), name="year"),
    "numbers with nulls": ExampleColumn("number", lambda _: _long(lambda k: None if k % 4 == 0 else float(k))),
    "decimal type": ExampleColumn("number", lambda _: pa.array([k * 1.25 for k in range(60)]).cast(pa.decimal128(10, 2))),
    "zip codes with leading zeros": ExampleColumn("category", lambda _: _long(lambda k: f"0{1000 + 37 * (k % 9)}"), name="zip"),
    "a dictionary": ExampleColumn("category", lambda _: _long(lambda k: _NAMES[k % 5]).dictionary_encode()),
    "short names": ExampleColumn("category", lambda _: _long(lambda k: _NAMES[k % 5])),
    "two words that are no truth values": ExampleColumn("category", lambda _: _long(lambda k: ("cat", "dog")[k % 2])),
    "three sizes": ExampleColumn("category", lambda _: _long(lambda k: ("small", "medium", "large")[k % 3])),
    "one-letter grades": ExampleColumn("category", lambda _: _long(lambda k: "ACGT"[k % 4])),
    "names of several words": ExampleColumn("category", lambda _: _long(lambda k: ("new york", "los angeles", "san francisco")[k % 3])),
    "yes and no": ExampleColumn("boolean", lambda _: _long(lambda k: ("yes", "no")[k % 2])),
    "true and false in words": ExampleColumn("boolean", lambda _: _long(lambda k: ("True", "False")[k % 2])),
    "ISO dates": ExampleColumn("datetime", lambda _: _long(lambda k: (dt.date(2019, 3, 1) + dt.timedelta(days=17 * k)).isoformat())),
    "ISO times": ExampleColumn("datetime", lambda _: _long(lambda k: f"2021-05-{1 + k % 28:02d}T{k % 24:02d}:15:00")),
    "a date type": ExampleColumn("datetime", lambda _: _long(lambda k: dt.date(2019, 1, 1) + dt.timedelta(days=k))),
    "sentences": ExampleColumn("text", lambda _: _long(lambda k: f"{_WORDS[k % 11]} and {_NUMBERS[k // 10]} {_WORDS[(5 * k + 3) % 11]}")),
    "lists of tags": ExampleColumn("text", lambda _: _long(lambda k: [_NAMES[k % 5], _WORDS[k % 11].split()[1]])),
    "JPEG bytes": ExampleColumn("image", lambda _: _each(lambda k: _jpeg(16, k))),
    "picture structs": ExampleColumn("image", lambda _: _each(lambda k: {"bytes": png(9, 9, k), "path": f"{k}.png"})),
    "picture paths": ExampleColumn("image", lambda folder: _saved(folder, ".png", lambda k: png(9, 9, k))),
    "grey pictures as nested lists": ExampleColumn(
        "image", lambda _: pa.array([rng(k).integers(0, 256, (8, 8)).tolist() for k in range(ROWS)])
    ),
    "colour pictures as nested lists": ExampleColumn(
        "image", lambda _: pa.array([rng(k).integers(0, 256, (8, 9, 3)).tolist() for k in range(ROWS)])
    ),
    "lists of pictures": ExampleColumn("image", lambda _: _each(lambda k: [png(9, 9, k)] * (1 + k % 3)), many=True),
    "sound paths": ExampleColumn("audio", lambda folder: _saved(folder, ".wav", lambda k: wav(800, k))),
    "samples with a rate of sound": ExampleColumn(
        "audio", lambda _: _each(lambda k: {"values": rng(k).normal(size=500).tolist(), "rate": 16000})
    ),
    "values with a low rate": ExampleColumn("series", lambda _: _each(lambda k: {"values": rng(k).normal(size=50).tolist(), "rate": 50})),
    "several channels of varying length": ExampleColumn("series", lambda _: _lists([(20 + k, 12) for k in range(ROWS)])),
    "two channels": ExampleColumn("series", lambda _: _lists([(25, 2)] * ROWS)),
    "lists of constant length": ExampleColumn("vector", lambda _: _lists([(24,)] * ROWS), doubt=True),
    "fixed-size lists": ExampleColumn("vector", lambda _: pa.FixedSizeListArray.from_arrays(pa.array(rng(0).normal(size=16 * ROWS)), 16)),
    "points in files": ExampleColumn("points", lambda folder: _saved(folder, ".npy", lambda k: _npy(rng(k).normal(size=(20 + k, 3))))),
    "vectors in files": ExampleColumn("vector", lambda folder: _saved(folder, ".npy", lambda k: _npy(rng(k).normal(size=16)))),
    "points with colours": ExampleColumn("points", lambda _: _lists([(15 + k, 6) for k in range(ROWS)]), name="cloud"),
    "graphs in JSON": ExampleColumn("graph", lambda _: _each(lambda k: json.dumps(graph(4 + k % 3, k)))),
    "RNA": ExampleColumn("sequence", lambda _: _each(lambda k: letters("ACGU", 35 + k, k))),
    "protein": ExampleColumn("sequence", lambda _: _each(lambda k: letters("ACDEFGHIKLMNPQRSTVWY", 35 + k, k))),
    "cubes in files": ExampleColumn("cube", lambda folder: _saved(folder, ".npy", lambda k: _npy(rng(k).random((5, 6, 10))))),
    **{f"canonical {word}": ExampleColumn(word, lambda _, word=word: canonical(word)) for word in CANONICAL},
}


def _jpeg(size: int, seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def column_of(word: str, index: int = 0, name: str | None = None, **options: Any) -> Column:
    """An unfitted column of a modality."""
    name = name or word
    return Column(name, word, TABLE_SOURCE if word in SCALARS else name, index, options=options)


def decoded(word: str, array: pa.Array | None = None, column: Column | None = None, root: Path | None = None) -> Cells:
    """The decoded cells of a modality's typical column, or of another one."""
    array = canonical(word) if array is None else array
    found = modalities.build(word).decode_many(array, column or column_of(word), Context(root))
    assert not found.bad, found.bad
    return found.cells
