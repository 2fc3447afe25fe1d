"""Measuring a model's shared space on a table: what finds what across sources, classes by their names alone, and the space itself.

Letters: N rows, E width of a vector.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unisono.core.errors import CellError, SchemaError, UserError, nearest
from unisono.core.schema import Schema
from unisono.model.contents import read_contents
from unisono.retrieve import measures
from unisono.retrieve.measures import Vectors
from unisono.retrieve.space import Space, retrieval, space_figures, zero_shot
from unisono.table.cache import TableCache
from unisono.table.filter import parse_filter
from unisono.table.source import Raw, TableSource

#: What a class's name is put into where no template is given.
TEMPLATE = "{}"
#: A column of more values than this names no classes.
MOST_CLASSES = 10_000


class Aligned(Protocol):
    """What is needed of a model: its columns, and one vector for each row and source."""

    schema: Schema

    @property
    def product(self) -> bool:
        """Whether several sources together seek another."""
        ...

    def embeddings(self, data: Any) -> Iterator[pa.RecordBatch]:
        """Columns ``embedding`` and ``embedding.SOURCE``, null where absent."""
        ...


@dataclass(frozen=True)
class SpaceQuestions:
    """What is to be measured.

    Attributes:
        where: a filter on rows.
        group: a column whose equal values are one item.
        zero_shot: a column whose values name classes.
        templates: phrasings of a class's name, each with ``{}`` in its place.
        text: the text source that the phrasings are given as; None for the only one.
        seed: of intervals and samples.
    """

    where: str | None = None
    group: str | None = None
    zero_shot: str | None = None
    templates: Sequence[str] = ()
    text: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for template in self.templates:
            if "{}" not in template:
                raise UserError(f"--template {template!r}: write {{}} where the class's name goes, for example 'a picture of a {{}}'")
        if (self.templates or self.text is not None) and self.zero_shot is None:
            raise UserError("--template and --text are for classes named in words: say which column names them with --zero-shot")

    def refuse_without_retrieval(self) -> None:
        """Nothing that is asked for is left out silently.

        Raises:
            UserError: something is asked for that only retrieval measures.
        """
        for option, value in (("group", self.group), ("zero-shot", self.zero_shot)):
            if value is not None:
                raise UserError(f"--{option} {value}: this belongs to --retrieval")


@dataclass(frozen=True)
class Laid:
    """A table laid out in a model's space.

    Attributes:
        space: vectors and what belongs together.
        cache: the table.
        rows: (N,) the table's rows that are in the space.
    """

    space: Space
    cache: TableCache
    rows: NDArray[np.int64]


def evaluate_space(
    model: Aligned, source: TableSource, questions: SpaceQuestions, *, then: Callable[[dict[str, Any], Laid], None] | None = None
) -> dict[str, Any]:
    """The object that ``evaluate --retrieval --json`` prints.

    Args:
        model: with a shared space.
        source: the table.
        questions: what is to be measured.
        then: called with the result while the table can still be read.

    Returns:
        ``{"retrieval": [{"from", "to", "r@1", ..., "n", "ci95"}], "space": {...}}``, and with classes
        ``"zero_shot": [{"from", "column", "accuracy", ...}]``.

    Raises:
        UserError: the model has no shared space, or a column is absent.
    """
    check_aligned(model)
    with tempfile.TemporaryDirectory(prefix="unisono-") as folder:
        laid = lay_out(model, source, TableCache.write(source, Path(folder)), questions)
        found = measured(model, laid, questions)
        if then is not None:
            then(found, laid)
        return found


def check_aligned(model: Any) -> None:
    """Make sure that a model's sources share a space.

    Raises:
        UserError: they do not; the message names the step that is missing.
    """
    if not getattr(model, "aligned", False):
        raise UserError("the model has no shared space to search in: fit one with unisono fit TABLE --align (in Python: align=True)")


def measured(model: Aligned, laid: Laid, questions: SpaceQuestions) -> dict[str, Any]:
    """Every figure of a laid-out table."""
    found: dict[str, Any] = {
        "retrieval": retrieval(laid.space, product=model.product, seed=questions.seed),
        "space": space_figures(laid.space, seed=questions.seed),
    }
    if questions.zero_shot is not None:
        found["zero_shot"] = classified(model, laid, questions)
    return found


def lay_out(model: Aligned, source: TableSource, cache: TableCache, questions: SpaceQuestions) -> Laid:
    """Embed the rows that a filter leaves, and find out which are one item.

    Raises:
        UserError: a column is absent, the filter leaves no row, or no row has a vector.
    """
    names = cache.schema.names
    for option, column in (("group", questions.group), ("zero-shot", questions.zero_shot)):
        if column is not None and column not in names:
            raise SchemaError(f"--{option}: {cache.name} has no column {column!r}{nearest(column, names)}")
    rows = chosen_rows(cache, questions.where)
    vectors, present = embedded(model, filtered(source, cache, rows), rows)
    if not any(p.any() for p in present.values()):
        raise SchemaError(f"{cache.name}: no row has a cell of any source, so there is nothing to search")
    group = questions.group or model.schema.roles.get("item")
    known = replace(model.schema, columns=tuple(c for c in model.schema.columns if c.name in names))
    contents = read_contents(cache, known, group if group in names else None)
    nothing = np.zeros(len(rows), np.int64)
    cells = {s: contents.cells[s][rows] if s in contents.cells else nothing for s in vectors}
    return Laid(Space(vectors, present, cells, measures.places(contents.item[rows])), cache, rows)


def chosen_rows(cache: TableCache, where: str | None) -> NDArray[np.int64]:
    """The rows that a filter leaves.

    Raises:
        SchemaError: it leaves none.
    """
    if where is None:
        return np.arange(cache.num_rows, dtype=np.int64)
    chosen = parse_filter(where)
    chosen.check(cache.schema.names)
    mask = np.concatenate([chosen.mask(pa.Table.from_batches([b])) for b in cache.batches(sorted(chosen.columns))])
    rows = np.flatnonzero(mask).astype(np.int64)
    if len(rows) == 0:
        raise SchemaError(f"{cache.name}: no row satisfies {where!r}")
    return rows


def filtered(source: TableSource, cache: TableCache, rows: NDArray[np.int64]) -> TableSource:
    """Some rows of a cached table as a table of its own, under its name and with its media."""

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(rows), max_rows):
            yield from cache.take(rows[start : start + max_rows]).combine_chunks().to_batches()

    return TableSource(Raw(schema=cache.schema, opener=opener, num_rows=len(rows)), name=source.name, root=source.root)


def embedded(model: Aligned, table: TableSource, rows: NDArray[np.int64]) -> tuple[dict[str, Vectors], dict[str, NDArray[np.bool_]]]:
    """Vectors (N, E) and presence (N,) of every source.

    Raises:
        CellError: a cell cannot be read; the row is that of the whole table.
    """
    parts: dict[str, list[Vectors]] = {}
    flags: dict[str, list[NDArray[np.bool_]]] = {}
    try:
        for batch in model.embeddings(table):
            for source in [s for s in model.schema.sources if f"embedding.{s}" in batch.schema.names]:
                parts.setdefault(source, [])
                flags.setdefault(source, [])
                values, there = fixed_vectors(batch.column(batch.schema.names.index(f"embedding.{source}")))
                parts[source].append(values)
                flags[source].append(there)
    except CellError as error:
        raise CellError(error.file, int(rows[error.row]), error.column, error.reason) from None
    return {s: np.concatenate(p) for s, p in parts.items()}, {s: np.concatenate(p) for s, p in flags.items()}


def fixed_vectors(column: pa.Array) -> tuple[Vectors, NDArray[np.bool_]]:
    """A fixed-size list column as (N, E), zero where null, and whether each is there."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    width = column.type.list_size
    values = np.zeros((len(column), width), np.float32)
    values[there] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return values, there


