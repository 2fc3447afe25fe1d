"""Words of the recipe language: ``attention(heads=3)`` and ``{type: attention, heads: 3}`` are the same sentence.

Grammar::

    word   := NAME [ "(" [ item { ("," | "<-") item } ] ")" ]
    item   := [ NAME "=" ] value
    value  := number | true | false | null | 'text' | "text" | "[" [ value { "," value } ] "]" | word
    chain  := word { "&" word }

A bare name used as a value stays text; a name with parentheses becomes a nested word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unisono.core.errors import ConfigError

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![A-Za-z_0-9]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_.\-]*)
    | (?P<text>'[^']*'|"[^"]*")
    | (?P<arrow><-)
    | (?P<sign>[()\[\],=&])
    )""",
    re.VERBOSE,
)
_MAX_DEPTH = 32
_LITERALS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None, "True": True, "False": False, "None": None}


@dataclass(frozen=True)
class Word:
    """A component's name with its settings.

    Attributes:
        name: the registered name.
        positional: values given without a name, in the order of the component's signature.
        named: values given by name.
    """

    name: str
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [_show(v) for v in self.positional] + [f"{k}={_show(v)}" for k, v in self.named.items()]
        return f"{self.name}({', '.join(parts)})" if parts else self.name

    def __call__(self, *positional: Any, **named: Any) -> Word:
        """The same word with other settings."""
        return Word(self.name, positional, named)

    def __and__(self, other: object) -> Chain:
        """Both joined by ``&``."""
        return Chain((self,)) & other


@dataclass(frozen=True)
class Chain:
    """Words joined by ``&``, as scopes are written."""

    words: tuple[Word, ...]

    def __str__(self) -> str:
        return " & ".join(map(str, self.words))

    def __and__(self, other: object) -> Chain:
        """With further words."""
        if isinstance(other, Word):
            return Chain((*self.words, other))
        return Chain((*self.words, *other.words)) if isinstance(other, Chain) else NotImplemented


def _show(value: Any) -> str:
    """A value as it is written in a sentence.

    Raises:
        ConfigError: no sentence can hold it.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_show(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Word):
        return str(value) if value.positional or value.named else _quoted(value.name)
    if isinstance(value, str | Chain):
        return _quoted(str(value))
    number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if isinstance(number, int | float) and math.isfinite(number):
        return repr(number)
    raise ConfigError(f"a word holds numbers, truth values, texts, lists and words, not {value!r}")


def as_setting(value: Word | Chain) -> Any:
    """A word as a recipe's file holds it: a text, or where it holds a mapping, which no text can, a mapping with a ``type``.

    Raises:
        ConfigError: neither can hold it.
    """
    text = str(value)
    if isinstance(value, Chain) or not any(map(_holds_mapping, (*value.positional, *value.named.values()))):
        return text
    if value.positional:
        raise ConfigError(f"{text}: a word that holds a mapping has to give all its settings by name")
    return {"type": value.name, **{k: as_setting(v) if isinstance(v, Word | Chain) else v for k, v in value.named.items()}}


def _holds_mapping(value: Any) -> bool:
    if isinstance(value, Word):
        return any(map(_holds_mapping, (*value.positional, *value.named.values())))
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(map(_holds_mapping, value)))


def _quoted(text: str) -> str:
    """A text, in quotes unless it reads as a plain name."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.\-]*", text) and text not in _LITERALS:
        return text
    sign = "'" if "'" not in text else '"'
    if sign in text:
        raise ConfigError(f"no word can hold a text with both kinds of quotes: {text!r}")
    return f"{sign}{text}{sign}"


