"""What a person can ask of ``fit``, checked once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unisono.core.errors import UserError
from unisono.core.schema import ROW

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Everything that shapes a fit besides the table.

    Attributes:
        targets: target column -> task word, or None to find it from the column; may be empty where a shared space is learned.
        split: column with the values train, val and test.
        key: column that names a row.
        group: column whose equal values stay on one side of a split.
        item: column whose equal values are one item: rows that a shared space brings together; where there are 100 items or more, they
            stay on one side of a split too, unless ``group`` says what does.
        time: column by which a split goes from old to new.
        columns: column -> modality; naming a column also keeps it when it looks suspicious.
        drop: columns to leave out.
        recipe: a recipe's name or path, or a mapping with a recipe's keys; None for ``align`` or ``early-fusion``.
        align: learn one space for all sources, whatever the recipe's objective.
        objective: a sentence, or several joined by ``&``, in place of the recipe's objective.
        settings: ``key=value`` changes to the recipe.
        budget: seconds for the whole command, or None.
        seed: of every random choice.
        bad_cells: ``fail`` at the first unreadable cell, or go on with it ``missing``.
        null_words: words that mean null.
        encoding: of text files.
        media_root: the folder that media paths are relative to, when not the table's own.
        out: the model folder, or None for a model in memory.
        resume: go on from the checkpoint in ``out``.
        force: replace what is in ``out``.
        examples: show rows in the report.
        encoders: column -> a frozen encoder: a local Hugging Face model folder, or an ``nn.Module``.
        freeze: train nothing but projections of what frozen encoders say.
        features: the folder where features of frozen encoders are kept; None for the user's cache, ``off`` to keep none on disk.
        link_encoders: refer to encoder folders by path and hash instead of copying them into the model.
        progress: show a bar.
    """

    targets: Mapping[str, str | None]
    split: str | None = None
    key: str | None = None
    group: str | None = None
    item: str | None = None
    time: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    recipe: str | Mapping[str, Any] | None = None
    align: bool = False
    objective: str | None = None
    settings: Sequence[str] = ()
    budget: float | None = None
    seed: int = 0
    bad_cells: Literal["fail", "missing"] = "fail"
    null_words: Sequence[str] = ()
    encoding: str = "utf-8"
    media_root: Path | None = None
    out: Path | None = None
    resume: bool = False
    force: bool = False
    examples: bool = True
    encoders: Mapping[str, Any] = field(default_factory=dict)
    freeze: bool = False
    features: str | Path | None = None
    link_encoders: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if self.freeze and not self.encoders:
            raise UserError("--freeze trains only projections of frozen encoders: name one for each column with --encoder COLUMN=DIR")
        if self.bad_cells not in {"fail", "missing"}:
            raise UserError(f"bad_cells is 'fail' or 'missing', not {self.bad_cells!r}")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"a seed is a whole number from 0 to 2^63 - 1, not {self.seed}")
        for name in self.targets:
            if name in self.roles.values():
                raise UserError(f"the column {name!r} cannot be a target and something else at once")
        for name in self.drop:
            if name in self.targets:
                raise UserError(f"the column {name!r} cannot be a target and be dropped")
        if ROW in self.targets and self.key is None:
            raise UserError(
                f"the target {ROW!r} and the number of the row would be one column of the predictions: "
                "name the column that identifies a row with --key, or rename the target"
            )

    @property
    def roles(self) -> dict[str, str]:
        """``split``, ``key``, ``group``, ``item`` and ``time`` -> the column named for it."""
        named = {"split": self.split, "key": self.key, "group": self.group, "item": self.item, "time": self.time}
        return {role: name for role, name in named.items() if name is not None}

    @property
    def chosen_recipe(self) -> str | Mapping[str, Any]:
        """The recipe that was named, or the one for what is asked."""
        aligns = self.align or (self.objective is not None and "align" in self.objective)
        return self.recipe if self.recipe is not None else "align" if aligns else "early-fusion"


def parse_duration(text: str | float) -> float:
    """Seconds from ``90s``, ``5m``, ``1.5h`` or a number.

    Raises:
        UserError: the text is no duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    if match is None or float(match.group(1)) <= 0:
        raise UserError(f"{text!r} is no duration: write for example 90s, 5m or 1h")
    return float(match.group(1)) * _UNITS[match.group(2)]


def named_targets(target: str | Sequence[str] | Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Targets as column -> task word, from a name, ``NAME=TASK``, several of them, or a mapping."""
    if target is None:
        return {}
    if isinstance(target, Mapping):
        return dict(target)
    found: dict[str, str | None] = {}
    for entry in [target] if isinstance(target, str) else target:
        name, sign, task = entry.rpartition("=")
        if sign and task in {"category", "boolean", "number", "labels"}:
            found[name] = task
        else:
            found[entry] = None
    return found
