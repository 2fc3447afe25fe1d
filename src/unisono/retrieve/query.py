"""Composed queries: parts such as a text, a picture or another row, each a unit vector; their weighted sum is what is looked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import CellError, QueryError, TableError, Unreadable, nearest
from unisono.core.media import media_bytes
from unisono.retrieve.build import unit_rows
from unisono.retrieve.embedder import VECTOR, Embedder
from unisono.table.values import column_array

#: Modalities whose cells are files.
FILES = frozenset({"image", "audio", "video"})
#: Modalities whose cells may be files or values.
_EITHER = frozenset({"points", "cube", "series", "graph"})
#: What a query may be short for: the only column of that modality.
SHORT = ("text", "image", "audio")
#: The largest file taken as a query, in bytes.
MAX_UPLOAD = 64 << 20
_SHORTEST = 1e-6


@dataclass(frozen=True)
class Part:
    """One example of what is looked for.

    Attributes:
        label: how it was given, for messages: ``text``, ``image``, ``audio``, ``row`` or a column's name.
        column: the column that it is a cell of; None for a row.
        value: the cell, or the row's key.
        sign: 1, or -1 for what is looked away from.
    """

    label: str
    column: str | None
    value: Any
    sign: int = 1


@dataclass(frozen=True)
class Query:
    """What was asked.

    Attributes:
        parts: the examples.
        weights: label or column -> weight of its parts; 1 for those that are not named.
        to: the side that is searched.
        k: how many hits.
        where: a filter on fields.
    """

    parts: tuple[Part, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    to: str = "row"
    k: int = 10
    where: str | None = None

    def weight(self, part: Part) -> float:
        """The signed weight of a part."""
        named = self.weights.get(part.column or part.label, self.weights.get(part.label, 1.0))
        return part.sign * named

    def to_json(self) -> dict[str, Any]:
        """The query in plain values; files and lists are told by their size."""
        parts = [{"part": p.column or "row", "value": _told(p.value), "weight": self.weight(p)} for p in self.parts]
        return {"parts": parts, "to": self.to, "k": self.k, "where": self.where}


def _told(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"bytes": len(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return {"items": len(value)} if hasattr(value, "__len__") else str(value)


def several(given: Any) -> list[Any]:
    """One example, or a list of them."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def read_query(
    columns: Mapping[str, str],
    sides: Sequence[str],
    *,
    short: Mapping[str, Any],
    row: Any = None,
    query: Any = None,
    minus: Any = None,
    weights: Mapping[str, float] | None = None,
    **asked: Any,
) -> Query:
    """Check what was asked.

    Args:
        columns: input column -> modality.
        sides: what can be searched.
        short: ``text``, ``image`` and ``audio``, each with one example or a list of them.
        row: a key, or a list of keys.
        query: column -> cell, or a list of such mappings.
        minus: the same, to be looked away from; the column ``row`` stands for a key.
        weights: label or column -> weight.
        **asked: ``to``, ``k`` and ``where``.

    Raises:
        QueryError: something is unknown, empty, ambiguous or out of range.
    """
    parts = [Part(word, only_column(columns, word), value) for word, given in short.items() for value in several(given)]
    parts += [Part("row", None, key) for key in several(row)]
    for sign, given in ((1, query), (-1, minus)):
        for mapping in [given] if isinstance(given, Mapping) else several(given):
            parts += [_part(columns, name, value, sign) for name, value in mapping.items()]
    if not any(p.sign > 0 for p in parts):
        raise QueryError("the query is empty: give a text, an image, a sound, a row or a column's value to look for")
    for part in parts:
        if part.value is None or part.value in ("", b""):
            raise QueryError(f"the query's part {part.label!r} is empty; give it a value, or leave it out")
    asked = {name: value for name, value in asked.items() if value is not None}
    found = Query(tuple(parts), _weights(parts, weights or {}), **asked)
    if found.k < 1:
        raise QueryError(f"k is {found.k!r}; at least 1 hit has to be asked for")
    if found.to not in sides:
        raise QueryError(f"the index has no side {found.to!r}{nearest(found.to, sides)}")
    return found


def only_column(columns: Mapping[str, str], modality: str) -> str:
    """The only column of a modality.

    Raises:
        QueryError: there is none, or there are several.
    """
    found = [name for name, word in columns.items() if word == modality]
    if len(found) == 1:
        return found[0]
    if not found:
        words = ", ".join(sorted(set(columns.values())))
        raise QueryError(f"the model reads no {modality}, so nothing can be found by one; it reads {words}")
    raise QueryError(f"there are several columns of {modality}: {', '.join(found)}; say which with --query COLUMN=VALUE")