# -- classes by their names ------------------------------------------------------------------------------------------------------


def classified(model: Aligned, laid: Laid, questions: SpaceQuestions) -> list[dict[str, Any]]:
    """Zero-shot classification from every source that neither is the text nor holds the classes' column.

    Raises:
        UserError: there is no text source to name classes in, or the column names none.
    """
    column = str(questions.zero_shot)
    text = text_source(model.schema, questions.text)
    values = laid.cache.take(laid.rows, [column]).column(column)
    try:
        words = pc.cast(values, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SchemaError(f"--zero-shot: the column {column!r} of {laid.cache.name} holds {values.type}, which names no classes") from None
    names = [n for n in pc.unique(words.drop_null()).to_pylist() if n.strip()]
    if not 2 <= len(names) <= MOST_CLASSES:
        raise SchemaError(
            f"--zero-shot: the column {column!r} of {laid.cache.name} names {len(names)} classes; 2 to {MOST_CLASSES:,} can be told apart"
        )
    templates = list(questions.templates) or [TEMPLATE]
    classes = named_vectors(model, text, names, templates)
    place = {name: k for k, name in enumerate(names)}
    labels = np.array([place.get(w, -1) for w in words.to_pylist()], np.int64)
    holds = {c.source for c in model.schema.columns if c.name == column}
    found = []
    for source in laid.space.sources:
        if source == text or source in holds:
            continue
        rows = laid.space.rows(source)
        rows = rows[labels[rows] >= 0]
        figures = zero_shot(laid.space.of(source, rows), labels[rows], classes, seed=questions.seed)
        found.append({"from": source, "column": column, "text": text, "templates": templates, **figures})
    return found


def text_source(schema: Schema, named: str | None) -> str:
    """The column that takes text.

    Raises:
        UserError: there is none, several and none was named, or the named one takes no text.
    """
    texts = [c.name for c in schema.columns if c.modality == "text"]
    if named is not None:
        if named not in texts:
            raise UserError(f"--text {named}: no text column of the model{nearest(named, texts)}; it has {', '.join(texts) or 'none'}")
        return named
    if not texts:
        raise UserError("--zero-shot: the model reads no text, so classes cannot be named to it")
    if len(texts) > 1:
        raise UserError(f"--zero-shot: the model reads several texts ({', '.join(texts)}); say which takes the classes' names with --text")
    return texts[0]


def named_vectors(model: Aligned, column: str, names: Sequence[str], templates: Sequence[str]) -> Vectors:
    """The vector of every class, (L, E), from phrasings of its name.

    Raises:
        UserError: a phrasing has no vector.
    """
    phrasings = [template.replace("{}", name) for name in names for template in templates]
    source = next(c.source for c in model.schema.columns if c.name == column)
    many = next(c.many for c in model.schema.columns if c.name == column)
    table = pa.table({c.name: pa.nulls(len(phrasings)) for c in model.schema.columns})
    table = table.set_column(table.column_names.index(column), column, pa.array([[p] for p in phrasings] if many else phrasings))
    parts = [fixed_vectors(b.column(b.schema.names.index(f"embedding.{source}"))) for b in model.embeddings(table)]
    there = np.concatenate([p[1] for p in parts])
    if not there.all():
        raise UserError(f"--zero-shot: the model makes nothing of {phrasings[int(np.flatnonzero(~there)[0])]!r}")
    vectors = np.concatenate([p[0] for p in parts])
    return measures.class_vectors(list(vectors.reshape(len(names), len(templates), -1)))
