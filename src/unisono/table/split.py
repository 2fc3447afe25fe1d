"""Divide rows into training, validation and test rows without leaks.

Rows that must not be separated form *units*: rows of one group, rows of one key, and rows whose content is identical. A unit's place is
decided by a hash of (seed, group or key or content), so that it depends neither on the order of the rows nor on the machine.

Why ranks within strata, and not a threshold on the hash: a threshold never moves a row when others are added, but leaves small classes to
chance. Within each stratum (a class of the target, or one of ten ranges of a number) the units are ordered by hash; the first tenth is
test and the last tenth is validation, rounded up or down by a hash of the class. Adding a row to a stratum then moves at most one other
unit across either border, and none in other strata. Letters: N rows, U units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.draw import mix64
from unisono.core.errors import SchemaError
from unisono.table.compare import microseconds, moment
from unisono.table.hashing import Words, array_hashes, codes, row_fingerprints, word_hash
from unisono.table.plain import plain_array

__all__ = ["Split", "row_fingerprints", "split_rows"]

Column: TypeAlias = Any  # an Arrow array, chunked or not
Int = NDArray[np.int64]
TRAIN, VAL, TEST = 0, 1, 2
PART_OF_WORD = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL, "test": TEST}
_PARTS = ("train", "val", "test")
_HELD_OUT = 0.1
_BINS, _SMALLEST = 10, 3


@dataclass(frozen=True)
class Split:
    """Which rows serve for what.

    Attributes:
        train: row indices to learn from, in table order.
        val: row indices for early stopping and calibration.
        test: row indices for the headline figures; empty if the table's split column names none.
        how: one sentence that says what was done.
    """

    train: Int
    val: Int
    test: Int
    how: str

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}


def split_rows(
    rows: int,
    *,
    split: Column | None = None,
    key: Column | None = None,
    group: Column | None = None,
    time: Column | None = None,
    target: Column | None = None,
    fingerprints: Words | None = None,
    seed: int = 0,
    names: Mapping[str, str] | None = None,
) -> Split:
    """Divide the rows of a table.

    With ``split`` as its values say; where they name no validation rows, a tenth of the training rows is set apart. Without, 80 % train,
    10 % validate and 10 % test: by a seeded hash, stratified, units whole; or with ``time`` the oldest train and the newest test, rows of
    one time on one side.

    Args:
        rows: N.
        split: (N,) words train; val, valid, validation or dev; test, in any case.
        key: (N,) names of the rows.
        group: (N,) groups to be kept whole; rows without one stand for themselves.
        time: (N,) times: timestamps, dates, numbers, or text that holds numbers or ISO dates.
        target: (N,) what to predict, for stratification: classes, or numbers.
        fingerprints: (N,) hashes of the rows' content, by which identical rows are kept together.
        seed: another one divides differently.
        names: role -> the column's name, for messages.

    Raises:
        SchemaError: a split word that is none, a row without a time, too few rows; the message names the row.
    """
    called = {role: repr((names or {}).get(role, role)) for role in ("split", "group", "time", "target")}
    units = _Units(rows, key, group, fingerprints, seed, linked=time is None)
    if split is not None:
        part = _given(split, called["split"])
        how = f"by column {called['split']}"
        if not (part == VAL).any():
            chosen = np.flatnonzero(part == TRAIN)
            part[chosen], said = _divide(chosen, units, time, target, (0.0, _HELD_OUT), called, seed)
            how += f", with 10% of its training rows set apart for validation {said}"
        if not (part == TEST).any():
            how += "; it names no test rows, so that the headline figures are from validation rows"
    else:
        part, said = _divide(np.arange(rows, dtype=np.int64), units, time, target, (_HELD_OUT, _HELD_OUT), called, seed)
        how = f"80/10/10 {said}"
    train, val, test = (np.flatnonzero(part == p).astype(np.int64) for p in (TRAIN, VAL, TEST))
    return Split(train, val, test, f"{how}: {len(train)} train, {len(val)} val, {len(test)} test rows")


def _given(split: Column, name: str) -> Int:
    """Return the part of each row as the split column says."""
    values = _whole(split)
    words = values.dictionary_encode() if not pa.types.is_null(values.type) else None
    if words is None or words.null_count:
        row = 0 if words is None else int(np.flatnonzero(words.is_null().to_numpy(zero_copy_only=False))[0])
        raise SchemaError(f"row {row}, column {name}: the split is null; write train, val or test in every row")
    texts = words.dictionary.to_pylist()
    part_of = [PART_OF_WORD.get(str(t).strip().lower(), -1) for t in texts]
    part: Int = np.array(part_of, np.int64)[words.indices.to_numpy()]
    if (part < 0).any():
        row = int(np.flatnonzero(part < 0)[0])
        raise SchemaError(f"row {row}, column {name}: {values[row].as_py()!r} is no split; write train, val or test")
    counts = np.bincount(part, minlength=3)
    needed = 1 if counts[VAL] else 2
    if counts[TRAIN] < needed:
        raise SchemaError(f"column {name} has {counts[TRAIN]} training rows; at least {needed} are needed")
    return part


def _whole(column: Column) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return plain_array(array)


class _Units:
    """Which rows belong together, and the hash by which each row is placed."""

    def __init__(self, rows: int, key: Column | None, group: Column | None, fingerprints: Words | None, seed: int, *, linked: bool) -> None:
        self.by = "group" if group is not None else "key" if key is not None else "content"
        self.alike = fingerprints is not None
        ties: list[Int] = []
        hashes = np.arange(rows, dtype=np.uint64)
        if fingerprints is not None:
            hashes = fingerprints
            ties.append(np.unique(fingerprints, return_inverse=True)[1].reshape(-1).astype(np.int64))
        elif key is None:
            self.by = "row number"
        for column in (key, group):
            if column is not None:
                code = codes(column)
                hashes = np.where(code < 0, hashes, array_hashes(_whole(column)))
                ties.append(code)
        if not linked:
            ties = ties[-1:] if group is not None else []
        self.unit = _components(rows, ties)
        self.hashes = mix64(hashes ^ mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)))


def _components(rows: int, ties: list[Int]) -> Int:
    """Return for each row the number of its unit: rows are together that share a code (-1 is shared by none) in any of the ties."""
    unit = np.arange(rows, dtype=np.int64)
    ties = [np.where(code < 0, code.max(initial=0) + 1 + unit, code) for code in ties]
    while True:
        before = unit
        for code in ties:
            lowest = np.full(int(code.max(initial=0)) + 1, rows, np.int64)
            np.minimum.at(lowest, code, unit)
            unit = np.minimum(unit, lowest[code])
            unit = np.minimum(unit, unit[unit])
        if np.array_equal(before, unit):
            return np.unique(unit, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _divide(
    chosen: Int, units: _Units, time: Column | None, target: Column | None, held: tuple[float, float], called: Mapping[str, str], seed: int
) -> tuple[Int, str]:
    """Divide some rows; ``held`` are the shares of test and validation. Return their parts and a phrase that says how."""
    unit = np.unique(units.unit[chosen], return_inverse=True)[1].reshape(-1)
    if time is not None:
        said = f"in the order of column {called['time']}" + (f", groups of {called['group']} whole" if units.by == "group" else "")
        return _by_time(_times(time, called["time"])[chosen], unit, held)[unit], said
    count = int(unit.max(initial=-1)) + 1
    size = np.bincount(unit, minlength=count).astype(np.int64)
    hashes = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(hashes, unit, units.hashes[chosen])
    stratum, salt = (np.zeros(count, np.int64), np.zeros(1, np.uint64)) if target is None else _strata(_whole(target), chosen, unit)
    part = _by_hash(stratum, salt, size, hashes, held, seed)
    words = {"group": f"of the group (column {called['group']})"}.get(units.by, f"of the {units.by}")
    together = ["groups"] * (units.by == "group") + ["identical rows"] * units.alike
    kept = f", {' and '.join(together)} together" if together else ""
    return part[unit], f"by a seeded hash {words}{kept}" + (f", stratified by {called['target']}" if target is not None else "")


def _needed(count: int, held: tuple[float, float], what: str) -> None:
    least = 1 + sum(share > 0 for share in held)
    if count < least:
        raise SchemaError(f"{count} {what} cannot be divided into {least} parts; give at least {least}, or name the parts with --split")


def _strata(target: pa.Array, chosen: Int, unit: Int) -> tuple[Int, Words]:
    """Return the stratum of each unit (that of most of its rows), and a hash of each stratum."""
    array = target.take(pa.array(chosen))
    number = pa.types.is_floating(array.type) or pa.types.is_integer(array.type)
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False) if number else None
    if values is None and pa.types.is_large_string(array.type):
        values = _numbers(array)
    label = codes(array)
    if values is not None and int(label.max(initial=-1)) + 1 > 2 * _BINS:
        finite = np.isfinite(values)
        edges = np.quantile(values[finite], np.linspace(0, 1, _BINS + 1)[1:-1]) if finite.any() else np.zeros(0)
        label = np.where(finite, np.searchsorted(edges, np.where(finite, values, 0.0)), -1)
        salt_of_row = mix64((label + 1).astype(np.uint64))
    else:
        salt_of_row = array_hashes(array)
    label = label + 1
    kinds = int(label.max(initial=0)) + 1
    pair, count = np.unique(unit.astype(np.int64) * kinds + label, return_counts=True)
    order = np.lexsort((pair % kinds, -count, pair // kinds))
    first = order[np.unique((pair // kinds)[order], return_index=True)[1]]
    stratum = (pair % kinds)[first]
    small = np.bincount(stratum, minlength=kinds) < _SMALLEST
    stratum = np.where(small[stratum], kinds, stratum)
    salt = np.full(kinds + 1, word_hash("small classes"), np.uint64)
    salt[label] = salt_of_row
    return stratum, salt


def _numbers(array: pa.Array) -> NDArray[np.float64] | None:
    """Return text as numbers, NaN for null; None if some text is no number."""
    try:
        return np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowInvalid:
        return None


def _by_hash(stratum: Int, salt: Words, size: Int, hashes: Words, held: tuple[float, float], seed: int) -> Int:
    """Return the part of each unit."""
    _needed(len(stratum), held, "distinct rows or groups")
    part = np.full(len(stratum), TRAIN, np.int64)
    order = np.lexsort((hashes, stratum))
    bounds = np.flatnonzero(np.diff(stratum[order], prepend=-1, append=-1))
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        members = order[begin:end]
        draw = mix64(np.array([0, 1], np.uint64) ^ mix64(salt[stratum[members[0]]] ^ np.uint64(seed & 0xFFFFFFFF)))
        offset = (draw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        for which, (share, line) in enumerate(zip(held, (members, members[::-1]), strict=True)):
            quota = np.floor(share * size[members].sum() + offset[which]) if share else 0.0
            reach = np.cumsum(size[line]) - size[line] / 2
            taken = line[: min(int((reach <= quota).sum()), len(line) - 1)]
            part[taken[part[taken] == TRAIN]] = TEST if which == 0 else VAL
        if not (part[members] == TRAIN).any():
            part[members[len(members) // 2]] = TRAIN
    return _filled(part, stratum, hashes, held)


def _filled(part: Int, stratum: Int, hashes: Words, held: tuple[float, float]) -> Int:
    """Give a part that would be empty one unit of the stratum with most training units."""
    for share, which, last in ((held[0], TEST, False), (held[1], VAL, True)):
        if share and not (part == which).any():
            train = np.flatnonzero(part == TRAIN)
            if len(train) < 2:
                train = np.flatnonzero(part == (VAL if which == TEST else TEST))
            common = train[stratum[train] == np.bincount(stratum[train]).argmax()]
            part[common[hashes[common].argmax() if last else hashes[common].argmin()]] = which
    return part


def _by_time(times: NDArray[Any], unit: Int, held: tuple[float, float]) -> Int:
    """Return the part of each unit; a unit counts by its newest row, units of one time stay together."""
    count = int(unit.max(initial=-1)) + 1
    newest = np.full(count, times.min(initial=0), times.dtype)
    np.maximum.at(newest, unit, times)
    moments, at = np.unique(newest, return_inverse=True)
    _needed(len(moments), held, "distinct times")
    weight = np.zeros(len(moments), np.int64)
    np.add.at(weight, at.reshape(-1), np.bincount(unit, minlength=count))
    upto = np.cumsum(weight)
    last = len(moments)
    begins: list[int] = []
    for share in held:
        kept = (1 - share) * upto[-1] if not begins else upto[begins[0] - 1] - share * upto[-1]
        if not share:
            begins.append(last)
            continue
        begin = int(np.abs(upto[: last - 1] - kept).argmin()) + 1
        room = 1 + (1 if len(begins) == 0 and held[1] else 0)
        begins.append(min(max(begin, room), last - 1))
        last = begins[-1]
    test_from, val_from = begins
    part_of = np.full(len(moments), TRAIN, np.int64)
    part_of[val_from:] = VAL
    part_of[test_from:] = TEST
    return part_of[at.reshape(-1)]


def _times(time: Column, name: str) -> NDArray[Any]:
    """Return times as numbers that can be compared."""
    array = _whole(time)
    t = pa.types
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise SchemaError(f"row {row}, column {name}: a row without a time cannot be put in order; fill it in, or leave the row out")
    if t.is_large_string(array.type):
        numbers = _numbers(array)
        if numbers is None:
            return _iso_times(array, name)
        values: NDArray[Any] = numbers
    elif t.is_timestamp(array.type) or t.is_date(array.type):
        return microseconds(array)
    elif t.is_integer(array.type) or t.is_floating(array.type):
        values = array.to_numpy(zero_copy_only=False)
    else:
        raise SchemaError(f"column {name} holds {array.type}, which is no time; give dates, timestamps or numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise SchemaError(f"row {row}, column {name}: {values[row]} is no time; mend it, or leave the row out")
    return values


def _iso_times(array: pa.Array, name: str) -> NDArray[np.int64]:
    encoded = array.dictionary_encode()
    found = np.zeros(len(encoded.dictionary), np.int64)
    for i, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            found[i] = moment(text.strip())
        except ValueError:
            row = int(np.flatnonzero(encoded.indices.to_numpy() == i)[0])
            raise SchemaError(f"row {row}, column {name}: {text!r} is no ISO date or number (2024-12-31 or 2024-12-31 23:59)") from None
    times: Int = found[encoded.indices.to_numpy()]
    return times
