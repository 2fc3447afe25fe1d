"""One registry per role: named components whose constructor signature is their schema.

A component is a class (or function) with keyword-only, annotated parameters. ``Registry.build`` decodes a ``Word`` or mapping
strictly: unknown names are errors with the nearest valid one, values are checked against the annotation (bounds are written as
``Annotated`` types), and a parameter whose annotation is another registry's base class, or a tuple of them, is built from nested words.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

import pydantic
from annotated_types import Ge, Gt, Le, Lt

from unisono.core.errors import ConfigError, nearest
from unisono.core.words import Chain, Word, as_word

T = TypeVar("T")

Probability = Annotated[float, Ge(0.0), Lt(1.0)]
Fraction = Annotated[float, Ge(0.0), Le(1.0)]
Positive = Annotated[float, Gt(0.0)]
NonNegative = Annotated[float, Ge(0.0)]
Count = Annotated[int, Ge(1)]
Index = Annotated[int, Ge(0)]


@dataclass(frozen=True, slots=True)
class Traits:
    """What the contracts may expect of a component.

    Attributes:
        exempt: contract name -> the reason why it does not hold.
        tags: free words that code and contracts select components by.
        example: a sentence to try the component in, where it cannot do without settings.
    """

    exempt: Mapping[str, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    example: str = ""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered component."""

    name: str
    target: Callable[..., T]
    source: str
    traits: Traits

    @property
    def summary(self) -> str:
        """The first line of the component's docstring."""
        return (inspect.getdoc(self.target) or "").split("\n", 1)[0]


_ALL: dict[str, Registry[Any]] = {}
_BY_BASE: dict[type, Registry[Any]] = {}


class Registry(Generic[T]):
    """The components of one role.

    Args:
        role: the word for the role in messages and in the entry-point group ``unisono.<role>``.
        base: the type every component builds.
        package: the package whose modules register the components; imported at the first look-up.
        runtime: parameters that the program supplies and that can never appear in a recipe.
    """

    def __init__(self, role: str, base: type[T], *, package: str, runtime: tuple[str, ...] = ()) -> None:
        if role in _ALL:
            raise ValueError(f"the role {role!r} has a registry already")
        self.role, self.base, self.package, self.runtime = role, base, package, frozenset(runtime)
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False
        _ALL[role] = self
        _BY_BASE[base] = self

    def register(self, name: str, *, source: str = "", traits: Traits | None = None) -> Callable[[Callable[..., T]], Any]:
        """Decorate a component class or function with its name and the source it comes from.

        Raises:
            ValueError: the name is taken, or a parameter is not keyword-only and annotated.
        """

        def add(target: Callable[..., T]) -> Callable[..., T]:
            if name in self._entries:
                raise ValueError(f"{self.role} {name!r} is registered twice")
            _parameters(target)
            self._entries[name] = Entry(name, target, source, traits or Traits())
            return target

        return add

    @property
    def entries(self) -> dict[str, Entry[T]]:
        """Every component by name, those of other installed packages included."""
        self._load()
        return dict(sorted(self._entries.items()))

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), self.package + "."):
            importlib.import_module(module.name)
        for point in importlib.metadata.entry_points(group=f"unisono.{self.role}"):
            if point.name not in self._entries:
                self._take(point)

    def _take(self, point: importlib.metadata.EntryPoint) -> None:
        """Register what another package offers; its ``traits``, if it has any, are those of the component."""
        package = point.dist.name if point.dist else "?"
        try:
            target = point.load()
            traits = getattr(target, "traits", Traits())
            if not isinstance(traits, Traits):
                raise TypeError(f"its traits are no {Traits.__module__}.Traits")
            self.register(point.name, source=f"package {package}", traits=traits)(target)
        except Exception as error:
            raise ConfigError(
                f"package {package}: {self.role} {point.name!r} ({point.value}) cannot be used: {error}; see: unisono check {package}"
            ) from error

    def get(self, name: str, where: str = "recipe") -> Entry[T]:
        """Look one component up.

        Raises:
            ConfigError: there is none of this name; the nearest is named.
        """
        self._load()
        if name not in self._entries:
            raise ConfigError(f"{where}: no {self.role} is called {name!r}{nearest(name, self._entries)}")
        return self._entries[name]

    def settings(self, spec: Any, where: str = "recipe") -> tuple[Entry[T], dict[str, Any]]:
        """Decode a word or mapping into a component and its checked settings, without building it.

        Raises:
            ConfigError: the component or a setting is unknown, or a value is out of its bounds.
        """
        word = as_word(spec, where)
        entry = self.get(word.name, where)
        return entry, decode(entry.target, word, where=f"{where}.{word.name}", runtime=self.runtime)

    def build(self, spec: Any, *, where: str = "recipe", **runtime: Any) -> T:
        """Build the component that a word, mapping or ready object stands for.

        Args:
            spec: ``name(setting=value)``, ``{type: name, setting: value}``, or an object of the role's type, returned as it is.
            where: the place to name in an error.
            **runtime: the values of the role's runtime parameters; those a component does not take are left out.

        Raises:
            ConfigError: the component or a setting is unknown, or a value is out of its bounds.
        """
        if isinstance(spec, self.base):
            return spec
        entry, settings = self.settings(spec, where)
        parameters = _parameters(entry.target)
        given = {k: v for k, v in runtime.items() if k in parameters}
        built = {k: _build_nested(parameters[k].annotation, v, f"{where}.{entry.name}.{k}", runtime) for k, v in settings.items()}
        return entry.target(**built, **given)


