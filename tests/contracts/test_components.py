"""What holds for every registered component of every role: it says what it is, and refuses what is out of bounds by name."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt

import unisono.network  # noqa: F401 - brings in the registries that a model is made of
import unisono.objectives.base  # noqa: F401
import unisono.train.optimisers  # noqa: F401
from unisono.contracts.check import says_what_it_is
from unisono.core.errors import ConfigError
from unisono.core.registry import Registry, all_registries, decode
from unisono.core.words import Word
from unisono.recipe import Supervised, load_recipe, recipe_names
from unisono.train.settings import TrainSettings

#: Roles that need no source, and why.
NO_SOURCE = {"modality": "a kind of data, no published method"}
REGISTRIES = {role: registry for role, registry in all_registries().items() if registry.package.startswith("unisono.")}
COMPONENTS = [(role, name) for role, registry in REGISTRIES.items() for name in registry.entries]


def parameters(target: Any, runtime: frozenset[str] = frozenset()) -> dict[str, inspect.Parameter]:
    """The settings of a component with resolved annotations."""
    init = target.__init__ if isinstance(target, type) else target
    hints = typing.get_type_hints(init, include_extras=True)
    return {n: p.replace(annotation=hints[n]) for n, p in inspect.signature(target).parameters.items() if n not in runtime}


def _flat(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The alternatives of an annotation with the bounds of each.

    Yields:
        An alternative and its bounds.
    """
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        for part in typing.get_args(annotation):
            yield from _flat(part)
    elif typing.get_origin(annotation) is Annotated:
        plain, *bounds = typing.get_args(annotation)
        for inner, more in _flat(plain):
            yield inner, (*more, *bounds)
    else:
        yield annotation, ()


def violations(annotation: Any) -> Iterator[Any]:
    """Values that do not fit an annotation: one beyond each bound, and one of a wrong kind.

    Yields:
        A value.
    """
    alternatives = list(_flat(annotation))
    kinds = {kind for kind, _ in alternatives}
    step = 1 if int in kinds else 1e-3
    for _, bounds in alternatives:
        for bound in bounds:
            match bound:
                case Ge(least):
                    yield least - step
                case Gt(least):
                    yield least
                case Le(most):
                    yield most + step
                case Lt(most):
                    yield most
    if kinds & {int, float, bool} and str not in kinds:
        yield "no such value"
        yield [1]
    if kinds & {int, float} and bool not in kinds:
        yield True
        yield float("nan")
    if int in kinds and float not in kinds:
        yield 1.5
    if bool in kinds and not kinds & {int, float}:
        yield 2
    if any(typing.get_origin(kind) is Literal for kind in kinds) and str not in kinds:
        yield "no such word"


def violation_cases() -> Iterator[Any]:
    """Every component's every setting with every value that does not fit.

    Yields:
        A case.
    """
    for role, registry in REGISTRIES.items():
        for name, entry in registry.entries.items():
            for key, p in parameters(entry.target, registry.runtime).items():
                for k, value in enumerate(violations(p.annotation)):
                    yield pytest.param(registry, name, key, value, id=f"{role}-{name}-{key}-{k}")


def test_the_registries_are_those_of_the_design() -> None:
    roles = {role for role, _ in COMPONENTS}
    assert roles >= {"modality", "tokeniser", "norm", "feed-forward", "mixer", "sharing", "scope", "read", "insert", "task", "optimiser"}
    assert len(COMPONENTS) > 45


@pytest.mark.parametrize(("registry", "name", "key", "value"), list(violation_cases()))
def test_a_value_out_of_bounds_is_refused_by_name(registry: Registry[Any], name: str, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"here\.{name}\.{key}\b"):
        registry.settings({"type": name, **_required(registry, name), key: value}, where="here")


def _required(registry: Registry[Any], name: str) -> dict[str, Any]:
    """Something for every setting without a default."""
    found = parameters(registry.get(name).target, registry.runtime)
    missing = {key: p for key, p in found.items() if p.default is inspect.Parameter.empty}
    return {key: 2 if any(kind is int for kind, _ in _flat(p.annotation)) else "something" for key, p in missing.items()}


