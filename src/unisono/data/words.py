"""What is said about a scene: a caption, questions with answers, and referring expressions.

The caption names every thing's size, colour and shape, some of their places, and the season; it is silent about textures, motions, the
backdrop and the table. Every word but the seasons' phrases has plain synonyms, and sentences follow several patterns.
"""

from __future__ import annotations

from typing import Any

from unisono.data.picture import box
from unisono.data.scenes import COLOURS, QUESTIONS, REFERENCES, SHAPES, WORDS, Scene, Thing
from unisono.data.stream import Stream

COLOUR_WORDS = {
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "tangerine"),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green", "green", "emerald"),
    "blue": ("blue", "blue", "azure"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rosy"),
    "brown": ("brown", "brown", "chestnut"),
}
SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star", "five-pointed star"),
    "heart": ("heart", "love heart"),
    "cross": ("cross", "plus sign"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium", "mid-sized", "medium-sized"), "large": ("large", "big", "huge")}
SEASON_WORDS = {
    "spring": ("in spring", "while the first blossoms open", "on a fresh April day"),
    "summer": ("in summer", "in the heat of July", "on a hot beach day"),
    "autumn": ("in autumn", "as the leaves fall", "on a misty October day"),
    "winter": ("in winter", "while snow lies all around", "in the cold of January"),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five")
_OPENINGS = ("There is {}", "We can see {}", "The picture shows {}", "Here is {}", "You can make out {}")
_REST = ("{} can be seen too", "there is also {}", "it is joined by {}", "next to it we find {}")


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _name(stream: Stream, thing: Thing) -> str:
    words = (stream.choice(SIZE_WORDS[thing.size]), stream.choice(COLOUR_WORDS[thing.colour]), stream.choice(SHAPE_WORDS[thing.shape]))
    return " ".join(words)


def _listing(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def relation(first: Thing, second: Thing) -> str:
    """Say where ``first`` lies as seen from ``second``, by the larger of the two distances in the picture."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def _single(stream: Stream, scene: Scene) -> str:
    return stream.choice(_OPENINGS).format(_article(_name(stream, scene.main)))


def _counted(stream: Stream, scene: Scene) -> str:
    names = [_article(_name(stream, thing)) for thing in stream.sample(scene.things, len(scene.things))]
    opening = stream.choice(("There are {} shapes: {}", "We count {} shapes: {}", "The picture shows {} things: {}"))
    return opening.format(_NUMBERS[len(names)], _listing(names))


def _related(stream: Stream, scene: Scene) -> str:
    first, second = stream.sample(scene.things, 2)
    verb = stream.choice(("is", "sits", "lies"))
    text = f"{_article(_name(stream, first))} {verb} {relation(first, second)} {_article(_name(stream, second))}"
    rest = [_article(_name(stream, thing)) for thing in scene.things if thing is not first and thing is not second]
    return f"{text}; {stream.choice(_REST).format(_listing(rest))}" if rest else text


def _centred(stream: Stream, scene: Scene) -> str:
    main, others = scene.main, scene.things[1:]
    name = _name(stream, main)
    rest = [f"{_article(_name(stream, thing))} {relation(thing, main)} it" for thing in others]
    return f"{stream.choice(_OPENINGS).format(_article(name))}, with {_listing(rest)}"


def caption(scene: Scene) -> str:
    """Describe the scene in one or two sentences of plain English, in words drawn from (seed, row)."""
    stream = Stream(scene.seed, scene.row, WORDS)
    body = _single(stream, scene) if len(scene.things) == 1 else stream.choice((_counted, _related, _centred))(stream, scene)
    season = stream.choice(SEASON_WORDS[scene.season])
    pattern = stream.below(3)
    if pattern == 0:
        return f"{_capital(season)}, {body[0].lower()}{body[1:]}."
    if pattern == 1:
        return f"{_capital(body)}. {stream.choice(('It was taken', 'The scene is set', 'This was seen'))} {season}."
    return f"{_capital(season)}: {body[0].lower()}{body[1:]}."


def _count_question(stream: Stream, scene: Scene) -> tuple[str, str]:
    shape = stream.choice(SHAPES)
    asked = stream.choice(("How many {} are there?", "What is the number of {}?", "How many {} can you see?"))
    plural = {"cross": "crosses"}.get(shape, shape + "s")
    return asked.format(plural), str(sum(thing.shape == shape for thing in scene.things))


def _existence_question(stream: Stream, scene: Scene) -> tuple[str, str]:
    thing = stream.choice(scene.things)
    shape, colour = (thing.shape, thing.colour) if stream.below(2) else (stream.choice(SHAPES), stream.choice(COLOURS))
    found = any((other.shape, other.colour) == (shape, colour) for other in scene.things)
    asked = stream.choice(("Is there {}?", "Can you see {}?", "Does the picture show {}?"))
    return asked.format(_article(f"{colour} {shape}")), "yes" if found else "no"


def _colour_question(stream: Stream, scene: Scene) -> tuple[str, str]:
    asked = stream.choice(("What colour is the largest thing?", "Which colour does the biggest shape have?"))
    return asked, scene.main.colour


def _shape_question(stream: Stream, scene: Scene) -> tuple[str, str]:
    asked = stream.choice(("What shape is the largest thing?", "Which shape is the biggest?"))
    return asked, scene.main.shape


def _place_question(stream: Stream, scene: Scene) -> tuple[str, str]:
    if len(scene.things) == 1:
        return "How many things are there?", "1"
    first, second = stream.sample(scene.things, 2)
    asked = f"Is the {first.colour} {first.shape} {stream.choice(('to the left of', 'to the right of', 'above', 'below'))}"
    way = asked.split(f"{first.shape} ", 1)[1]
    dx, dy = first.x - second.x, first.y - second.y
    true = {"to the left of": dx < 0, "to the right of": dx > 0, "above": dy < 0, "below": dy > 0}[way]
    return f"{asked} the {second.colour} {second.shape}?", "yes" if true else "no"


def questions(scene: Scene) -> list[dict[str, str]]:
    """Ask five questions about what the image shows: ``{kind, question, answer}`` (count, existence, colour, shape, place)."""
    stream = Stream(scene.seed, scene.row, QUESTIONS)
    makers = (_count_question, _existence_question, _colour_question, _shape_question, _place_question)
    kinds = ("count", "existence", "colour", "shape", "place")
    asked = [(kind, *make(stream, scene)) for kind, make in zip(kinds, makers, strict=True)]
    return [{"kind": kind, "question": question, "answer": answer} for kind, question, answer in asked]


def _expression(stream: Stream, scene: Scene, thing: Thing) -> str:
    """Name one thing by the fewest attributes that single it out."""
    same_shape = [other for other in scene.things if other.shape == thing.shape]
    same_colour = [other for other in scene.things if other.colour == thing.colour]
    options = [f"the {thing.colour} {thing.shape}"]
    if len(same_shape) == 1:
        options.append(f"the {thing.shape}")
    if len(same_colour) == 1:
        options.append(f"the {thing.colour} one")
    if thing is scene.main:
        options.append("the largest thing")
    if thing.x == min(other.x for other in scene.things) and len(scene.things) > 1:
        options.append("the thing furthest to the left")
    return stream.choice(options)


def references(scene: Scene, side: int = 48) -> list[dict[str, Any]]:
    """Refer to every thing by words that fit no other: ``{expression, x0, y0, x1, y1}`` with the frame in pixels."""
    stream = Stream(scene.seed, scene.row, REFERENCES)
    return [{"expression": _expression(stream, scene, thing), **box(thing, side)} for thing in scene.things]
