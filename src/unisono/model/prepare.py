"""From a table to everything training needs: cache, split, schema, statistics, decoded cells, encoded targets.

Nothing that is fitted here sees any but training rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.draw import mix64
from unisono.core.errors import CellError, SchemaError, TableError, nearest
from unisono.core.schema import Column, Schema, Target
from unisono.modalities.base import Cells, Context
from unisono.modalities.category import unseen_categories
from unisono.modalities.groups import choose_tokeniser
from unisono.model.options import FitOptions
from unisono.network import build_task
from unisono.recipe import Recipe
from unisono.table.cache import TableCache
from unisono.table.hashing import codes
from unisono.table.infer import SAMPLE_ROWS, ColumnReport, describe_columns, make_columns
from unisono.table.split import Split, row_fingerprints, split_rows
from unisono.table.store import BadCell, Rows, Store, decode_column
from unisono.tasks.base import decode_target, detect_task

logger = logging.getLogger("unisono")

_FIT_CHUNK = 1024
#: From so many items on, rows of one item stay on one side of a split; fewer are kinds, of which training has to see all.
MANY_ITEMS = 100


@dataclass
class Prepared:
    """A table made ready.

    Attributes:
        cache: its memory-mapped rows.
        schema: columns and targets with fitted statistics.
        reports: what was found out about every column.
        split: which rows train, validate and test.
        store: decoded cells.
        targets: target -> (encoded values, present) of every row.
        bad: unreadable cells.
        notes: what a person should know, in words.
    """

    cache: TableCache
    schema: Schema
    reports: list[ColumnReport]
    split: Split
    store: Store
    targets: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]
    bad: list[BadCell]
    notes: list[str]


def check_names(options: FitOptions, names: Sequence[str], table: str) -> None:
    """Refuse columns that the table does not have.

    Raises:
        SchemaError: with the nearest column name.
    """
    asked = [("target", name) for name in options.targets] + list(options.roles.items())
    asked += [("column", name) for name in options.columns] + [("drop", name) for name in options.drop]
    for role, name in asked:
        if name not in names:
            raise SchemaError(f"{table}: --{role} {name}: there is no column {name!r}{nearest(name, names)}")


def sample_rows(rows: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.int64]:
    """At most ``limit`` of the rows, chosen by a seeded hash of the row, in table order."""
    if limit is None or len(rows) <= limit:
        return rows
    start = mix64(np.array([seed], np.uint64))
    chosen = np.argsort(mix64(rows.astype(np.uint64) ^ start), kind="stable")[:limit]
    return rows[np.sort(chosen)]


def column_roles(options: FitOptions) -> dict[str, str]:
    """Column -> role, for those that are no inputs."""
    roles = dict.fromkeys(options.drop, "left out")
    for role in ("group", "item", "split", "key"):
        name = options.roles.get(role)
        if name is not None and name not in options.columns:
            roles[name] = role
    roles.update(dict.fromkeys(options.targets, "target"))
    return roles


def split_table(cache: TableCache, options: FitOptions) -> Split:
    """Divide the rows of a table as asked."""

    def column(name: str | None) -> pa.ChunkedArray | None:
        return None if name is None else cache.scalars(name)

    exclude = [name for name in (options.key, options.split) if name is not None]
    target = next(iter(options.targets), None)
    group = options.group
    if group is None and options.item is not None and int(codes(cache.scalars(options.item)).max(initial=-1)) + 1 >= MANY_ITEMS:
        group = options.item
    names = {role: name for role, name in {**options.roles, "group": group, "target": target}.items() if name is not None}
    return split_rows(
        cache.num_rows,
        split=column(options.split),
        key=column(options.key),
        group=column(group),
        time=column(options.time),
        target=column(target),
        fingerprints=row_fingerprints(cache.batches(), exclude=exclude),
        seed=options.seed,
        names=names,
    )


def find_targets(cache: TableCache, options: FitOptions, train: NDArray[np.int64]) -> tuple[list[Target], dict[str, Any]]:
    """The targets' tasks, found from training rows or as told, and their decoded cells."""
    targets: list[Target] = []
    decoded: dict[str, Any] = {}
    for name, word in options.targets.items():
        array = pa.chunked_array(cache.scalars(name)).combine_chunks()
        if word is None:
            word, reason = detect_task(array.take(pa.array(train)), name)
        else:
            reason = "as told"
        targets.append(Target(name, word, reason))
        decoded[name] = array
    return targets, decoded


def fit_columns(
    cache: TableCache, columns: Sequence[Column], recipe: Recipe, train: NDArray[np.int64], root: Path | None, seed: int
) -> tuple[Column, ...]:
    """Let every column's tokeniser fit its statistics on training rows."""
    fitted: list[Column] = []
    for column in columns:
        tokeniser = choose_tokeniser(column, recipe["tokens"])
        rows = sample_rows(train, tokeniser.fit_cells, seed)
        statistics = tokeniser.fit(column, _chunks(cache, column, rows, root))
        fitted.append(replace(column, statistics=statistics))
    return tuple(fitted)