def all_registries() -> dict[str, Registry[Any]]:
    """Every registry that has been made so far, by role."""
    return dict(sorted(_ALL.items()))


@functools.cache
def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a component, their annotations resolved."""
    init = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = typing.get_type_hints(init, include_extras=True)
    found: dict[str, inspect.Parameter] = {}
    for p in inspect.signature(target).parameters.values():
        if p.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ValueError(f"{target.__qualname__}: parameter {p.name!r} has to be keyword-only")
        if p.name not in hints:
            raise ValueError(f"{target.__qualname__}: parameter {p.name!r} has to be annotated")
        found[p.name] = p.replace(annotation=hints[p.name])
    return found


def decode(target: Callable[..., Any], word: Word, *, where: str, runtime: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Match a word's values to a signature and check each.

    Args:
        target: the component; its keyword-only signature is the schema.
        word: name, positional and named values.
        where: the place to name in an error.
        runtime: parameters that may not be given.

    Returns:
        Parameter name -> checked value, for the values given.

    Raises:
        ConfigError: too many values, an unknown or repeated name, or a value that does not fit.
    """
    parameters = {k: p for k, p in _parameters(target).items() if k not in runtime}
    names = list(parameters)
    if len(word.positional) > len(names):
        raise ConfigError(f"{where}: takes at most {len(names)} settings ({', '.join(names) or 'none'}), got {len(word.positional)}")
    given = dict(zip(names, word.positional, strict=False))
    for key, value in word.named.items():
        if key not in parameters:
            raise ConfigError(f"{where}.{key} is unknown{nearest(key, names)}")
        if key in given:
            raise ConfigError(f"{where}.{key} is given twice, by place and by name")
        given[key] = value
    for key, p in parameters.items():
        if p.default is inspect.Parameter.empty and key not in given:
            raise ConfigError(f"{where}.{key} has to be given")
    return {key: check(value, parameters[key].annotation, f"{where}.{key}") for key, value in given.items()}


@functools.cache
def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True))


def check(value: Any, annotation: Any, where: str) -> Any:
    """Check one value against a type with bounds; numbers written as text (YAML reads ``1e-3`` so) are read as numbers.

    Raises:
        ConfigError: the value does not fit.
    """
    if _role(annotation) is not None:
        return value
    if _role_of_many(annotation) is not None:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list of components, got {value!r}; write [{value}]")
        return tuple(value)
    plain = _plain_types(annotation)
    if isinstance(value, bool) and bool not in plain and plain & {int, float, str}:
        quote = "; YAML reads yes, no, on and off as truth values: put the word in quotes" if str in plain else ""
        raise ConfigError(f"{where}: expected {_say(annotation)}, got {str(value).lower()}{quote}")
    if isinstance(value, str | int | float) and not isinstance(value, bool) and plain == {bool}:
        raise ConfigError(f"{where}: expected true or false, got {value!r}")
    if isinstance(value, Word | Chain):
        value = str(value)
    try:
        return _adapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        reason = "; ".join(e["msg"][0].lower() + e["msg"][1:] for e in error.errors())
        raise ConfigError(f"{where}: {value!r} does not fit: {reason}") from None


def _plain_types(annotation: Any) -> set[Any]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _plain_types(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return set().union(*(_plain_types(a) for a in typing.get_args(annotation))) - {type(None)}
    return {annotation}


def _say(annotation: Any) -> str:
    return " or ".join(sorted(getattr(t, "__name__", str(t)) for t in _plain_types(annotation)))


def _role(annotation: Any) -> Registry[Any] | None:
    """The registry whose base class the annotation names, optional or not."""
    for plain in _plain_types(annotation):
        if isinstance(plain, type) and plain in _BY_BASE:
            return _BY_BASE[plain]
    return None


def _role_of_many(annotation: Any) -> Registry[Any] | None:
    """The registry whose base class the annotation ``tuple[Base, ...]`` names."""
    if typing.get_origin(annotation) is tuple:
        return _role(typing.get_args(annotation)[0])
    return None


def _build_nested(annotation: Any, value: Any, where: str, runtime: Mapping[str, Any]) -> Any:
    many = _role_of_many(annotation)
    if many is not None:
        return tuple(many.build(each, where=f"{where}[{k}]", **runtime) for k, each in enumerate(value))
    registry = _role(annotation)
    if registry is None or value is None:
        return value
    return registry.build(value, where=where, **runtime)
