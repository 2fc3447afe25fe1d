"""Registries and words: strict, helpful, and the same sentence in both spellings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Positive, Registry
from unisono.core.words import Word, parse_chain, parse_word


class Part:
    """A role for this test."""


class Engine(Part):
    """A part with bounds."""

    def __init__(self, *, size: Count = 2, rate: Positive = 1.0, name: str = "a", on: bool = False, inner: Part | None = None) -> None:
        self.size, self.rate, self.name, self.on, self.inner = size, rate, name, on, inner


parts: Registry[Part] = Registry("test-part", Part, package="tests.core", runtime=("width",))
parts.register("engine")(Engine)


def build(spec: Any) -> Any:
    return parts.build(spec, where="here", width=3)


def test_both_spellings_are_the_same_sentence() -> None:
    for spec in ("engine(3, rate=0.5, name='b c')", {"type": "engine", "size": 3, "rate": 0.5, "name": "b c"}):
        made = build(spec)
        assert (made.size, made.rate, made.name) == (3, 0.5, "b c")


def test_nested_parts_are_built() -> None:
    assert build("engine(inner=engine(5))").inner.size == 5


def test_numbers_that_yaml_reads_as_text() -> None:
    assert build({"type": "engine", "rate": "1e-3"}).rate == 1e-3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("engin", "did you mean 'engine'"),
        ("engine(siz=1)", "did you mean 'size'"),
        ("engine(size=0)", "greater than or equal to 1"),
        ("engine(rate=0)", "greater than 0"),
        ("engine(size=true)", "expected int, got true"),
        ("engine(on=1)", "true or false"),
        ({"type": "engine", "name": False}, "in quotes"),
        ("engine(1, size=2)", "given twice"),
        ("engine(1, 2, a, true, engine, 6)", "at most 5"),
        ("engine(width=3)", "width is unknown"),
        ("engine(size=x)", "size"),
        ("engine(", "expected"),
        ("engine(1) extra", "the end"),
        ("engine(size=1, 2)", "come first"),
        ({"size": 1}, "needs the key 'type'"),
        (7, "expected a component"),
    ],
)
def test_refusals_name_place_and_remedy(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(spec)
    assert "here" in str(caught.value)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        parts.register("engine")(Engine)


def test_parameters_have_to_be_keyword_only() -> None:
    with pytest.raises(ValueError, match="keyword-only"):
        parts.register("loose")(lambda size: Part())


def test_deep_nesting_is_refused_not_crashed() -> None:
    with pytest.raises(ConfigError):
        parse_word("a(" * 500 + ")" * 500)


LITERALS = {"true", "false", "null", "none"}
values = st.recursive(
    st.integers(-99, 99)
    | st.booleans()
    | st.none()
    | st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(lambda t: t not in LITERALS),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(
    name=st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True),
    positional=st.lists(values, max_size=3),
    named=st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), values, max_size=3),
)
def test_words_are_read_back_as_written(name: str, positional: list[Any], named: dict[str, Any]) -> None:
    word = Word(name, tuple(positional), named)
    assert parse_word(str(word)) == word


def test_chains_and_arrows() -> None:
    assert [w.name for w in parse_chain("source & bottleneck(2)")] == ["source", "bottleneck"]
    assert parse_word("cross(a <- b)").positional == ("a", "b")
