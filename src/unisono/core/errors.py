"""What can go wrong, said so that a person can mend it.

Every message answers three questions: what happened, where (file, row, column), and what to do.
``UserError`` and its kin stand for a mistake that the caller can correct (exit code 2 on the command line); every other
``UnisonoError`` is a failure of the work itself (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnisonoError(Exception):
    """A failure that is explained to the person instead of shown as a traceback."""

    exit_code = 1


class UserError(UnisonoError):
    """A mistake in what was asked for: the message says how to correct it."""

    exit_code = 2


class ConfigError(UserError):
    """A recipe, setting or component option that is not a sentence of the language."""


class TableError(UserError):
    """A table that cannot be read, or that does not hold what was asked of it."""


class SchemaError(UserError):
    """A column, target or split that cannot be used the way it was asked."""


class FilterError(UserError):
    """A row filter that is no expression of the filter grammar."""


class ModelFolderError(UserError):
    """A model folder that is absent, damaged, or made by a newer version."""


class IndexFolderError(UserError):
    """An index that is absent, damaged, made by a newer version, or made by another model."""


class QueryError(UserError):
    """A search that cannot be answered as it was asked."""


class BudgetError(UserError):
    """A time budget too small for the work; the message says how much is needed."""


class DependencyError(UserError):
    """An optional library that is needed here and not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the library {library}; install it with: pip install 'unisono[{extra}]'")


class TrainingError(UnisonoError):
    """Training cannot go on (a loss that is not a number, say); the last checkpoint is intact."""


class ResourceError(UnisonoError):
    """The machine lacks something: disk space, memory, a port."""


class ShapeError(UnisonoError, ValueError):
    """Arrays whose shapes do not fit an operation."""


class Unreadable(Exception):  # noqa: N818 - a signal between a decoder and the reader that knows the place
    """Raised by a decoder: this cell cannot be read, for this reason.

    The caller, who knows the file, row and column, turns it into a ``CellError`` or counts it as a bad cell.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CellError(TableError):
    """One cell that cannot be read.

    Args:
        file: the table's file, or a word for a table in memory.
        row: the row's number, counted from 0 without the header.
        column: the column's name.
        reason: what is wrong with the cell.
    """

    def __init__(self, file: str, row: int, column: str, reason: str) -> None:
        super().__init__(
            f"{file}: row {row}, column {column!r}: {reason}; mend the cell, or go on without such cells with --bad-cells missing"
        )
        self.file, self.row, self.column, self.reason = file, row, column, reason


def nearest(word: str, words: Iterable[str]) -> str:
    """Say which valid words there are, and which of them the given one most resembles.

    Args:
        word: what was written.
        words: what could have been written.

    Returns:
        A clause to end an error message with, beginning with a semicolon; empty when there are no words.
    """
    known = sorted({str(w) for w in words})
    if not known:
        return ""
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(known[:20]) + (f", and {len(known) - 20} more" if len(known) > 20 else "")
    return f"{hint} (known: {listed})" if hint else f"; known: {listed}"
