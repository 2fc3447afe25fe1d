"""What each column of a table is: its modality and why, how much is missing, and what looks suspicious.

Detection looks at a seeded sample of rows; a person can overrule every decision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unisono.core.errors import SchemaError, nearest
from unisono.core.schema import MODALITIES, SCALARS, TABLE_SOURCE, Column
from unisono.modalities.base import ColumnSample, Guess, modalities

#: Rows that detection looks at.
SAMPLE_ROWS = 2000
#: The smallest sample that identifiers and leaks are judged by.
_ENOUGH = 20
_ID_NAME = re.compile(r"(^|[_\W])(id|key|uuid|guid|index|idx|no|nr|number|code)($|[_\W])", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnReport:
    """What was found out about one column.

    Attributes:
        name: the column.
        type: its Arrow type in words.
        role: ``input``, ``target``, ``key``, ``split``, ``group``, ``time`` or ``left out``.
        modality: the word for it; empty for roles that need none.
        reason: why.
        doubt: what else it could be; empty when there is no doubt.
        suspicion: an identifier, a leaked target, a constant, a near-duplicate; empty when there is none.
        missing: number of nulls among ``rows``.
        rows: rows looked at.
        samples: a few values, as text.
        many: cells are lists of items.
        options: decoding settings that detection found.
    """

    name: str
    type: str
    role: str
    modality: str
    reason: str
    doubt: str = ""
    suspicion: str = ""
    missing: int = 0
    rows: int = 0
    samples: tuple[str, ...] = ()
    many: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def detect(name: str, array: pa.Array, *, hint: str | None, root: Path | None, forced: str | None = None) -> Guess | None:
    """Ask every modality about a column and take the most confident, or the one a person named.

    Args:
        name: the column.
        array: a sample of its values.
        hint: a modality that the file's metadata names.
        root: the folder that media paths are relative to.
        forced: the modality a person asked for.

    Returns:
        The guess with the modality's word in ``options['modality']``; None when nothing recognises the column.
    """
    values = [v for v in array.to_pylist() if v is not None]
    sample = ColumnSample(name, array.type, array, values, hint, root)
    guesses: list[tuple[float, str, Guess]] = []
    for word in modalities.entries:
        guess = modalities.build(word).detect(sample) if forced in {None, word} else None
        if guess is not None:
            guesses.append((guess.confidence, word, guess))
    if forced is not None and not guesses:
        many = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
        many = many and forced in {"text", "image", "audio", "video", "category"}
        guesses.append((1.0, forced, Guess(1.0, "", many=many)))
    if not guesses:
        return None
    guesses.sort(key=lambda g: (-g[0], MODALITIES.index(g[1]) if g[1] in MODALITIES else 99))
    _, word, best = guesses[0]
    reason = "as told" if forced is not None else best.reason
    return replace(best, reason=reason, options={**best.options, "modality": word})


def check_words(overrides: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse overrides of absent columns and unknown modalities.

    Raises:
        SchemaError: with the nearest valid name.
    """
    for column, word in overrides.items():
        if column not in names:
            raise SchemaError(f"there is no column {column!r}{nearest(column, names)}")
        if word and word not in modalities.entries:
            raise SchemaError(f"column {column!r}: no modality is called {word!r}{nearest(word, modalities.entries)}")


def describe_columns(
    sample: pa.Table,
    *,
    roles: Mapping[str, str],
    overrides: Mapping[str, str],
    hints: Mapping[str, str],
    root: Path | None,
) -> list[ColumnReport]:
    """Find out what every column of a sample is.

    Args:
        sample: some rows.
        roles: column -> ``target``, ``key``, ``split``, ``group``, ``time`` or ``left out``; others are inputs.
        overrides: column -> modality word that a person gave; an empty word keeps a suspicious column as detected.
        hints: column -> modality word from the file's metadata.
        root: the folder that media paths are relative to.

    Raises:
        SchemaError: an override names an absent column or an unknown modality.
    """
    check_words(overrides, sample.column_names)
    targets = [name for name, role in roles.items() if role == "target"]
    reports: list[ColumnReport] = []
    for name in sample.column_names:
        array = pa.chunked_array(sample.column(name)).combine_chunks()
        base = ColumnReport(
            name=name, type=str(array.type), role=roles.get(name, "input"), modality="", reason="",
            missing=array.null_count, rows=len(array), samples=_examples(array),
        )  # fmt: skip
        if base.role != "input":
            reports.append(base)
            continue
        reports.append(_describe_input(base, array, sample, targets, reports, overrides, hints, root))
    return reports


def _describe_input(
    base: ColumnReport,
    array: pa.Array,
    sample: pa.Table,
    targets: Sequence[str],
    earlier: Sequence[ColumnReport],
    overrides: Mapping[str, str],
    hints: Mapping[str, str],
    root: Path | None,
) -> ColumnReport:
    name = base.name
    if array.null_count == len(array):
        return replace(base, role="left out", reason="it holds no value", suspicion="empty")
    guess = detect(name, array, hint=hints.get(name), root=root, forced=overrides.get(name) or None)
    if guess is None:
        return replace(base, role="left out", reason=f"no modality recognises values of the type {base.type}", suspicion="unrecognised")
    options = dict(guess.options)
    word = str(options.pop("modality"))
    found = replace(base, modality=word, reason=guess.reason, doubt=guess.doubt, many=guess.many, options=options)
    suspicion, leave = _suspicion(found, array, sample, targets, earlier)
    if leave and name not in overrides:
        return replace(found, role="left out", suspicion=suspicion)
    return replace(found, suspicion=suspicion)


