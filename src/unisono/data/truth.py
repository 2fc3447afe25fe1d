"""What is planted in the shapes world: the targets, their noise, who holds them, and the best any model can reach.

Label noise: with probability ``labels`` a category or boolean target is replaced by another value of it, drawn evenly; so with all
that is needed present the best accuracy is ``1 - labels``. The number target ``price`` is a sum of independent parts, one a source,
and a noise of known variance; so the best R2 of any set of sources is the share of variance of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from unisono.core.errors import ConfigError, nearest
from unisono.data.scenes import BACKDROPS, COLOURS, HUMS, LABELS, MOTIONS, SEASONS, SHAPES, TEXTURES, Scene
from unisono.data.stream import Stream

SOURCES = ("image", "sound", "caption", "table", "points", "series", "graph", "video", "depth", "mask", "instances", "boxes")
GRADES = ("low", "middle", "high")
OCTANTS = tuple(f"{i}{s}{c}" for i in "dl" for s in "dh" for c in "wc")
PRICE_STEP = 4.0
_PRICE_PART = PRICE_STEP**2 * 1.25  # variance of a step times an even draw from 0, 1, 2, 3
_WEIGHT_STEP = (_PRICE_PART / ((196**2 - 1) / 1200)) ** 0.5  # makes the table's part as large: weights are 196 tenths, evenly
GRADE_BOUNDS = (6.9, 16.35)  # about a third of the rows each
_FACTOR = {"wood": 0.7, "metal": 1.0, "glass": 1.5, "clay": 2.0}
YEAR_2012 = 4383  # days from 2000-01-01 to 2012-01-01


@dataclass(frozen=True, slots=True)
class Noise:
    """How much noise the world has.

    Attributes:
        labels: probability that a category or boolean target is replaced by another of its values.
        pixels: standard deviation in every channel of the image, as a share of the full range.
        sound: standard deviation of the sound's noise, as a share of the full range.
        price: variance of the price's noise, as a multiple of the variance of one source's part.
    """

    labels: float = 0.05
    pixels: float = 0.03
    sound: float = 0.01
    price: float = 0.5

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, value in asdict(self).items():
            top = 1.0 if name != "price" else float("inf")
            if not 0 <= value <= top:
                raise ConfigError(f"noise {name} is {value}: give a number from 0 to {top:g}")


def as_noise(noise: Noise | float) -> Noise:
    """Turn a factor on the usual noise (0 none, 1 the usual) into a Noise."""
    if isinstance(noise, Noise):
        return noise
    usual = Noise()
    return Noise(*(getattr(usual, name) * noise for name in ("labels", "pixels", "sound", "price")))


def bits(scene: Scene) -> tuple[bool, bool, bool]:
    """Give the three planted bits: the backdrop is dark (image), the hum is high (sound), the season is cold (caption)."""
    return BACKDROPS.index(scene.backdrop) >= 2, HUMS.index(scene.hum) >= 2, SEASONS.index(scene.season) >= 2


def grade(scene: Scene) -> str:
    """Grade from the table: weight times a factor of the material, where fragile doubled if made since 2012 and halved if before."""
    score = scene.weight * _FACTOR[scene.material]
    if scene.fragile:
        score *= 2.0 if scene.made >= YEAR_2012 else 0.5
    return GRADES[sum(score > bound for bound in GRADE_BOUNDS)]


def _octant(scene: Scene) -> str:
    dark, high, cold = bits(scene)
    return ("d" if dark else "l") + ("h" if high else "d") + ("c" if cold else "w")


def price_parts(scene: Scene) -> dict[str, float]:
    """Give the price's four independent parts of equal variance, by source."""
    return {
        "image": PRICE_STEP * BACKDROPS.index(scene.backdrop),
        "sound": PRICE_STEP * HUMS.index(scene.hum),
        "caption": PRICE_STEP * SEASONS.index(scene.season),
        "table": _WEIGHT_STEP * scene.weight,
    }


@dataclass(frozen=True, slots=True)
class Target:
    """One planted target.

    Attributes:
        kind: category, boolean, number or labels.
        rule: what it is, in words.
        classes: its values, where it has a list of them.
        held_by: the smallest sets of sources that determine it, noise aside.
        chance: accuracy without any source (None where accuracy is no measure of it).
    """

    kind: str
    rule: str
    classes: tuple[Any, ...]
    held_by: tuple[tuple[str, ...], ...]
    chance: float | None