def _chunks(cache: TableCache, column: Column, rows: NDArray[np.int64], root: Path | None) -> Iterator[Cells]:
    for start in range(0, len(rows), _FIT_CHUNK):
        array = cache.take(rows[start : start + _FIT_CHUNK], [column.name]).column(column.name)
        yield decode_column(array, column, Context(root)).cells


def encode_targets(
    recipe: Recipe, targets: Sequence[Target], decoded: Mapping[str, pa.Array], train: NDArray[np.int64], file: str, bad_cells: str
) -> tuple[list[Target], dict[str, tuple[NDArray[Any], NDArray[np.bool_]]], list[BadCell]]:
    """Fit every task on training rows and encode all rows.

    Raises:
        CellError: a target cell cannot be read, unless bad cells are to count as missing.
        SchemaError: there is nothing to learn.
    """
    fitted: list[Target] = []
    values: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
    bad: list[BadCell] = []
    for target in targets:
        task = build_task(recipe, target.task)
        column = decode_target(task, decoded[target.name])
        bad += [BadCell(row, target.name, reason) for row, reason in column.bad]
        if column.bad and bad_cells == "fail":
            row, reason = column.bad[0]
            raise CellError(file, row, target.name, reason)
        try:
            statistics = task.fit(column.cells[train], column.type)
        except SchemaError as error:
            raise SchemaError(f"{file}: target {target.name!r}: {error}") from None
        fitted.append(replace(target, statistics=statistics))
        values[target.name] = task.encode(column.cells, statistics)
    return fitted, values, bad


def open_store(cache: Rows, schema: Schema, recipe: Recipe, root: Path | None) -> Store:
    """The decoded cells of a table, with each decoder told what its tokeniser wants."""
    wants = {c.name: choose_tokeniser(c, recipe["tokens"]).wants(c) for c in schema.columns}
    return Store(cache, schema.columns, wants, root)


def scan_cells(store: Store, file: str, bad_cells: str) -> list[BadCell]:
    """Decode every cell once.

    Raises:
        CellError: at the first unreadable cell, unless bad cells are to count as missing.
    """
    bad: list[BadCell] = []
    for _, found in store.scan():
        if found and bad_cells == "fail":
            raise CellError(file, found[0].row, found[0].column, found[0].reason)
        bad += found
    return bad


def warn_of_cells(store: Store, file: str, rows: NDArray[np.int64]) -> None:
    """Say which cells count as missing though something is written there, and which categories training never saw.

    Args:
        store: a scanned store.
        file: the table's name.
        rows: rows to look for unseen categories in.
    """
    for name, found in store.odd.items():
        logger.warning("%s: column %r: %d cells are no numbers and count as missing (%s)", file, name, len(found), "; ".join(found[:3]))
    categories = [c for c in store.columns if c.modality == "category"]
    if not categories or not store.resident or not len(rows):
        return
    cells = store.cells(rows)
    for column in categories:
        unseen = unseen_categories(column, cells[column.name])
        if unseen:
            listed = ", ".join(repr(word) for word, _ in unseen.most_common(3))
            logger.warning(
                "%s: column %r: %d cells hold categories that training never saw (%s)", file, column.name, unseen.total(), listed
            )


def prepare(cache: TableCache, recipe: Recipe, options: FitOptions, hints: Mapping[str, str]) -> Prepared:
    """Make a cached table ready for training.

    Raises:
        UserError: of many kinds; each message says what is wrong with the table or the options.
    """
    file, root = cache.name, cache.root
    split = split_table(cache, options)
    targets, decoded = find_targets(cache, options, split.train)
    sample = cache.take(sample_rows(split.train, SAMPLE_ROWS, options.seed), None)
    reports = describe_columns(sample, roles=column_roles(options), overrides=options.columns, hints=hints, root=root)
    columns = make_columns(reports)
    if not columns:
        raise TableError(f"{file}: no column is left to learn from; keep one with --column NAME=MODALITY")
    targets, values, bad = encode_targets(recipe, targets, decoded, split.train, file, options.bad_cells)
    columns = fit_columns(cache, columns, recipe, split.train, root, options.seed)
    left_out = {r.name: r.suspicion or r.reason for r in reports if r.role == "left out"}
    schema = Schema(columns, tuple(targets), options.key, left_out, options.roles)
    store = open_store(cache, schema, recipe, root)
    bad += scan_cells(store, file, options.bad_cells)
    notes = [split.how, *(f"column {name!r} is left out: {why}; keep it with --column {name}=" for name, why in left_out.items() if why)]
    if bad:
        notes.append(f"{len(bad)} unreadable cells count as missing")
    for target in targets:
        absent = int((~values[target.name][1]).sum())
        if absent:
            logger.warning("%s: target %r: %d rows without a target are kept out of its loss and its metrics", file, target.name, absent)
    warn_of_cells(store, file, np.setdiff1d(np.arange(cache.num_rows), split.train))
    return Prepared(cache, schema, reports, split, store, values, bad, notes)
