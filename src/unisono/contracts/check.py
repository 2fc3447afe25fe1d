"""Run the contracts over what another installed package offers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from unisono.contracts.holds import CONTRACTS, ContractError, need
from unisono.contracts.trunk import ROLES, part_of
from unisono.core.errors import UserError, nearest
from unisono.core.registry import Entry, Registry, all_registries

_GROUP = "unisono."


@dataclass(frozen=True)
class Outcome:
    """What became of one contract on one component.

    Attributes:
        role: the component's.
        name: the component's.
        contract: the contract's.
        result: ``passed``, ``failed``, or ``exempt`` where the component says by its traits that it does not hold.
        reason: why it failed or is exempt.
    """

    role: str
    name: str
    contract: str
    result: str
    reason: str = ""


def says_what_it_is(entry: Entry[Any]) -> None:
    """A component has a docstring of its own, whose first line is a sentence.

    Raises:
        ContractError: it has none.
    """
    need(bool(entry.target.__doc__), "it has no docstring of its own, which says what it is, by which equation, from which source")
    need(len(entry.summary) > 15, f"its docstring begins with {entry.summary!r}, which says too little")
    need(entry.summary.rstrip().endswith((".", ":", ";")), "the first line of its docstring is no sentence")


def entry_points(package: str) -> list[importlib.metadata.EntryPoint]:
    """The components that an installed package offers.

    Args:
        package: the name it is installed by, or imported by.

    Raises:
        UserError: there is no such package, or it offers nothing.
    """
    imported = importlib.metadata.packages_distributions()
    names = [package, *imported.get(package, [])]
    for name in names:
        try:
            distribution = importlib.metadata.distribution(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
        found = [p for p in distribution.entry_points if p.group.startswith(_GROUP)]
        if not found:
            raise UserError(
                f"the package {name} offers nothing: it has no entry point in a group {_GROUP}ROLE, for example "
                f'[project.entry-points."unisono.norm"] mine = "package.module:Norm"'
            )
        return sorted(found, key=lambda p: (p.group, p.name))
    raise UserError(f"no package is installed as {package!r}{nearest(package, sorted({d for ds in imported.values() for d in ds}))}")


def check_package(package: str) -> list[Outcome]:
    """Import what a package offers and hold it against the contracts.

    Raises:
        UserError: there is no such package, or it offers nothing.
    """
    import unisono.train.optimisers  # noqa: F401 - with the network, every registry there is

    return [outcome for point in entry_points(package) for outcome in check_entry_point(point)]


def check_entry_point(point: importlib.metadata.EntryPoint) -> Iterator[Outcome]:
    """Every contract on one component.

    Yields:
        Outcomes; where it cannot be imported or registered, that alone.
    """
    role, registries = point.group.removeprefix(_GROUP), all_registries()
    if role not in registries:
        yield Outcome(role, point.name, "is registered", "failed", f"no role is called {role!r}{nearest(role, registries)}")
        return
    registry = registries[role]
    failure = _registration(point, registry)
    yield Outcome(role, point.name, "is registered", "failed" if failure else "passed", failure)
    if failure:
        return
    entry = registry.get(point.name)
    yield _outcome(role, entry, "says what it is", lambda: says_what_it_is(entry))
    short = next((word for word, found in ROLES.items() if found is registry), None)
    if short is None:
        return
    for name, contract in CONTRACTS.items():
        yield _outcome(role, entry, name, lambda contract=contract: contract(part_of(short, point.name)))  # type: ignore[misc]


def _registration(point: importlib.metadata.EntryPoint, registry: Registry[Any]) -> str:
    """Why a component is not in its registry; empty when it is."""
    try:
        target = point.load()
        entry = registry.get(point.name)
    except Exception as error:
        return f"{point.value}: {_said(error.__cause__ or error)}"
    if entry.target is not target:
        return f"the name {point.name!r} is taken ({entry.source or 'it comes with unisono'}): choose another"
    if isinstance(target, type) and not issubclass(target, registry.base):
        return f"it is no {registry.base.__module__}.{registry.base.__qualname__}"
    return ""


def _outcome(role: str, entry: Entry[Any], name: str, contract: Callable[[], None]) -> Outcome:
    """Run one contract; whatever a component of another package raises is the reason."""
    try:
        contract()
    except ContractError as error:
        failure = str(error)
    except Exception as error:
        failure = _said(error)
    else:
        return Outcome(role, entry.name, name, "passed")
    excuse = entry.traits.exempt.get("gradient", "") if name == "every parameter gets gradient" else ""
    return Outcome(role, entry.name, name, "exempt" if excuse else "failed", excuse or failure)


def _said(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
