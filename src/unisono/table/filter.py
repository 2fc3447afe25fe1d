"""Row filters: ``split = test and (age >= 3 or name in (tom, "old tom")) and photo is not null``.

The grammar, in which words such as ``and`` may be written in any case::

    either     = both ("or" both)*
    both       = not ("and" not)*
    not        = "not" not | "(" either ")" | test
    test       = column ("is" ["not"] "null" | ["not"] "in" list | operator value)
    operator   = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    list       = ("(" | "[") value ("," value)* (")" | "]")

A column or value is one word, or anything in quotes (single, double, or backquotes; a doubled quote stands for itself). Quotes never
change what a value means. Values are numbers in a numeric column, ISO dates in a date column, true and false in a boolean one; in text
they are compared as numbers where both sides are numbers, as dates where both are ISO dates, and as text otherwise.

Logic has three values: a comparison with null (or NaN, which is a missing number) is unknown, and so is its negation; a row is chosen
only where the filter is true. Nothing is ever evaluated as a program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import FilterError, nearest
from unisono.table.compare import Kleene, compare, is_null, settled

_LENGTH, _DEPTH, _ITEMS = 20_000, 50, 5_000
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`)|(?P<operator>==|!=|<>|<=|>=|[=<>])"""
    r"""|(?P<mark>[()\[\],])|(?P<word>[^\s()\[\],=<>!'"`]+)|(?P<bad>\S))"""
)
_SAME = {"=": "==", "<>": "!="}


@dataclass(frozen=True)
class Token:
    """A piece of the text.

    Attributes:
        kind: ``quoted``, ``operator``, ``mark``, ``word`` or ``end``.
        text: the piece without its quotes.
        at: where it begins.
    """

    kind: str
    text: str
    at: int

    def is_word(self, *words: str) -> bool:
        """Say whether this is one of the given unquoted words, in any case."""
        return self.kind == "word" and self.text.lower() in words


@dataclass(frozen=True)
class Test:
    """``column operator values``, where the operator is a comparison, ``in`` or ``null``."""

    column: str
    operator: str
    values: tuple[str, ...]
    at: int
    value_at: tuple[int, ...] = ()


@dataclass(frozen=True)
class Logic:
    """``and``, ``or`` or ``not`` over parts."""

    word: str
    parts: tuple[Logic | Test, ...]


