"""Recipes: read, derive, check, and build the network that a recipe and a schema describe together."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from unisono.core.errors import ConfigError, nearest
from unisono.core.registry import NonNegative, Probability, decode
from unisono.core.words import Chain, Word, as_setting, as_word, parse_chain

#: The kind of a recipe that is a model.
MODEL = "model"
#: What else a recipe may be for -> the verb that takes it; such a recipe has that key in place of a model's.
VERBS = {"adapt": "adapt", "merge": "merge", "compress": "compress", "index": "index", "protocol": "bench"}
#: The keys a recipe of a model may have.
KEYS = ("extends", "source", "claim", "needs", "tokens", "width", "defaults", "trunk", "objective", "tasks", "train", "steps")
#: The keys that a recipe of every kind may have.
_COMMON = ("extends", "source", "claim", "needs")
_MAX_BYTES = 1 << 20
#: What an objective may be made of.
_OBJECTIVES = ("supervised", "align", "matching")
#: What is said where there is nothing to learn.
NO_TARGET = "there is no target: name the column to predict, for example --target price, or learn one space for all columns with --align"
#: What a layer's sharing may be given for.
_ROLES = {"norm", "mixer", "ffn"}


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: everything inherited is in it, nothing is left to defaults elsewhere.

    Attributes:
        name: what it was asked for by.
        settings: the resolved keys (``KEYS`` without ``extends`` and ``steps``).
        lineage: the recipes it derives from, nearest first.
    """

    name: str
    settings: Mapping[str, Any]
    lineage: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.settings[key]

    def to_yaml(self) -> str:
        """The resolved recipe as a file that can be given back by its path."""
        text: str = yaml.safe_dump({k: _written(v) for k, v in self.settings.items()}, sort_keys=False, allow_unicode=True, width=120)
        return text

    def with_settings(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with some keys merged over, by the rules of derivation.

        Raises:
            ConfigError: a key is unknown.
        """
        return Recipe(self.name, _derive(self.settings, changes, self.name), self.lineage)


#: What a recipe may be asked for by: a name or path, or the recipe itself.
Given: TypeAlias = str | Mapping[str, Any]


def _plain(value: Any) -> Any:
    if isinstance(value, Word | Chain):
        setting = as_setting(value)
        return setting if isinstance(setting, str) else _plain(setting)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _written(value: Any) -> Any:
    """Plain values; a ready component by the setting that stands for it."""
    if hasattr(value, "to_setting"):
        return _written(value.to_setting())
    if isinstance(value, Mapping):
        return {str(k): _written(v) for k, v in value.items()}
    return [_written(v) for v in value] if isinstance(value, list | tuple) else value


def _folder(kind: str) -> Any:
    folder = importlib.resources.files("unisono") / "recipes"
    return folder if kind == MODEL else folder / kind


def recipe_names(kind: str = MODEL) -> list[str]:
    """The names of all recipes of a kind that come with the package.

    Args:
        kind: ``model``, or a key of ``VERBS``.
    """
    folder = _folder(kind)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")) if folder.is_dir() else []


def kind_of(settings: Mapping[str, Any]) -> str:
    """What a resolved recipe is: ``model``, or a key of ``VERBS``."""
    return next((kind for kind in VERBS if kind in settings), MODEL)


def load_recipe(name: Given, changes: Sequence[str] | Mapping[str, Any] = (), *, kind: str = MODEL) -> Recipe:
    """Read a recipe by name or path and resolve what it extends.

    Args:
        name: a name that ``recipe_names`` lists, the path of a YAML file, or a mapping with a file's keys, its components as texts or
            ``unisono.words``.
        changes: ``key=value`` settings with dotted keys, applied last; or a mapping merged over.
        kind: ``model``, or a key of ``VERBS``.

    Raises:
        ConfigError: no such recipe, one of another kind, an unknown key, or a chain of ``extends`` that never ends.
    """
    settings, lineage = _resolve(name, (), kind)
    if kind_of(settings) != kind:
        raise _of_other_kind(_called(name), kind_of(settings), kind)
    if not isinstance(changes, Mapping):
        merged: dict[str, Any] = {}
        for change in changes:
            _merge_into(merged, _dotted(change))
        changes = merged
    called = _called(name)
    return Recipe(called, _derive(settings, changes, called), lineage)


def _called(name: Given) -> str:
    """What a recipe is called in messages."""
    return name if isinstance(name, str) else "given"


def _of_other_kind(name: str, kind: str, wanted: str) -> ConfigError:
    verbs = {MODEL: "fit", **VERBS}
    return ConfigError(f"recipe {name} is {'a model' if kind == MODEL else 'no model'}: it is for {verbs[kind]}, not for {verbs[wanted]}")


def _resolve(given: Given, seen: tuple[str, ...], kind: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    name = _called(given)
    if name in seen:
        raise ConfigError(f"recipe {seen[0]}: extends itself through {' -> '.join((*seen, name))}")
    raw = _read(given, kind) if isinstance(given, str) else _own(given)
    parent = raw.pop("extends", None)
    if parent is None:
        return _derive({}, raw, name), ()
    base, lineage = _resolve(str(parent), (*seen, name), kind)
    inherited = {k: v for k, v in base.items() if k not in {"source", "claim"}}
    return _derive(inherited, raw, name), (str(parent), *lineage)


def _own(given: Any) -> dict[str, Any]:
    """A recipe that was given as a mapping, on its own from now on.

    Raises:
        ConfigError: it is no mapping with texts for keys.
    """
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"a recipe is a name, a path, or a mapping of its keys, not {given!r}")
    return {key: _plain(value) if isinstance(value, Mapping | list | tuple | Word | Chain) else value for key, value in given.items()}


def _read(name: str, kind: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"recipe {name}: there is no such file")
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"recipe {name}: the file is larger than {_MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    elif name in recipe_names(kind):
        text = (_folder(kind) / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        for other in (MODEL, *VERBS):
            if name in recipe_names(other):
                raise _of_other_kind(name, other, kind)
        raise ConfigError(f"no recipe is called {name!r}{nearest(name, recipe_names(kind))}")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {name}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"recipe {name}: expected a mapping of keys, got {type(raw).__name__}")
    return raw


def _derive(base: Mapping[str, Any], changes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Merge a recipe over the one it extends: mappings key by key, lists and components whole, ``steps`` by step name."""
    kind = kind_of({**base, **changes})
    keys = KEYS if kind == MODEL else (*_COMMON, kind)
    for key in changes:
        if key not in keys or key == "extends":
            raise ConfigError(f"recipe {name}: {key} is unknown{nearest(str(key), keys)}")
    result = {k: _plain(v) for k, v in base.items()}
    _merge_into(result, {k: v for k, v in changes.items() if k != "steps"})
    for step, patch in (changes.get("steps") or {}).items():
        places = [s for s in result.get("trunk", []) if isinstance(s, dict) and s.get("name") == step]
        if not places:
            names = [str(s["name"]) for s in result.get("trunk", []) if isinstance(s, dict) and "name" in s]
            raise ConfigError(f"recipe {name}: steps.{step}: the trunk has no step of this name{nearest(str(step), names)}")
        for place in places:
            _merge_into(place, patch)
    return result


def _merge_into(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        old = base.get(key)
        if key == "sharing" and _by_role(value) and not _by_role(old):
            old = None
        if isinstance(value, Mapping) and isinstance(old, str) and "type" not in value:
            word = as_word(old, key)
            if not word.positional:
                old = base[key] = {"type": word.name, **{k: _plain(v) for k, v in word.named.items()}}
        keeps_type = isinstance(old, dict) and isinstance(value, Mapping) and value.get("type", old.get("type")) == old.get("type")
        if keeps_type and isinstance(old, dict) and isinstance(value, Mapping):
            _merge_into(old, value)
        else:
            base[key] = _plain(value)


def _by_role(value: Any) -> bool:
    """Whether a sharing is given for each role, as a mapping that is no sentence by itself."""
    return isinstance(value, Mapping) and set(value) <= _ROLES


def _dotted(change: str) -> dict[str, Any]:
    """``a.b=c`` as nested mappings, the value read as YAML."""
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {change!r}: expected key=value, for example --set width=128")
    try:
        value = yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError:
        value = text
    nested: Any = value
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


class Supervised:
    """The objective that predicts target columns from all others.

    Args:
        drop_sources: probability that a training row shows only a random part of its sources.
        reads: weight of the mean loss over what reads before the last say, each by the same heads (arXiv:2309.14118).
        alone: weight of what each source says by itself (``nn.alone.OwnHeads``), next to what all say together; 0 for none.
    """

    def __init__(self, *, drop_sources: Probability = 0.3, reads: NonNegative = 0.0, alone: NonNegative = 0.0) -> None:
        self.drop_sources, self.reads, self.alone = drop_sources, reads, alone


@dataclass(frozen=True)
class Objectives:
    """What a recipe's ``objective`` asks for: one sentence, or a list of them.

    Attributes:
        supervised: how targets are predicted, or None.
        align: the ``align(...)`` sentences; without any the model has no shared space.
        matching: the ``matching(...)`` sentence, or None.
    """

    supervised: Supervised | None
    align: tuple[Word, ...] = ()
    matching: Word | None = None

    @property
    def drop_sources(self) -> float:
        """Probability that a training row shows only a random part of its sources; what predicts nothing hides nothing."""
        return self.supervised.drop_sources if self.supervised is not None else 0.0


def objective_words(recipe: Recipe) -> list[Word]:
    """The sentences of a recipe's objective.

    Raises:
        ConfigError: one is unknown, or there is none.
    """
    given, where = recipe.settings.get("objective", "supervised"), f"recipe {recipe.name}: objective"
    words = [as_word(each, where) for each in (given if isinstance(given, list | tuple) else [given])]
    for word in words:
        if word.name not in _OBJECTIVES:
            raise ConfigError(f"{where}: {word.name!r} is unknown{nearest(word.name, _OBJECTIVES)}")
    names = [w.name for w in words]
    if not words or names.count("supervised") > 1 or names.count("matching") > 1:
        raise ConfigError(f"{where}: expected a sentence or a list of them, supervised and matching at most once")
    if "matching" in names and "align" not in names:
        raise ConfigError(f"{where}: matching takes its pairs by how alike they are in a shared space: put align beside it")
    return words


def build_objective(recipe: Recipe) -> Objectives:
    """The recipe's objective.

    Raises:
        ConfigError: the objective is unknown or a setting does not fit.
    """
    words = objective_words(recipe)
    own = next((w for w in words if w.name == "supervised"), None)
    supervised = None if own is None else Supervised(**decode(Supervised, own, where=f"recipe {recipe.name}: objective"))
    matching = next((w for w in words if w.name == "matching"), None)
    return Objectives(supervised, tuple(w for w in words if w.name == "align"), matching)


def fitted_objective(recipe: Recipe, *, targets: bool, align: bool = False, objective: str | None = None) -> Recipe:
    """The recipe with the objective that a fit asks for.

    Args:
        recipe: as it was named.
        targets: whether there are targets; without them nothing is supervised, with them something is.
        align: whether a shared space is asked for.
        objective: a sentence, or several joined by ``&``, in place of the recipe's.

    Raises:
        ConfigError: nothing is left to be learned, or a sentence is unknown.
    """
    words = [w for w in objective_words(recipe)] if objective is None else parse_chain(objective, "--objective")
    recipe = recipe.with_settings({"objective": [as_setting(w) for w in words]})
    words = objective_words(recipe)
    if align and not any(w.name == "align" for w in words):
        words = [*words, Word("align")]
    if not targets:
        words = [w for w in words if w.name != "supervised"]
    elif not any(w.name == "supervised" for w in words):
        words = [Word("supervised"), *words]
    if not words:
        raise ConfigError(NO_TARGET)
    settings = [_plain(w) for w in words]
    return recipe.with_settings({"objective": settings[0] if len(settings) == 1 else settings})
