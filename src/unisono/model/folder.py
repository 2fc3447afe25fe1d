"""The model folder: weights, recipe, schema, metrics and report, each file's hash recorded; no pickle anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml

from unisono.core.errors import ConfigError, ModelFolderError, ResourceError
from unisono.core.files import forget, read_json, sha256, write_text
from unisono.core.schema import MODALITIES, Column, Schema, Target
from unisono.model.encoders import find_encoders, store_encoders
from unisono.network import WORDS, Network
from unisono.recipe import KEYS, Recipe

#: Grows when older programs could misread a folder.
FORMAT = 2
#: The format of a folder without folds, which older programs read as well.
PLAIN_FORMAT = 1
WEIGHTS, RECIPE, SCHEMA, METRICS, REPORT, CHECKPOINT = (
    "model.safetensors", "recipe.yaml", "schema.json", "metrics.json", "report.html", "checkpoint",
)  # fmt: skip
KIND = "model folder"


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """The schema as plain values."""
    return {
        "columns": [c.to_json() for c in schema.columns],
        "targets": [t.to_json() for t in schema.targets],
        "sources": list(schema.sources),
        "key": schema.key,
        "left_out": dict(schema.left_out),
        "roles": dict(schema.roles),
    }


def write_model(folder: Path, network: Network, recipe: Recipe, schema: Schema, metrics: Mapping[str, Any] | None) -> None:
    """Write weights, recipe, metrics and, last, the schema with the other files' hashes.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    temporary = folder / f".{WEIGHTS}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(state, temporary)
        temporary.replace(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        forget(temporary)
        raise ResourceError(f"{folder / WEIGHTS} cannot be written: {error}") from None
    write_text(folder / RECIPE, store_encoders(folder, recipe).to_yaml())
    if metrics is not None:
        write_text(folder / METRICS, json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
    write_schema(folder, schema, network.folds)


def write_schema(folder: Path, schema: Schema, folds: Sequence[str] = ()) -> None:
    """Write ``schema.json`` with the SHA-256 of the weights and the recipe, and the folds that the weights have been through."""
    hashes = {name: sha256(folder / name) for name in (WEIGHTS, RECIPE) if (folder / name).is_file()}
    folded = {"format": FORMAT, "folds": list(folds)} if folds else {"format": PLAIN_FORMAT}
    content = {**folded, **schema_to_json(schema), "files": hashes}
    write_text(folder / SCHEMA, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_model(folder: Path, encoders: Mapping[str, Any] | None = None) -> tuple[Network, Recipe, Schema, dict[str, Any] | None]:
    """Read a model folder, or the checkpoint of an unfinished one.

    Args:
        folder: the model folder.
        encoders: column -> the module that was given at the fit, or the new place of a linked encoder.

    Raises:
        ModelFolderError: something is absent, damaged or newer than this program; the message names it.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: there is no such model folder")
    content = read_json(folder / SCHEMA, folder, KIND)
    version = content.get("format")
    if not isinstance(version, int) or version < 1:
        raise ModelFolderError(f"{folder / SCHEMA}: 'format' is {version!r}; this is no model folder")
    if version > FORMAT:
        raise ModelFolderError(f"{folder}: made by a newer version (format {version}, this program reads up to {FORMAT}): upgrade unisono")
    schema = _schema(content, folder)
    recipe = _recipe(folder)
    weights = folder / WEIGHTS
    if not weights.is_file() and (folder / CHECKPOINT / WEIGHTS).is_file():
        weights = folder / CHECKPOINT / WEIGHTS
    else:
        _check_hashes(folder, content.get("files"))
    recipe = find_encoders(folder, recipe, encoders or {})
    network = _network(recipe, schema, weights, folder, _folds(content, folder))
    metrics = read_json(folder / METRICS, folder, KIND) if (folder / METRICS).is_file() else None
    return network, recipe, schema, metrics


def _check_hashes(folder: Path, hashes: Any) -> None:
    if not isinstance(hashes, dict):
        raise ModelFolderError(f"{folder / SCHEMA}: 'files' is missing; the folder is damaged")
    for name in (WEIGHTS, RECIPE):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder}: {name} is missing")
        if hashes.get(name) != sha256(folder / name):
            raise ModelFolderError(f"{folder / name}: its content is not what {SCHEMA} records; the file is damaged or was changed")


def _recipe(folder: Path) -> Recipe:
    path = folder / RECIPE
    if not path.is_file():
        raise ModelFolderError(f"{folder}: {RECIPE} is missing")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ModelFolderError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(content, dict) or not set(content) <= set(KEYS):
        raise ModelFolderError(f"{path}: not a resolved recipe; the file is damaged")
    return Recipe(str(path), content)


def _schema(content: Mapping[str, Any], folder: Path) -> Schema:
    try:
        columns = tuple(Column(**_known(c, Column)) for c in content["columns"])
        targets = tuple(Target(**_known(t, Target)) for t in content["targets"])
        schema = Schema(columns, targets, content.get("key"), content.get("left_out") or {}, content.get("roles") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{folder / SCHEMA}: malformed ({error})") from None
    if not isinstance(content.get("left_out") or {}, dict) or not isinstance(content.get("key"), str | None):
        raise ModelFolderError(f"{folder / SCHEMA}: malformed ('left_out' is an object, 'key' a name)")
    if not isinstance(schema.roles, dict) or not all(isinstance(name, str) for name in schema.roles.values()):
        raise ModelFolderError(f"{folder / SCHEMA}: malformed ('roles' is an object of column names)")
    for target in targets:
        if not all(isinstance(part, kind) for part, kind in ((target.name, str), (target.task, str), (target.statistics, dict))):
            raise ModelFolderError(f"{folder / SCHEMA}: target {target.name!r} is malformed")
    for place, column in enumerate(columns):
        kinds = ((column.name, str), (column.source, str), (column.many, bool), (column.statistics, dict), (column.options, dict))
        if column.index != place or column.modality not in MODALITIES or not all(isinstance(part, kind) for part, kind in kinds):
            raise ModelFolderError(f"{folder / SCHEMA}: column {column.name!r} is malformed")
    return schema


def _known(given: Any, kind: type) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError(f"expected an object, got {given!r}")
    names = {f.name for f in fields(kind)}
    unknown = set(given) - names
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    return given


def _folds(content: Mapping[str, Any], folder: Path) -> Sequence[str]:
    found = content.get("folds", [])
    if not isinstance(found, list) or not all(word in WORDS for word in found):
        raise ModelFolderError(f"{folder / SCHEMA}: malformed ('folds' holds words of {', '.join(WORDS)}, got {found!r})")
    return found


def _network(recipe: Recipe, schema: Schema, weights: Path, folder: Path, folds: Sequence[str]) -> Network:
    try:
        network = Network(recipe=recipe, schema=schema)
        for word in folds:
            network.fold(word)
    except Exception as error:  # whatever a damaged folder makes the parts stumble over
        reason = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise ModelFolderError(f"{folder}: recipe and schema do not make a model: {reason}") from None
    try:
        state = safetensors.torch.load_file(weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFolderError(f"{weights}: damaged ({error})") from None
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state.items()}
    if expected != found:
        differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise ModelFolderError(f"{weights}: does not fit the recipe and schema, first at {differing[0]!r}")
    network.load_state_dict(state)
    if not all(bool(torch.isfinite(t).all()) for t in state.values() if t.is_floating_point()):
        raise ModelFolderError(f"{weights}: holds numbers that are not finite")
    return network.eval()
