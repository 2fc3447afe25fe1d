"""A scene of the shapes world: one to five things, and what only one rendering of them shows.

Row ``i`` of the world with seed ``s`` is ``scene(s, i)`` whatever else is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from unisono.core.errors import ConfigError
from unisono.data.stream import Stream

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SIZES = ("small", "medium", "large")
TEXTURES = ("plain", "striped", "dotted", "checked")
MOTIONS = ("still", "left", "right", "up", "down", "circling")
BACKDROPS = ("day", "dawn", "dusk", "night")
HUMS = ("deep", "low", "middle", "high")
SEASONS = ("spring", "summer", "autumn", "winter")
MATERIALS = ("wood", "metal", "glass", "clay")
RADIUS = {"small": 0.085, "medium": 0.12, "large": 0.16}
PLACES = tuple((column, row) for column in range(3) for row in range(3))
PAIRS = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)
_UNIQUE_COUNTS = (3, 4, 5)

# One number per purpose: they are part of the world and never change.
SCENE, ORDER, LABELS, PIXELS, TONES, WORDS, QUESTIONS, CLOUD, TRACK, MISSING, SPLIT, REFERENCES = range(12)


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing of a scene.

    Attributes:
        shape: one of SHAPES.
        colour: one of COLOURS; no two things of a scene share both shape and colour.
        size: one of SIZES; exactly the main thing is large.
        texture: one of TEXTURES.
        motion: one of MOTIONS.
        place: (column, row) of the three by three grid, no two things alike.
        x: centre, as a share of the width, from the left.
        y: centre, as a share of the height, from the top.
        depth: distance from the viewer, 0 (near) to 1 (far), no two things alike.
    """

    shape: str
    colour: str
    size: str
    texture: str
    motion: str
    place: tuple[int, int]
    x: float
    y: float
    depth: float

    @property
    def radius(self) -> float:
        """Half the extent, as a share of the picture's side."""
        return RADIUS[self.size]


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene.

    Attributes:
        seed: the world's seed.
        row: the row's number.
        things: one to five things, the main one (the large one) first.
        backdrop: one of BACKDROPS, shown by the image only.
        hum: one of HUMS, heard in the sound only.
        season: one of SEASONS, told by the caption only.
        weight: kilograms, 0.5 to 20.0, in the table only.
        material: one of MATERIALS, in the table only.
        fragile: in the table only.
        made: days since 2000-01-01, below 8766 (24 years), in the table only.
    """

    seed: int
    row: int
    things: tuple[Thing, ...]
    backdrop: str
    hum: str
    season: str
    weight: float
    material: str
    fragile: bool
    made: int

    @property
    def main(self) -> Thing:
        """The large thing."""
        return self.things[0]


def _feistel(value: int, half: int, keys: list[int]) -> int:
    """Permute the integers below 4**half (Luby and Rackoff 1988)."""
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for key in keys:
        mixed = ((right + key) * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
        left, right = right, left ^ ((mixed ^ (mixed >> 29)) >> 11 & mask)
    return left << half | right


def permute(index: int, count: int, seed: int) -> int:
    """Give the place of ``index`` in a permutation of ``range(count)`` drawn by the seed."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    stream = Stream(seed, 0, ORDER)
    keys = [stream.word() for _ in range(6)]
    value = _feistel(index, half, keys)
    while value >= count:
        value = _feistel(value, half, keys)
    return value


def combination(rank: int, items: int, count: int) -> list[int]:
    """Unrank a combination: the ``rank``-th set of ``count`` out of ``items`` (combinatorial number system)."""
    chosen = []
    for size in range(count, 0, -1):
        top = size - 1
        while comb(top + 1, size) <= rank:
            top += 1
        chosen.append(top)
        rank -= comb(top, size)
    return chosen


def unique_capacity() -> int:
    """How many scenes can differ in their set of (shape, colour) pairs when every one has three to five things."""
    return len(_UNIQUE_COUNTS) * comb(len(PAIRS), min(_UNIQUE_COUNTS))


def _unique_pairs(seed: int, row: int, stream: Stream) -> list[tuple[str, str]]:
    if row >= unique_capacity():
        raise ConfigError(
            f"the shapes world has {unique_capacity()} unique scenes: row {row} is beyond them; ask for fewer rows or unique=False"
        )
    count = _UNIQUE_COUNTS[row % len(_UNIQUE_COUNTS)]
    index = row // len(_UNIQUE_COUNTS)
    rank = permute(index, comb(len(PAIRS), count), seed)
    chosen = [PAIRS[i] for i in combination(rank, len(PAIRS), count)]
    return stream.sample(chosen, count)


def _thing(stream: Stream, pair: tuple[str, str], size: str, place: tuple[int, int], depth: int) -> Thing:
    room = 1 / 6 - RADIUS[size]
    x = (2 * place[0] + 1) / 6 + room * (2 * stream.unit() - 1)
    y = (2 * place[1] + 1) / 6 + room * (2 * stream.unit() - 1)
    texture, motion = stream.choice(TEXTURES), stream.choice(MOTIONS)
    return Thing(pair[0], pair[1], size, texture, motion, place, x, y, 0.1 + 0.2 * depth)


def scene(seed: int, i: int, *, unique: bool = False) -> Scene:
    """Make scene ``i`` of a world.

    Every attribute is uniform and independent of the others, except that the (shape, colour) pairs, places and depths of one
    scene's things are drawn without replacement, and that exactly one thing, the main one, is large.

    Args:
        seed: the world's seed.
        i: the row's number, from 0.
        unique: no two rows hold the same set of (shape, colour) pairs; every scene then has three to five things.

    Returns:
        The scene, which depends on (seed, i, unique) only.

    Raises:
        ConfigError: the row is negative, or beyond the number of unique scenes.
    """
    if i < 0:
        raise ConfigError(f"rows of the shapes world count from 0; {i} was asked for")
    stream = Stream(seed, i, SCENE)
    backdrop, hum, season = stream.choice(BACKDROPS), stream.choice(HUMS), stream.choice(SEASONS)
    weight, material = (5 + stream.below(196)) / 10, stream.choice(MATERIALS)
    fragile, made = bool(stream.below(2)), stream.below(8766)
    count = 1 + stream.below(5)
    pairs = _unique_pairs(seed, i, stream) if unique else stream.sample(PAIRS, count)
    places, depths = stream.sample(PLACES, len(pairs)), stream.sample(range(5), len(pairs))
    sizes = ["large"] + [stream.choice(SIZES[:2]) for _ in pairs[1:]]
    things = tuple(_thing(stream, *parts) for parts in zip(pairs, sizes, places, depths, strict=True))
    return Scene(seed, i, things, backdrop, hum, season, weight, material, fragile, made)
