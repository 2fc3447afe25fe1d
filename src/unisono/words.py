"""The words of a recipe, written in Python: ``from unisono import words as w``.

``w.attention(heads=3)`` is the word ``attention(heads=3)``, ``w.source`` the word ``source``, ``w.window(7) & w.source`` the scope
``window(7) & source``. A recipe is then a mapping, with the same keys as a file:

    recipe = {
        "extends": "base",
        "defaults": {"mixer": w.attention(heads=4)},
        "trunk": [
            dict(repeat=2, scope=w.source),
            dict(insert=w.bottleneck(4)),
            dict(scope=w.source & w.bottleneck),
            dict(read=w.mean(by="source")),
        ],
    }
    unisono.fit(table, "price", recipe=recipe)

Every name is a word; whether it is one of the language is said where the recipe is used, with the nearest that is. ``w.word("name")``
makes a word whose name cannot be written in Python.
"""

from unisono.core.words import Word as _Word


def word(name: str) -> _Word:
    """The word of a name.

    Args:
        name: of a component.
    """
    return _Word(name)


def __getattr__(name: str) -> _Word:
    """The word of this name."""
    if name.startswith("_"):
        raise AttributeError(f"module 'unisono.words' has no attribute {name!r}")
    return _Word(name)


def __dir__() -> list[str]:
    """The names that are not made up on the way."""
    return ["word"]
