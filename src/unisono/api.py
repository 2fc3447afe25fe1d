"""The public functions: thin doors to the packages that do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unisono.model.estimator import Model
from unisono.model.inspect import Inspection, inspect_table
from unisono.retrieve.index import Index


def fit(
    data: Any,
    target: str | Sequence[str] | Mapping[str, str | None] | None = None,
    *,
    align: bool = False,
    out: str | Path | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    budget: str | float | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Model:
    """Fit a model to a table: predict target columns, or learn one space for all its sources, or both.

    Args:
        data: a path (CSV, TSV, JSON Lines, Parquet, Arrow, a folder of class folders), an Arrow table, a data frame, a data set.
        target: target column, ``COLUMN=TASK``, several of them, or a mapping column -> task; not needed with ``align``.
        align: learn one space in which any source finds any other.
        out: the model folder to write; None keeps the model in memory.
        recipe: a recipe's name or path, or a mapping with a recipe's keys, its components as texts or ``unisono.words``; None for
            ``align`` or ``early-fusion``.
        settings: ``key=value`` changes to the recipe.
        columns: column -> modality.
        budget: limit on the time of the whole fit, such as ``"5m"``.
        seed: of every random choice.
        progress: show a bar.
        **options: ``objective`` (a sentence in place of the recipe's), ``item`` (a column whose equal values are one item),
            ``split``, ``key``, ``group``, ``time``, ``drop``, ``bad_cells``, ``null_words``, ``encoding``, ``media_root``,
            ``resume``,
            ``force``, ``examples``, ``encoders`` (column -> Hugging Face model folder or ``nn.Module``), ``freeze`` (train
            only projections of what they say), ``features`` (the folder where that is kept), ``link_encoders``.

    Returns:
        The fitted model.

    Raises:
        UserError: of many kinds; each message says what is wrong and what to do.
    """
    if align:
        options["align"] = True
    model = Model(target=target, recipe=recipe, settings=settings, columns=columns, budget=budget, seed=seed, options=options)
    return model.fit(data, out=out, progress=progress)


def load(folder: str | Path, *, encoders: Mapping[str, Any] | None = None) -> Model:
    """Read a model folder.

    Args:
        folder: the model folder.
        encoders: column -> the module that was given at the fit, or the new place of a linked encoder.

    Raises:
        ModelFolderError: it is absent, damaged, or made by a newer version.
    """
    return Model.load(folder, encoders=encoders)


def open_index(path: str | Path, model: Model | str | Path | None = None, *, verify: bool | None = None) -> Index:
    """Open an index.

    Args:
        path: the index's folder.
        model: the model that made it, or its folder; None for the folder that the index records, where that is there. Without a model an
            index can be searched by row alone.
        verify: hash all files of the index; None for when they are not too large for that.

    Raises:
        IndexFolderError: the index is absent, damaged, made by a newer version, or by another model.
        ModelFolderError: the model cannot be read.
    """
    index = Index(path, verify=verify)
    if model is None and index.model_folder is not None and index.model_folder.is_dir():
        model = index.model_folder
    if model is not None:
        known = model if isinstance(model, Model) else Model.load(model)
        index.use(known.embedder())
    return index


def inspect(data: Any, **options: Any) -> Inspection:
    """Find out what each column of a table is, what is missing, and what looks suspicious.

    Args:
        data: whatever ``fit`` reads.
        **options: ``target``, ``columns``, ``null_words``, ``encoding``, ``media_root``.
    """
    return inspect_table(data, **options)
