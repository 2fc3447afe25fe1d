"""What tokens can be called: the names that ``on``, ``cross`` and ``fork`` choose by.

Letters: T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unisono.core.errors import ConfigError, nearest
from unisono.core.schema import MODALITIES
from unisono.core.tokens import Meta
from unisono.core.words import Word, parse_word

#: Words that choose by a number in the tokens' metadata.
_NUMBERED = ("level", "source")


@dataclass(frozen=True)
class Names:
    """The names in a model, each at its index in the tokens' metadata.

    Attributes:
        modalities: modality words.
        columns: columns.
        sources: sources.
        tasks: targets.
    """

    modalities: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def known(self) -> list[str]:
        """Every word that selects tokens."""
        return [*self.modalities, *self.sources, *self.columns, *MODALITIES, "inserted", "level(0)", "source(0)", "task(NAME)"]


@dataclass(frozen=True)
class Selection:
    """Tokens by name: the union of its words.

    A word is the name of a modality, source or column (in this order, should several bear it), ``inserted`` for tokens that a step put
    in, ``level(k)`` for those of a scale, ``source(k)`` for those of a source by its number, ``task(name)`` for those of a fork's branch. A
    modality that the table does not have selects nothing.
    """

    words: tuple[Word, ...]
    names: Names
    where: str

    @classmethod
    def of(cls, spec: Any, names: Names, where: str) -> Selection:
        """Read a word or a list of words.

        Raises:
            ConfigError: nothing bears the name.
        """
        given = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
        words = tuple(w if isinstance(w, Word) else parse_word(str(w), where) for w in given)
        if not words:
            raise ConfigError(f"{where}: names of modalities, sources or columns are missing")
        for word in words:
            _check(word, names, where)
        return cls(words, names, where)

    def __str__(self) -> str:
        return ", ".join(map(str, self.words))

    def mask(self, meta: Meta) -> NDArray[np.bool_]:
        """(T,) the selected tokens."""
        found = np.zeros(len(meta), np.bool_)
        for word in self.words:
            found |= _mask(word, self.names, meta)
        return found


def _check(word: Word, names: Names, where: str) -> None:
    if word.name in _NUMBERED and len(word.positional) == 1 and isinstance(word.positional[0], int) and not word.named:
        return
    if word.name == "task" and len(word.positional) == 1 and not word.named:
        task = str(word.positional[0])
        if task not in names.tasks:
            raise ConfigError(f"{where}: there is no target {task!r}{nearest(task, names.tasks)}")
        return
    plain = not word.positional and not word.named
    if not plain or word.name not in {*names.modalities, *names.sources, *names.columns, *MODALITIES, "inserted"}:
        raise ConfigError(f"{where}: no modality, source or column is called {str(word)!r}{nearest(str(word), names.known())}")


def _mask(word: Word, names: Names, meta: Meta) -> NDArray[np.bool_]:
    if word.name in _NUMBERED and word.positional:
        return np.asarray(getattr(meta, word.name).numpy() == word.positional[0])
    if word.name == "task" and word.positional:
        none = np.zeros(len(meta), np.bool_)
        return none if meta.task is None else np.asarray(meta.task.numpy() == names.tasks.index(str(word.positional[0])))
    if word.name in names.modalities:
        return np.asarray(meta.modality.numpy() == names.modalities.index(word.name))
    if word.name in names.sources:
        return np.asarray(meta.source.numpy() == names.sources.index(word.name))
    if word.name in names.columns:
        return np.asarray(meta.column.numpy() == names.columns.index(word.name))
    return np.asarray(meta.column.numpy() < 0) if word.name == "inserted" else np.zeros(len(meta), np.bool_)
