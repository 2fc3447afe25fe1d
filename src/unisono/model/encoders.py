"""Frozen encoders of a model: how they come into a recipe, and how a model folder holds them or finds them again.

A recipe's ``tokens`` names the encoder of a column: ``photo: hf(path=...)`` for a Hugging Face model folder, or ``given(...)`` for a
module that was given in Python. A model folder holds a copy of the former in ``encoders/NAME/`` (or, linked, its path), and of the
latter its name and hash.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import nn

from unisono.core.errors import ConfigError, ModelFolderError, ResourceError, UserError, nearest
from unisono.core.registry import decode
from unisono.core.words import as_word
from unisono.modalities.features import OFF, FeatureCache, default_folder
from unisono.modalities.frozen import FrozenTokeniser, Given, module_hash
from unisono.modalities.groups import Group
from unisono.modalities.hf import HuggingFace, folder_hash, model_files
from unisono.recipe import Recipe

logger = logging.getLogger("unisono")

#: The folder of copied encoders in a model folder.
ENCODERS = "encoders"


def open_features(named: str | os.PathLike[str] | None) -> FeatureCache | None:
    """Where features of frozen encoders are kept on disk: in the folder named, else in the user's cache; None for ``off``."""
    if named is not None and os.fspath(named) == OFF:
        return None
    folder = default_folder() if named is None else Path(named).expanduser()
    return None if folder is None else FeatureCache(folder)


def keep_features(groups: Sequence[Group], features: FeatureCache | None) -> None:
    """Let a network's frozen encoders keep on disk what they say, and say where."""
    columns: list[str] = []
    for group in groups:
        if isinstance(group.tokeniser, FrozenTokeniser):
            group.tokeniser.keep(features)
            columns += [c.name for c in group.columns]
    if columns and features is not None:
        logger.info(
            "features of %s by frozen encoders are kept in %s (%s so far, at most %s; the folder can be removed at any time)",
            ", ".join(columns), features.folder, _gigabytes(features.size()), _gigabytes(features.limit_bytes),
        )  # fmt: skip


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def without_layers(recipe: Recipe) -> Recipe:
    """The recipe with a trunk that only reads: what is trained are projections, heads and a shared space's own projectors."""
    return recipe.with_settings({"trunk": [step for step in recipe["trunk"] if "read" in step]})


def check_frozen(groups: Sequence[Group]) -> None:
    """Make sure that every column is read by a frozen encoder, or is a column of vectors.

    Raises:
        UserError: the others are named.
    """
    others = [c.name for g in groups if not isinstance(g.tokeniser, FrozenTokeniser) for c in g.columns if c.modality != "vector"]
    if others:
        verb = "is" if len(others) == 1 else "are"
        raise UserError(
            f"--freeze: {', '.join(others)} {verb} read by no frozen encoder, so that more than projections would be trained; "
            "name encoders with --encoder COLUMN=DIR, leave columns out with --drop, or fit without --freeze"
        )


def with_encoders(recipe: Recipe, encoders: Mapping[str, Any], names: Sequence[str], *, link: bool = False) -> Recipe:
    """The recipe with frozen encoders in place of some columns' tokenisers.

    Args:
        recipe: the resolved recipe.
        encoders: column -> a Hugging Face model folder, or an ``nn.Module``.
        names: the table's columns.
        link: refer to model folders by path and hash instead of copying them into the model.

    Raises:
        UserError: an encoder is for no column, or is neither a folder nor a module.
    """
    tokens = dict(recipe["tokens"])
    for name, encoder in encoders.items():
        if name not in names:
            raise UserError(f"encoder {name}: there is no column {name!r}{nearest(name, names)}")
        tokens[name] = _sentence(name, encoder)
    for key, spec in tokens.items():
        found = _folder_spec(spec, key)
        if found is not None:
            path = Path(found.path).expanduser().resolve()
            if not path.is_dir():
                raise UserError(f"encoder {key}: {path} is no folder")
            tokens[key] = _spec(found, str(path), folder_hash(path), found.link or link)
            if found.sha256 not in {"", tokens[key]["sha256"]}:
                raise UserError(f"encoder {key}: the content of {path} is not what the recipe asks for (sha256 differs)")
    return replace(recipe, settings={**recipe.settings, "tokens": tokens})


def _sentence(name: str, encoder: Any) -> Any:
    if isinstance(encoder, nn.Module):
        return Given.of(name, encoder)
    if isinstance(encoder, str | os.PathLike):
        return {"type": "hf", "path": os.fspath(encoder)}
    raise UserError(f"encoder {name}: expected a model folder or an nn.Module, got {type(encoder).__name__}")


def _folder_spec(spec: Any, key: str) -> HuggingFace | None:
    """The Hugging Face encoder that a tokeniser's setting stands for, or None."""
    word = None if isinstance(spec, Given) else as_word(spec, f"tokens.{key}")
    if word is None or word.name != "hf":
        return None
    return HuggingFace(**decode(HuggingFace, word, where=f"tokens.{key}"))