def _part(columns: Mapping[str, str], name: str, value: Any, sign: int) -> Part:
    if name in columns:
        return Part(name, name, value, sign)
    if name == "row":
        return Part("row", None, value, sign)
    if name in SHORT:
        return Part(name, only_column(columns, name), value, sign)
    raise QueryError(f"the model reads no column {name!r}{nearest(name, columns)}")


def _weights(parts: Sequence[Part], given: Mapping[str, float]) -> dict[str, float]:
    known = {p.label for p in parts} | {p.column for p in parts if p.column is not None}
    for name, weight in given.items():
        if name not in known:
            raise QueryError(f"the weight of {name!r}: the query has no such part{nearest(name, known)}")
        if not math.isfinite(weight) or weight < 0:
            raise QueryError(
                f"the weight of {name!r} is {weight!r}; a weight is a number of at least 0 (to look away from something: minus)"
            )
    return dict(given)


def cell(part: Part, modality: str, root: Path | None = None) -> Any:
    """The value of a part as a cell of a table: files are read, checked and bounded.

    Args:
        part: of a column.
        modality: the column's.
        root: the folder that paths are relative to; None for the current one, and then any place on this machine may be named.

    Raises:
        QueryError: there is no such file, or it is too large.
    """
    value = part.value
    if modality in FILES or (modality in _EITHER and (isinstance(value, Path) or _is_path(value))):
        return _file(part, value, root)
    if isinstance(value, str) and modality in {"number", "vector", "series", "points", "graph", "cube", "boolean"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.lower().endswith((".npy", ".ply", ".xyz", ".csv", ".json"))


def _file(part: Part, value: Any, root: Path | None) -> Any:
    if isinstance(value, bytes | bytearray):
        if len(value) > MAX_UPLOAD:
            raise QueryError(f"the query's part {part.label!r} has {len(value):,} bytes, more than the {MAX_UPLOAD:,} allowed")
        return bytes(value)
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    try:
        return media_bytes(str(path if root is not None else path.name), root if root is not None else path.parent, limit=MAX_UPLOAD)
    except Unreadable as error:
        raise QueryError(f"the query's part {part.label!r}, {value}: {error.reason}") from None


def embed_parts(embedder: Embedder, parts: Sequence[Part], root: Path | None = None) -> NDArray[np.float32]:
    """(parts, E) unit vectors: each part is a row of a table in which all but one cell are missing.

    Args:
        embedder: the model.
        parts: of columns.
        root: the folder that paths are relative to.

    Raises:
        QueryError: a value cannot be read as what its column holds, or says nothing.
    """
    cells = [cell(part, embedder.columns[str(part.column)], root) for part in parts]
    columns = {}
    for name in embedder.columns:
        values = [v if p.column == name else None for p, v in zip(parts, cells, strict=True)]
        columns[name] = column_array(values, name, "the query") if any(v is not None for v in values) else pa.nulls(len(parts))
    try:
        batches = list(embedder.embeddings(pa.table(columns)))
    except CellError as error:
        part = parts[error.row]
        raise QueryError(
            f"the query's part {part.label!r}{_place(part)} cannot be read as {embedder.columns[error.column]}: {error.reason}"
        ) from None
    except TableError as error:
        raise QueryError(f"the query cannot be read: {error}") from None
    found = [unit_rows(b.column(b.schema.get_field_index(VECTOR))) for b in batches]
    present = np.concatenate([p for _, p in found])
    if not present.all():
        part = parts[int(np.flatnonzero(~present)[0])]
        raise QueryError(f"the query's part {part.label!r}{_place(part)} says nothing that the model could read")
    return np.concatenate([v for v, _ in found])


def _place(part: Part) -> str:
    return f", {part.value}," if isinstance(part.value, str | Path) and len(str(part.value)) < 200 else ""


def combine(vectors_ME: NDArray[np.float32], weights_M: Sequence[float]) -> NDArray[np.float32]:
    """The unit vector (E,) along the weighted sum.

    Raises:
        QueryError: the parts cancel out.
    """
    total = np.asarray(weights_M, np.float64) @ vectors_ME.astype(np.float64)
    length = float(np.sqrt(total @ total))
    if length < _SHORTEST * max(1.0, float(np.abs(weights_M).sum())):
        raise QueryError("the query's parts cancel out, so nothing is left to look for; change a weight")
    return np.asarray(total / length, np.float32)
