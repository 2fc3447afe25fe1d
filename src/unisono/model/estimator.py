"""``Model``: fit, predict, evaluate, embed, save and load, with scikit-learn's habits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import SchemaError, UserError
from unisono.core.files import write_text
from unisono.core.schema import Schema
from unisono.model.deploy import Deployment, deploy
from unisono.model.fit import Fitted, fit_table
from unisono.model.folder import read_model, write_model
from unisono.model.indexing import PredictorEmbedder
from unisono.model.options import FitOptions, named_targets, parse_duration
from unisono.model.searching import search_page
from unisono.model.spaces import Laid, SpaceQuestions, check_aligned, evaluate_space
from unisono.model.stream import Predictor
from unisono.network import Network
from unisono.retrieve.index import Index
from unisono.retrieve.make import build_index
from unisono.table.read import open_table

_FEATURE = "x{}"
_LABEL = "y"


class Model:
    """One model of a table of any modalities.

    Parameters are kept as they are given, so that ``sklearn.base.clone`` works; they are checked by ``fit``.

    Args:
        target: target column, ``COLUMN=TASK``, several of them, or a mapping column -> task; not needed for ``fit(X, y)``.
        task: task of ``y`` in ``fit(X, y)``: ``category``, ``boolean``, ``number`` or ``labels``; found from ``y`` if None.
        recipe: a recipe's name or path, or a mapping with a recipe's keys; None for ``align`` where a space is asked for, else
            ``early-fusion``.
        settings: ``key=value`` changes to the recipe.
        columns: column -> modality.
        budget: limit on the time of a fit, such as ``"90s"``, or None.
        seed: of every random choice.
        options: further options of a fit by name (``align``, ``objective``, ``item``, ``split``, ``key``, ``group``, ``time``, ``drop``,
            ``bad_cells``, ...).
    """

    def __init__(
        self,
        *,
        target: Any = None,
        task: str | None = None,
        recipe: str | Mapping[str, Any] | None = None,
        settings: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
        budget: str | float | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.target, self.task, self.recipe, self.settings = target, task, recipe, settings
        self.columns, self.budget, self.seed, self.options = columns, budget, seed, options

    # -- scikit-learn -------------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters."""
        return {name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"}

    def set_params(self, **params: Any) -> Model:
        """Change parameters.

        Raises:
            UserError: a name is unknown.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise UserError(f"Model has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know of an estimator."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        classifies = self._task_word() in {"category", "boolean"}
        regresses = self._task_word() == "number"
        kind = "classifier" if classifies else "regressor" if regresses else None
        return Tags(
            estimator_type=kind,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=RegressorTags() if regresses else None,
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Whether ``fit`` was called."""
        return hasattr(self, "fitted_")

    def _task_word(self) -> str | None:
        if self.task is not None:
            return self.task
        fitted = getattr(self, "fitted_", None)
        return fitted.schema.targets[0].task if fitted is not None and len(fitted.schema.targets) == 1 else None

    # -- fitting ------------------------------------------------------------------------------------------------------------

    def fit(self, data: Any, y: Any = None, *, out: str | Path | None = None, progress: bool = False) -> Model:
        """Fit afresh to a table, or to features and targets.

        Args:
            data: a path, Arrow table, data frame, or with ``y`` any features that scikit-learn takes.
            y: the target of each row; without it the table holds the target columns.
            out: the model folder to write; None keeps the model in memory.
            progress: show a bar.

        Raises:
            UserError: of many kinds; each message says what to mend.
        """
        targets = named_targets(self.target)
        self._arrays = y is not None
        if y is not None:
            data = with_labels(data, y)
            targets = {_LABEL: self.task}
        extra = dict(self.options or {})
        options = FitOptions(
            targets=targets,
            recipe=self.recipe,
            settings=tuple(self.settings),
            columns=dict(self.columns or {}),
            budget=None if self.budget is None else parse_duration(self.budget),
            seed=self.seed,
            out=None if out is None else Path(out),
            progress=progress,
            **extra,
        )
        self._adopt(fit_table(data, options))
        self.folder_ = options.out
        return self

    def _adopt(self, fitted: Fitted) -> None:
        self.fitted_ = fitted
        self.n_features_in_ = len(fitted.schema.columns)
        target = fitted.schema.targets[0] if len(fitted.schema.targets) == 1 else None
        if target is not None and target.task in {"category", "boolean"}:
            self.classes_ = np.array(target.statistics["classes"])

    @property
    def schema(self) -> Schema:
        """Columns and targets, with what was fitted."""
        return self._need().schema

    @property
    def aligned(self) -> bool:
        """Whether sources share a space, so that any one may be sought by any other."""
        return self._need().network.aligned

    @property
    def network(self) -> Network:
        """The trained module."""
        return self._need().network

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured after the fit: which rows each figure is from, the headline rows first of all."""
        return self._need().metrics

    def _need(self) -> Fitted:
        if not hasattr(self, "fitted_"):
            raise UserError("the model is not fitted: call fit first, or load a model folder")
        return self.fitted_

    def predictor(self, **options: Any) -> Predictor:
        """The model ready to run over tables."""
        fitted = self._need()
        return Predictor(fitted.network, fitted.recipe, fitted.schema, **options)

    # -- use ----------------------------------------------------------------------------------------------------------------

    def predict(self, data: Any, **options: Any) -> Any:
        """Predict every row.

        Args:
            data: a table, or after ``fit(X, y)`` features.
            **options: ``bad_cells``, ``null_words``, ``encoding``, ``media_root``.

        Returns:
            An Arrow table with the key (else ``row``) and the prediction columns; after ``fit(X, y)`` an array of answers.
        """
        if not self._features(data):
            return self.predictor(**options).predict(data)
        table = self.predictor(**options).predict(as_features(data))
        return np.array(table.column(_LABEL).to_pylist())

    def predict_proba(self, data: Any, **options: Any) -> NDArray[np.float64]:
        """Probabilities (N, classes) of the only target, in the order of ``classes_``.

        Raises:
            UserError: there are several targets, or the target is a number.
        """
        schema = self._need().schema
        if len(schema.targets) != 1 or schema.targets[0].task == "number":
            raise UserError("predict_proba needs a model of one category, boolean or labels target")
        return self.predictor(**options).probabilities(as_features(data) if self._features(data) else data)

    def score(self, data: Any, y: Any = None) -> float:
        """Accuracy of a category or boolean, R2 of a number, mean average precision of labels."""
        schema = self._need().schema
        if len(schema.targets) != 1:
            raise UserError("score needs a model of one target; use evaluate")
        report = self.evaluate(with_labels(data, y) if y is not None else data, missing=False)
        metrics = report["targets"][schema.targets[0].name]
        name = {"number": "r2", "labels": "map"}.get(schema.targets[0].task, "accuracy")
        return float("nan") if metrics[name] is None else float(metrics[name])

    def evaluate(
        self, data: Any, *, where: str | None = None, missing: bool = True, retrieval: bool = False, group: str | None = None,
        zero_shot: str | None = None, templates: Sequence[str] = (), text: str | None = None, report: str | Path | None = None,
        examples: bool = True, **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Measure the model on a table: its answers against the targets in it, or its shared space.

        Args:
            data: the table.
            where: a filter on rows.
            missing: also measure what becomes of it when sources are missing.
            retrieval: measure the shared space instead: what finds what across sources.
            group: for retrieval, a column whose equal values are one item.
            zero_shot: for retrieval, a column whose values name classes.
            templates: phrasings of a class's name, such as ``"a picture of a {}"``.
            text: the text column that takes the phrasings; None for the only one.
            report: for retrieval, the page to write.
            examples: show rows on that page.
            **options: ``bad_cells``, ``null_words``, ``encoding``, ``media_root``.

        Returns:
            ``{"rows": n, "targets": {column: {metric: value}}, "missing": [{"present": [...], "targets": {...}}, ...]}``; for retrieval
            ``{"retrieval": [...], "space": {...}}``, see ``evaluate_space``.

        Raises:
            UserError: a column is absent, or retrieval is asked of a model without a shared space.
        """
        questions = SpaceQuestions(where, group, zero_shot, tuple(templates), text)
        if retrieval:
            return self._space(data, questions, report, examples, options)
        questions.refuse_without_retrieval()
        if report is not None:
            raise UserError(f"--report {report}: this belongs to --retrieval; a fit writes report.html by itself")
        return self.predictor(**options).evaluate(data, where=where, missing=missing)

    def _space(
        self, data: Any, questions: SpaceQuestions, report: str | Path | None, examples: bool, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        predictor = self.predictor(**options)
        check_aligned(predictor)
        source = open_table(data, null_words=predictor.null_words, encoding=predictor.encoding, media_root=predictor.media_root)

        def write(found: dict[str, Any], laid: Laid) -> None:
            if report is not None:
                page = search_page(
                    laid.cache.name, found, laid, predictor.schema,
                    product=predictor.product, examples=examples, where=questions.where,
                )  # fmt: skip
                write_text(Path(report), page)

        return evaluate_space(predictor, source, questions, then=write)

    def embed(self, data: Any, **options: Any) -> pa.Table:
        """One vector for each row, and one for each of its sources (what the row would be with that source alone)."""
        return self.predictor(**options).embed(as_features(data) if self._features(data) else data)

    encode = embed

    def embedder(self, **options: Any) -> PredictorEmbedder:
        """The model as what turns the rows of an index into vectors.

        Args:
            **options: ``bad_cells``, ``null_words``, ``encoding``, ``media_root``.
        """
        return PredictorEmbedder(self.predictor(**options), getattr(self, "folder_", None))

    def index(self, data: Any, out: str | Path | None = None, *, reading: Mapping[str, Any] | None = None, **settings: Any) -> Index:
        """Index a table, to search it.

        Args:
            data: the table.
            out: the folder to write; None keeps the index in a temporary folder for as long as it is used.
            reading: ``bad_cells``, ``null_words``, ``encoding``, ``media_root``.
            **settings: ``approximate`` (also build graphs; None for when there are many rows), ``fields`` (columns to keep),
                ``max_media`` (the largest cell of media that is kept, in bytes), ``correction`` (against hubs and crowding, such as
                ``"dbnorm"``).

        Raises:
            UserError: of many kinds; each message says what to mend.
        """
        return build_index(self.embedder(**(reading or {})), data, out, **settings)

    def _features(self, data: Any) -> bool:
        return bool(getattr(self, "_arrays", False)) and not isinstance(data, str | Path | pa.Table)

    # -- cheaper ------------------------------------------------------------------------------------------------------------

    def deploy(self, **options: Any) -> Model:
        """The same model made cheaper without loss beyond rounding; what was done is in ``metrics["deployment"]``.

        Args:
            **options: ``folds`` (words; None for those that save something on this machine), ``columns`` (those that tables will have),
                ``data`` (a table with the targets, to measure the change in error on), and how it is read.

        Raises:
            UserError: a fold or a column is unknown.
        """
        return self.deployment(**options)[0]

    def deployment(
        self, *, folds: Sequence[str] | None = None, columns: Sequence[str] | None = None, data: Any = None, **reading: Any
    ) -> tuple[Model, Deployment]:
        """``deploy`` with its report."""
        fitted = self._need()
        network, recipe, schema, report = deploy(
            fitted.network, fitted.recipe, fitted.schema, folds=folds, columns=columns, data=data, reading=reading
        )
        model = Model(**self.get_params())
        model._adopt(Fitted(network, recipe, schema, {**fitted.metrics, "deployment": report.to_json()}, list(fitted.notes)))
        model._arrays = getattr(self, "_arrays", False)
        return model, report

    # -- folder -------------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the model folder.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        fitted = self._need()
        write_model(Path(folder), fitted.network, fitted.recipe, fitted.schema, fitted.metrics)
        self.folder_ = Path(folder)

    @classmethod
    def load(cls, folder: str | Path, *, encoders: Mapping[str, Any] | None = None) -> Model:
        """Read a model folder.

        Args:
            folder: the model folder.
            encoders: column -> the module that was given at the fit, or the new place of a linked encoder.

        Raises:
            ModelFolderError: it is absent, damaged, or made by a newer version.
        """
        network, recipe, schema, metrics = read_model(Path(folder), encoders)
        model = cls(target={t.name: t.task for t in schema.targets}, recipe=recipe.name)
        model._adopt(Fitted(network, recipe, schema, metrics or {}, []))
        model.folder_ = Path(folder)
        return model


def as_features(data: Any) -> Any:
    """Features as a table: arrays get the column names x0, x1, ...

    Raises:
        SchemaError: an array is not two-dimensional.
    """
    if isinstance(data, np.ndarray | list | tuple):
        array = np.asarray(data)
        if array.ndim != 2:
            raise SchemaError(f"features are a table or an array (rows, columns), got an array of shape {array.shape}")
        return pa.table({_FEATURE.format(k): pa.array(array[:, k].tolist()) for k in range(array.shape[1])})
    return data


def with_labels(data: Any, y: Any) -> pa.Table:
    """Features and targets as one table, the target in the column ``y``.

    Raises:
        SchemaError: their numbers of rows differ, or the features have a column ``y`` already.
    """
    table = pa.Table.from_batches(list(open_table(as_features(data)).batches()))
    labels = pa.array(list(y))
    if len(labels) != table.num_rows:
        raise SchemaError(f"{table.num_rows} rows of features, but {len(labels)} targets")
    if _LABEL in table.column_names:
        raise SchemaError(f"the features have a column {_LABEL!r}, which is the name that targets get; rename it")
    return table.append_column(_LABEL, labels)
