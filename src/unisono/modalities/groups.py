"""Which columns are tokenised together, and the host side of tokenising a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unisono.core.errors import ConfigError
from unisono.core.schema import Column
from unisono.modalities.base import Tokeniser, tokenisers


@dataclass(frozen=True)
class Group:
    """Columns that one tokeniser reads with one module.

    Attributes:
        name: the modality's word for a joint tokeniser, else the column's name.
        tokeniser: its settings.
        columns: one column, or several for a joint tokeniser.
    """

    name: str
    tokeniser: Tokeniser
    columns: tuple[Column, ...]


def choose_tokeniser(column: Column, tokens: Mapping[str, Any], where: str = "recipe.tokens") -> Tokeniser:
    """The tokeniser a recipe names for a column, by the column's name or else by its modality.

    Raises:
        ConfigError: the recipe names none, or one that does not read the modality.
    """
    key = column.name if column.name in tokens else column.modality
    if key not in tokens:
        raise ConfigError(f"{where}: no tokeniser is given for the modality {column.modality!r} of column {column.name!r}")
    tokeniser = tokenisers.build(tokens[key], where=f"{where}.{key}")
    if column.modality not in tokeniser.reads:
        reads = ", ".join(sorted(tokeniser.reads))
        raise ConfigError(f"{where}.{key}: {tokens[key]} reads {reads}, but column {column.name!r} is {column.modality}")
    return tokeniser


def group_columns(columns: Sequence[Column], tokens: Mapping[str, Any]) -> tuple[Group, ...]:
    """Put the columns of a joint tokeniser together, every other column by itself, in schema order.

    Raises:
        ConfigError: a column has no fitting tokeniser.
    """
    groups: dict[str, tuple[Tokeniser, list[Column]]] = {}
    for column in columns:
        tokeniser = choose_tokeniser(column, tokens)
        joint = tokeniser.joint and column.name not in tokens
        name = f"{column.modality}:{column.source}" if joint else f"column:{column.name}"
        groups.setdefault(name, (tokeniser, []))[1].append(column)
    return tuple(Group(name, tokeniser, tuple(members)) for name, (tokeniser, members) in groups.items())