class Filter:
    """A parsed filter.

    Attributes:
        text: as it was written.
        columns: the columns that it looks at.
    """

    def __init__(self, text: str, root: Logic | Test) -> None:
        """Wrap a parsed expression.

        Args:
            text: as it was written.
            root: the expression.
        """
        self.text, self._root = text, root
        self._tests = list(_tests(root))
        self.columns = frozenset(t.column for t in self._tests)

    def __repr__(self) -> str:
        return f"Filter({self.text!r})"

    def check(self, names: Iterable[str]) -> None:
        """Refuse a filter on columns that a table does not have.

        Args:
            names: the table's columns.

        Raises:
            FilterError: with the place and the nearest column.
        """
        known = list(names)
        for test in self._tests:
            if test.column not in known:
                raise _error(self.text, test.at, f"there is no column {test.column!r}{nearest(test.column, known)}")

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Say for each row whether it is chosen.

        Args:
            table: rows with at least ``self.columns``.

        Raises:
            FilterError: a column is absent, or holds something that cannot be compared so.
        """
        self.check(table.column_names)
        true, _ = self._evaluate(self._root, table)
        return true

    def _evaluate(self, node: Logic | Test, table: pa.Table) -> Kleene:
        """Return which rows are true and which are false; the others are unknown."""
        if isinstance(node, Test):
            return self._test(node, table)
        results = [self._evaluate(part, table) for part in node.parts]
        if node.word == "not":
            return results[0][1], results[0][0]
        true, false = results[0]
        for other_true, other_false in results[1:]:
            if node.word == "and":
                true, false = true & other_true, false | other_false
            else:
                true, false = true | other_true, false & other_false
        return true, false

    def _test(self, test: Test, table: pa.Table) -> Kleene:
        column = table.column(test.column)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
        if test.operator == "null":
            null = is_null(array)
            return null, ~null
        true = np.zeros(len(array), bool)
        false = np.ones(len(array), bool)
        array = settled(array)
        for value, at in zip(test.values, test.value_at, strict=True):
            try:
                part = compare(array, "==" if test.operator == "in" else test.operator, value)
            except ValueError as error:
                raise _error(self.text, at, f"column {test.column!r} {error}") from None
            true, false = true | part[0], false & part[1]
        return true, false


def _tests(node: Logic | Test) -> Iterable[Test]:
    if isinstance(node, Test):
        yield node
        return
    for part in node.parts:
        yield from _tests(part)


def parse_filter(text: str) -> Filter:
    """Parse a filter.

    Args:
        text: the filter; see the grammar at the top of this module.

    Raises:
        FilterError: it is no sentence of the grammar; the message points at the place.
    """
    if len(text) > _LENGTH:
        raise FilterError(f"the filter has {len(text)} characters; at most {_LENGTH} are allowed")
    parser = _Parser(text)
    return Filter(text, parser.whole())


def _error(text: str, at: int, reason: str) -> FilterError:
    """Return an error that shows the place."""
    line_start = text.rfind("\n", 0, at) + 1
    line = text[line_start:].split("\n", 1)[0]
    place = at - line_start
    begin = max(0, place - 60)
    shown = line[begin : place + 40].replace("\t", " ")
    return FilterError(f"in the filter: {reason}\n  {shown}\n  {' ' * (place - begin)}^")


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at, self.depth = text, _tokens(text), 0, 0

    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def fail(self, reason: str, token: Token | None = None) -> FilterError:
        token = token or self.now
        found = "the end" if token.kind == "end" else repr(token.text)
        return _error(self.text, token.at, f"{reason}, found {found}")

    def whole(self) -> Logic | Test:
        if self.now.kind == "end":
            raise FilterError("the filter is empty; write one such as split = test")
        node = self.either()
        if self.now.kind != "end":
            raise self.fail("expected 'and', 'or' or the end (a value of several words needs quotes)")
        return node

    def either(self) -> Logic | Test:
        parts = [self.both()]
        while self.now.is_word("or"):
            self.next()
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Logic("or", tuple(parts))

    def both(self) -> Logic | Test:
        parts = [self.negated()]
        while self.now.is_word("and"):
            self.next()
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else Logic("and", tuple(parts))

    def negated(self) -> Logic | Test:
        self.depth += 1
        if self.depth > _DEPTH:
            raise _error(self.text, self.now.at, f"more than {_DEPTH} levels of parentheses and negations")
        if self.now.is_word("not"):
            self.next()
            node: Logic | Test = Logic("not", (self.negated(),))
        elif self.now.kind == "mark" and self.now.text == "(":
            self.next()
            node = self.either()
            if self.now.text != ")" or self.now.kind != "mark":
                raise self.fail("expected ')'")
            self.next()
        else:
            node = self.test()
        self.depth -= 1
        return node

    def test(self) -> Logic | Test:
        name = self.next()
        if name.kind not in {"word", "quoted"} or name.is_word("and", "or", "not", "in", "is", "null"):
            raise self.fail("expected a column", name)
        if self.now.is_word("is"):
            self.next()
            negative = self.accept("not")
            if not self.accept("null"):
                raise self.fail("expected 'null'")
            node: Logic | Test = Test(name.text, "null", (), name.at)
            return Logic("not", (node,)) if negative else node
        negative = self.accept("not")
        if self.accept("in"):
            values = self.values()
            node = Test(name.text, "in", tuple(v.text for v in values), name.at, tuple(v.at for v in values))
            return Logic("not", (node,)) if negative else node
        if negative or self.now.kind != "operator":
            raise self.fail("expected 'in'" if negative else "expected one of = != < <= > >= in is after the column")
        operator = self.next().text
        value = self.value()
        return Test(name.text, _SAME.get(operator, operator), (value.text,), name.at, (value.at,))

    def accept(self, word: str) -> bool:
        if self.now.is_word(word):
            self.next()
            return True
        return False

    def value(self) -> Token:
        token = self.next()
        if token.is_word("null"):
            raise _error(self.text, token.at, "nothing equals null; write 'is null' or 'is not null'")
        if token.kind not in {"word", "quoted"} or token.is_word("and", "or", "not", "in", "is"):
            raise self.fail("expected a value", token)
        return token

    def values(self) -> Sequence[Token]:
        begin = self.next()
        if begin.kind != "mark" or begin.text not in "([":
            raise self.fail("expected '(' after 'in'", begin)
        end = ")" if begin.text == "(" else "]"
        values = [self.value()]
        while self.now.kind == "mark" and self.now.text == ",":
            self.next()
            values.append(self.value())
        if self.now.kind != "mark" or self.now.text != end:
            raise self.fail(f"expected ',' or '{end}'")
        self.next()
        if len(values) > _ITEMS:
            raise _error(self.text, begin.at, f"a list of more than {_ITEMS} values")
        return values


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while match := _TOKEN.match(text, at):
        kind: Any = match.lastgroup
        piece, begin = match.group(kind), match.start(kind)
        if kind == "bad":
            reason = "a quote that is never closed" if piece in "'\"`" else f"{piece!r} means nothing here"
            raise _error(text, begin, reason)
        if kind == "quoted":
            piece = piece[1:-1].replace(piece[0] * 2, piece[0])
        tokens.append(Token(kind, piece, begin))
        at = match.end()
    tokens.append(Token("end", "", len(text.rstrip())))
    return tokens