def _suspicion(
    report: ColumnReport, array: pa.Array, sample: pa.Table, targets: Sequence[str], earlier: Sequence[ColumnReport]
) -> tuple[str, bool]:
    """What looks wrong, and whether the column should be left out for it."""
    keys = _comparable(array)
    distinct = len(np.unique(keys[keys != ""]))
    present = int((keys != "").sum())
    if distinct == 1 and present > 1:
        return "a constant: the same value in every row looked at", False
    if present >= _ENOUGH and report.modality in {"number", "category", "text"} and _is_identifier(report, array, distinct, present):
        return "an identifier: every row has a value of its own", True
    for target in targets:
        if present >= _ENOUGH and report.modality in SCALARS and _same_information(keys, array, sample.column(target)):
            return f"a leaked target: it says the same as {target!r}", True
    for other in earlier:
        if other.role == "input" and other.type == report.type and present >= _ENOUGH:
            same = _comparable(pa.chunked_array(sample.column(other.name)).combine_chunks()) == keys
            if same.mean() >= 0.99:
                return f"a near-duplicate of {other.name!r}: equal in {same.mean():.0%} of rows", False
    return "", False


def _comparable(array: pa.Array) -> np.ndarray[Any, np.dtype[np.str_]]:
    """A text for each value that is equal exactly where the values are; empty for null."""
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return np.array(["" if v is None else f"#{hash(repr(v))}" for v in array.to_pylist()], dtype=np.str_)
    text = pc.cast(array, pa.large_string(), safe=False)
    return np.array(["" if v is None else f"#{v}" for v in text.to_pylist()], dtype=np.str_)


def _is_identifier(report: ColumnReport, array: pa.Array, distinct: int, present: int) -> bool:
    if distinct < 0.999 * present:
        return False
    named = bool(_ID_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", report.name)))
    if pa.types.is_integer(array.type):
        values = np.sort(np.array([v for v in array.to_pylist() if v is not None], dtype=np.float64))
        consecutive = bool((np.diff(values) == 1).all())
        return named or consecutive
    if pa.types.is_floating(array.type):
        return False
    texts = [str(v) for v in array.to_pylist() if v is not None]
    if _all_numbers(texts):
        whole = all(re.fullmatch(r"\s*[+-]?\d+\s*", t) for t in texts)
        return whole and (named or bool((np.diff(np.sort(np.array(texts, np.float64))) == 1).all()))
    short = all(len(t) <= 64 and not re.search(r"\s", t) for t in texts)
    with_digits = sum(bool(re.search(r"\d", t)) for t in texts) >= 0.9 * len(texts)
    return short and (named or with_digits)


def _all_numbers(texts: Sequence[str]) -> bool:
    try:
        np.array(texts, np.float64)
    except ValueError:
        return False
    return True


def _same_information(keys: np.ndarray[Any, Any], array: pa.Array, target: pa.ChunkedArray) -> bool:
    """Whether column and target determine each other: a one-to-one relabelling, or a linear copy of numbers."""
    other_array = pa.chunked_array(target).combine_chunks()
    if pa.types.is_nested(other_array.type):
        return False
    other = _comparable(other_array)
    both = (keys != "") & (other != "")
    if both.sum() < _ENOUGH or len(np.unique(other[both])) < 2:
        return False
    try:
        x, y = (np.array([float(str(v)[1:]) for v in side[both]]) for side in (keys, other))
        if len(np.unique(y)) > 10 and x.std() > 0 and abs(float(np.corrcoef(x, y)[0, 1])) > 0.99999:
            return True
    except ValueError:
        pass
    pairs = len(np.unique(np.char.add(np.char.add(keys[both], "\x00"), other[both])))
    return bool(pairs == len(np.unique(keys[both])) == len(np.unique(other[both])) and pairs < 0.5 * both.sum())


def _examples(array: pa.Array, num: int = 3) -> tuple[str, ...]:
    shown: list[str] = []
    for value in array:
        if value.is_valid and len(shown) < num:
            text = _short(value.as_py())
            if text not in shown:
                shown.append(text)
    return tuple(shown)


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in list(value.items())[:4]) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_short(v) for v in value[:3])}{', …' if len(value) > 3 else ''}] ({len(value)})"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def make_columns(reports: Sequence[ColumnReport], sources: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """The input columns, in table order, without statistics.

    Args:
        reports: what was found out.
        sources: column -> source name, for those that a person put elsewhere.
    """
    inputs = [r for r in reports if r.role == "input"]
    return tuple(
        Column(
            name=r.name,
            modality=r.modality,
            source=(sources or {}).get(r.name, TABLE_SOURCE if r.modality in SCALARS else r.name),
            index=index,
            many=r.many,
            reason=r.reason,
            options=r.options,
        )
        for index, r in enumerate(inputs)
    )