class _Reader:
    """Recursive descent over one sentence."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.tokens, self.at = text, where, _tokens(text, where), 0

    def fail(self, expected: str) -> ConfigError:
        place = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        return ConfigError(f"{self.where}: {self.text!r} is no sentence of the language: expected {expected} at character {place + 1}")

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at][:2] if self.at < len(self.tokens) else ("end", "")

    def take(self, sign: str) -> bool:
        if self.peek() == ("sign", sign):
            self.at += 1
            return True
        return False

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise self.fail(repr(sign))

    def word(self, depth: int = 0) -> Word:
        kind, name = self.peek()
        if kind != "name":
            raise self.fail("a name")
        self.at += 1
        return self.arguments(name, depth) if self.take("(") else Word(name)

    def arguments(self, name: str, depth: int) -> Word:
        if depth > _MAX_DEPTH:
            raise self.fail(f"at most {_MAX_DEPTH} nested words")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        while not self.take(")"):
            if positional or named:
                if self.peek()[0] == "arrow":
                    self.at += 1
                else:
                    self.need(",")
            self.item(positional, named, depth)
        return Word(name, tuple(positional), named)

    def item(self, positional: list[Any], named: dict[str, Any], depth: int) -> None:
        kind, text = self.peek()
        following = self.tokens[self.at + 1][:2] if self.at + 1 < len(self.tokens) else ("end", "")
        if kind == "name" and following == ("sign", "="):
            self.at += 2
            if text in named:
                raise ConfigError(f"{self.where}: {text!r} is given twice in {self.text!r}")
            named[text] = self.value(depth)
        elif named:
            raise self.fail("a named setting (settings without a name come first)")
        else:
            positional.append(self.value(depth))

    def value(self, depth: int) -> Any:
        kind, text = self.peek()
        if kind == "number":
            self.at += 1
            return float(text) if re.search(r"[.eE]", text) else int(text)
        if kind == "text":
            self.at += 1
            return text[1:-1]
        if self.take("["):
            values: list[Any] = []
            while not self.take("]"):
                if values:
                    self.need(",")
                values.append(self.value(depth + 1))
            return values
        called = self.at + 1 < len(self.tokens) and self.tokens[self.at + 1][:2] == ("sign", "(")
        word = self.word(depth + 1)
        return word if called else _LITERALS.get(word.name, word.name)


def _tokens(text: str, where: str) -> list[tuple[str, str, int]]:
    found, at, text_end = [], 0, len(text.rstrip())
    while at < text_end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ConfigError(
                f"{where}: {text!r} is no sentence of the language: unexpected {text[at:].strip()[:1]!r} at character {at + 1}"
            )
        kind = match.lastgroup
        found.append((kind, match.group(kind), match.start(kind)))
        at = match.end()
    return found


def parse_word(text: str, where: str = "setting") -> Word:
    """Read one word.

    Args:
        text: the sentence, for example ``attention(heads=3)``.
        where: the place to name in an error.

    Raises:
        ConfigError: the text is no word.
    """
    reader = _Reader(text, where)
    word = reader.word()
    if reader.at < len(reader.tokens):
        raise reader.fail("the end")
    return word


def parse_chain(text: str, where: str = "setting") -> list[Word]:
    """Read words joined by ``&``, as scopes are written.

    Raises:
        ConfigError: the text is no chain of words.
    """
    reader = _Reader(text, where)
    words = [reader.word()]
    while reader.take("&"):
        words.append(reader.word())
    if reader.at < len(reader.tokens):
        raise reader.fail("'&' or the end")
    return words


def as_word(spec: Any, where: str) -> Word:
    """Bring either spelling of a component, text or mapping, into a ``Word``.

    Raises:
        ConfigError: the value is neither.
    """
    if isinstance(spec, Word):
        return spec
    if isinstance(spec, str):
        return parse_word(spec, where)
    if isinstance(spec, Mapping):
        if not isinstance(spec.get("type"), str):
            raise ConfigError(f"{where}: a mapping that stands for a component needs the key 'type'")
        return Word(spec["type"], (), {str(k): v for k, v in spec.items() if k != "type"})
    raise ConfigError(f"{where}: expected a component such as name(setting=value), got {spec!r}")
