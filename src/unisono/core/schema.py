"""What is known of a table's columns: the columns that are read, the targets, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: The words for modalities, in the order in which they are listed.
MODALITIES = (
    "number", "category", "boolean", "datetime", "text", "image", "video", "audio",
    "series", "points", "graph", "sequence", "cube", "vector",
)  # fmt: skip
#: What the axes of a cell's grid are, by modality; one that is not listed has no grid.
AXES: Mapping[str, tuple[str, ...]] = {
    "text": ("time",), "image": ("row", "column"), "video": ("time", "row", "column"), "audio": ("time",), "series": ("time",),
    "sequence": ("time",), "cube": ("row", "column", "band"),
}  # fmt: skip
#: Modalities of one value a cell: all such columns together are the source ``table``.
SCALARS = frozenset({"number", "category", "boolean", "datetime"})
#: The source that all scalar columns belong to unless told otherwise.
TABLE_SOURCE = "table"
#: The column that numbers the rows of predictions and embeddings where no column of the table names them.
ROW = "row"


@dataclass(frozen=True)
class Column:
    """One input column.

    Attributes:
        name: its name in the table.
        modality: one of ``MODALITIES``.
        source: the unit of fusion, dropout and missing reports: the column's own name, or ``table`` for scalars.
        index: its place in the schema; what ``Tokens.column`` holds.
        many: a cell is a list of items rather than one.
        reason: why it was taken for this modality, in words.
        options: settings for decoding that a person gave or that detection found (``rate``, ``alphabet``, ...).
        statistics: what the tokeniser fitted on training rows; JSON values only.
    """

    name: str
    modality: str
    source: str
    index: int
    many: bool = False
    reason: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``schema.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """One target column.

    Attributes:
        name: its name in the table.
        task: the task's word: ``category``, ``boolean``, ``number`` or ``labels``.
        reason: why it was taken for this task, in words.
        statistics: classes, class counts, scale, calibration: what the task fitted; JSON values only.
    """

    name: str
    task: str
    reason: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``schema.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Schema:
    """The columns a model reads, the targets it predicts, and the key that names a row.

    Attributes:
        columns: input columns in table order.
        targets: target columns.
        key: the column that names a row, if any.
        left_out: column name -> why it is not read (an identifier, a leaked target, a constant, dropped by the person).
        roles: what else the fit used a column for: ``split``, ``key``, ``group`` or ``time`` -> column name.
    """

    columns: tuple[Column, ...]
    targets: tuple[Target, ...] = ()
    key: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """Source names in table order, each once."""
        return tuple(dict.fromkeys(c.source for c in self.columns))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modality words that occur, in the order of ``MODALITIES``."""
        present = {c.modality for c in self.columns}
        return tuple(m for m in MODALITIES if m in present)