@pytest.mark.parametrize(("role", "name"), COMPONENTS)
def test_an_unknown_setting_is_refused_with_the_nearest(role: str, name: str) -> None:
    registry = REGISTRIES[role]
    with pytest.raises(ConfigError, match=rf"here\.{name}\.no_such_setting is unknown"):
        registry.settings({"type": name, "no_such_setting": 1}, where="here")
    for key in parameters(registry.get(name).target, registry.runtime):
        with pytest.raises(ConfigError, match=f"did you mean '{key}'"):
            registry.settings({"type": name, f"{key}x": 1}, where="here")


@pytest.mark.parametrize(("role", "name"), COMPONENTS)
def test_a_runtime_parameter_cannot_be_set_by_a_recipe(role: str, name: str) -> None:
    registry = REGISTRIES[role]
    for key in registry.runtime & set(parameters(registry.get(name).target)):
        with pytest.raises(ConfigError, match=f"{key} is unknown"):
            registry.settings({"type": name, key: 8}, where="here")


@pytest.mark.parametrize(("role", "name"), COMPONENTS)
def test_a_misspelt_name_is_refused_with_the_nearest(role: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"known:|did you mean"):
        REGISTRIES[role].get(name + "zz", "here")


@pytest.mark.parametrize(("role", "name"), COMPONENTS)
def test_a_component_says_what_it_is_and_where_it_is_from(role: str, name: str) -> None:
    entry = REGISTRIES[role].get(name)
    says_what_it_is(entry)
    assert entry.source or NO_SOURCE.get(role) or entry.traits.exempt.get("source"), "a source, or Traits(exempt={'source': why not})"
    assert all(reason for reason in entry.traits.exempt.values())


@pytest.mark.parametrize(("role", "name"), COMPONENTS)
def test_a_constructor_keeps_within_the_limits(role: str, name: str) -> None:
    found = parameters(REGISTRIES[role].get(name).target)
    assert len(found) < 10
    assert sum(p.annotation is bool for p in found.values()) <= 2


@pytest.mark.parametrize(("role", "name"), COMPONENTS)
def test_every_setting_is_explained(role: str, name: str) -> None:
    registry = REGISTRIES[role]
    target: Any = registry.get(name).target
    bases = target.__mro__ if isinstance(target, type) else [target]
    doc = "".join(inspect.getdoc(base) or "" for base in bases) + (inspect.getdoc(target.__init__) or "")
    unexplained = [key for key in parameters(target, registry.runtime) if f"{key}:" not in doc]
    assert not unexplained


def _settings_cases() -> Iterator[Any]:
    for target in (TrainSettings, Supervised):
        for key, p in parameters(target).items():
            for k, value in enumerate(violations(p.annotation)):
                yield pytest.param(target, key, value, id=f"{target.__name__}-{key}-{k}")


@pytest.mark.parametrize(("target", "key", "value"), list(_settings_cases()))
def test_training_settings_out_of_bounds_are_refused_by_name(target: Any, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"train\.{key}\b"):
        decode(target, Word("train", (), {key: value}), where="train")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_it_claims_and_where_it_is_from(name: str) -> None:
    recipe = load_recipe(name)
    assert len(str(recipe.settings["claim"])) > 20
    assert recipe.settings["source"]
    TrainSettings.read(recipe["train"])
    for word, spec in recipe["tokens"].items():
        entry, _ = REGISTRIES["tokeniser"].settings(spec)
        assert word in entry.target.reads  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_written_out_reads_back_the_same(name: str, tmp_path: Any) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(str(path)).settings == recipe.settings


@pytest.mark.parametrize("key", ["widht", "trnk", "tokenz", "defalts"])
def test_a_misspelt_recipe_key_is_refused_with_the_nearest(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is unknown; did you mean"):
        load_recipe("base", [f"{key}=1"])