def _spec(found: HuggingFace, path: str, sha256: str, link: bool) -> dict[str, Any]:
    return {"type": "hf", "path": path, "sha256": sha256, "tokens": found.tokens, "link": link}


def folder_name(column: str) -> str:
    """A column's name as the name of a folder, of which no part can lead elsewhere."""
    return quote(column, safe=" ").replace(".", "%2E")


def store_encoders(folder: Path, recipe: Recipe) -> Recipe:
    """Copy encoders into a model folder; the recipe as the folder is to record it, with paths relative to it.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    tokens = dict(recipe["tokens"])
    for key, spec in tokens.items():
        found = _folder_spec(spec, key)
        if found is None or found.link:
            continue
        target = folder / ENCODERS / folder_name(key)
        if not (target.is_dir() and folder_hash(target) == found.sha256):
            _copy(Path(found.path), target)
        tokens[key] = _spec(found, f"{ENCODERS}/{target.name}", found.sha256, False)
    return replace(recipe, settings={**recipe.settings, "tokens": tokens})


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for file in model_files(source):
            shutil.copyfile(file, temporary / file.name)
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ResourceError(f"the encoder {source} cannot be copied to {target}: {error.strerror}") from None


def find_encoders(folder: Path, recipe: Recipe, encoders: Mapping[str, Any]) -> Recipe:
    """The recipe of a model folder with its encoders found: copies in the folder, linked ones at their path, modules as given.

    Args:
        folder: the model folder.
        recipe: as the folder records it.
        encoders: modules given again, and new places of linked folders, by column.

    Raises:
        ModelFolderError: an encoder is absent or not the one that the model was fitted with.
    """
    tokens = recipe.settings.get("tokens")
    if not isinstance(tokens, Mapping):
        raise ModelFolderError(f"{folder}: the recipe has no tokens; the file is damaged")
    tokens = dict(tokens)
    unknown = [name for name in encoders if name not in tokens]
    if unknown:
        raise ModelFolderError(f"{folder}: the model has no encoder {unknown[0]!r}{nearest(unknown[0], tokens)}")
    for key, spec in tokens.items():
        try:
            word = as_word(spec, f"tokens.{key}")
            if word.name == "hf":
                found = HuggingFace(**decode(HuggingFace, word, where=f"tokens.{key}"))
                tokens[key] = _spec(found, str(_place(folder, key, found, encoders.get(key))), found.sha256, found.link)
            elif word.name == "given":
                tokens[key] = _again(folder, key, Given(**decode(Given, word, where=f"tokens.{key}")), encoders.get(key))
            elif key in encoders:
                raise ModelFolderError(f"{folder}: column {key!r} is read by {word.name}, not by an encoder of yours")
        except ConfigError as error:
            raise ModelFolderError(f"{folder}: recipe and schema do not make a model: {error}") from None
    return replace(recipe, settings={**recipe.settings, "tokens": tokens})


def _place(folder: Path, key: str, found: HuggingFace, given: Any) -> Path:
    """Where the files of an encoder are, their hash checked."""
    if given is not None and not isinstance(given, str | os.PathLike):
        raise ModelFolderError(f"{folder}: the encoder of {key!r} is a model folder, not a module")
    if given is not None:
        path = Path(given).expanduser().resolve()
    elif found.link:
        path = Path(found.path)
    else:
        path = folder / ENCODERS / folder_name(key)
        if found.path != f"{ENCODERS}/{path.name}" or path.is_symlink():
            raise ModelFolderError(f"{folder}: the encoder of {key!r} is recorded at {found.path!r}, which is not its place in the folder")
    if not path.is_dir():
        hint = f"; say where it is now: load(..., encoders={{{key!r}: FOLDER}})" if found.link else "; the folder is damaged"
        raise ModelFolderError(f"{folder}: the encoder of {key!r} is not at {path}{hint}")
    if folder_hash(path) != found.sha256:
        raise ModelFolderError(
            f"{path}: its content is not what the model was fitted with; the encoder of {key!r} is damaged or was changed"
        )
    return path.resolve()


def _again(folder: Path, key: str, recorded: Given, module: Any) -> Given:
    """The module given again, recognised by its hash."""
    if module is None:
        raise ModelFolderError(
            f"{folder}: the model reads {key!r} by a module of yours; give it again: load(..., encoders={{{key!r}: module}})"
        )
    if not isinstance(module, nn.Module):
        raise ModelFolderError(f"{folder}: the encoder of {key!r} has to be an nn.Module, got {type(module).__name__}")
    if module_hash(module) != recorded.sha256:
        raise ModelFolderError(f"{folder}: the module given for {key!r} is not the one that the model was fitted with (its weights differ)")
    return Given.of(recorded.name, module, recorded.tokens)