_SEEN = (("image",), ("sound",), ("caption",), ("graph",), ("video",), ("points",), ("boxes",))
_TRIPLE = (("image", "sound", "caption"),)
_HALVES = (False, True)
TARGETS: dict[str, Target] = {
    "shape": Target("category", "shape of the main (large) thing", SHAPES, (*_SEEN, ("mask",), ("depth",), ("instances",)), 1 / 6),
    "backdrop": Target("category", "what lies behind the things", BACKDROPS, (("image",),), 0.25),
    "texture": Target("category", "texture of the main thing", TEXTURES, (("image",), ("video",)), 0.25),
    "hum": Target("category", "pitch of the hum below the tones", HUMS, (("sound",),), 0.25),
    "season": Target("category", "season the caption tells", SEASONS, (("caption",),), 0.25),
    "grade": Target("category", "a function of weight, material, fragile and made", GRADES, (("table",),), None),
    "motion": Target("category", "motion of the main thing", MOTIONS, (("video",), ("series",)), 1 / 6),
    "octant": Target("category", "the three bits side by side: dark or light, deep or high, warm or cold", OCTANTS, _TRIPLE, 1 / 8),
    "duet": Target("boolean", "exclusive or of two bits: backdrop dark, hum high", _HALVES, (("image", "sound"),), 0.5),
    "parity": Target("boolean", "exclusive or of three bits: backdrop dark, hum high, season cold", _HALVES, _TRIPLE, 0.5),
    "count": Target("number", "number of things", (1, 2, 3, 4, 5), (*_SEEN, ("depth",), ("instances",)), None),
    "price": Target(
        "number", "a sum of one part from each of four sources, and noise", (), (("image", "sound", "caption", "table"),), None
    ),
    "colours": Target("labels", "colours of the things", COLOURS, _SEEN, None),
}
_VALUES: dict[str, Callable[[Scene], Any]] = {
    "shape": lambda s: s.main.shape,
    "backdrop": lambda s: s.backdrop,
    "texture": lambda s: s.main.texture,
    "hum": lambda s: s.hum,
    "season": lambda s: s.season,
    "grade": grade,
    "motion": lambda s: s.main.motion,
    "octant": _octant,
    "duet": lambda s: bits(s)[0] != bits(s)[1],
    "parity": lambda s: sum(bits(s)) % 2 == 1,
    "count": lambda s: len(s.things),
    "price": lambda s: sum(price_parts(s).values()),
    "colours": lambda s: [c for c in COLOURS if any(thing.colour == c for thing in s.things)],
}


def target_value(scene: Scene, name: str, noise: Noise) -> Any:
    """Give a scene's value of a target, noise included; it depends on (seed, row, target, noise) only."""
    value, target = _VALUES[name](scene), TARGETS[name]
    stream = Stream(scene.seed, scene.row, LABELS + 1000 * (1 + list(TARGETS).index(name)))
    if target.kind in ("category", "boolean"):
        flipped = stream.chance(noise.labels)
        return stream.choice([c for c in target.classes if c != value]) if flipped else value
    if name == "price":
        return value + stream.bell() * (noise.price * _PRICE_PART) ** 0.5
    return value


def best_score(target: str, present: Iterable[str], noise: Noise | float = 1.0) -> float | None:
    """Give the best accuracy (category, boolean) or R2 (price) that the present sources allow.

    Args:
        target: a target's name.
        present: the names of the sources at hand.
        noise: the world's noise, as given to ``shapes``.

    Returns:
        The score, exact under the planted distribution (pixel and sound noise being too weak to hide what they cover); None where no
        closed form is known: ``grade``, ``count`` and ``colours`` without what determines them.

    Raises:
        ConfigError: there is no such target or source.
    """
    if target not in TARGETS:
        raise ConfigError(f"no target {target!r} in the shapes world{nearest(target, TARGETS)}")
    here = set(present)
    for source in sorted(here - set(SOURCES)):
        raise ConfigError(f"no source {source!r} in the shapes world{nearest(source, SOURCES)}")
    level, plan = as_noise(noise), TARGETS[target]
    if target == "price":
        return len(here & {"image", "sound", "caption", "table"}) / (4 + level.price)
    whole = any(set(group) <= here for group in plan.held_by)
    if plan.kind in ("number", "labels"):
        return 1.0 if whole else None
    clean = 1 - level.labels
    if whole:
        return clean
    if plan.chance is None:
        return None
    if target == "octant":
        share = 2.0 ** (len(here & set(_TRIPLE[0])) - 3)
        return share * clean + (1 - share) * level.labels / 7
    return plan.chance


def shapes_truth(noise: Noise | float = 1.0) -> dict[str, Any]:
    """Tell what is planted in the shapes world, as data that can be written as JSON.

    Args:
        noise: the world's noise, as given to ``shapes``.

    Returns:
        ``noise``; ``targets``: for each its kind, rule, classes, the smallest sets of sources that hold it, its chance level and
        ``best``, the score with all that is needed; ``sources``: for each the targets it holds alone; ``missing``: the mechanisms.
    """
    level = as_noise(noise)
    targets = {name: {**asdict(target), "best": best_score(name, SOURCES, level)} for name, target in TARGETS.items()}
    sources = {source: [name for name, target in TARGETS.items() if (source,) in target.held_by] for source in SOURCES}
    missing = {
        "random": "every input cell is missing with the given rate, independently of everything",
        "informative": "every input cell is missing with 1.6 times the rate where the row is fragile and 0.4 times where it is not",
    }
    return {"noise": asdict(level), "targets": targets, "sources": sources, "missing": missing}
