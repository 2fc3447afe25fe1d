"""Unisono: one model for tables of any modality.

``import unisono`` is instant: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unisono import data, words
    from unisono.api import fit, inspect, load, open_index
    from unisono.core.errors import UnisonoError, UserError
    from unisono.model import Model
    from unisono.model.inspect import Inspection
    from unisono.recipe import Recipe, load_recipe, recipe_names
    from unisono.retrieve.hits import Hits
    from unisono.retrieve.index import Index
    from unisono.table.read import open_table

__version__ = "0.1.0"

_PLACES = {
    "Model": "unisono.model",
    "fit": "unisono.api",
    "load": "unisono.api",
    "inspect": "unisono.api",
    "open_index": "unisono.api",
    "Index": "unisono.retrieve.index",
    "Hits": "unisono.retrieve.hits",
    "Inspection": "unisono.model.inspect",
    "Recipe": "unisono.recipe",
    "load_recipe": "unisono.recipe",
    "recipe_names": "unisono.recipe",
    "open_table": "unisono.table.read",
    "UnisonoError": "unisono.core.errors",
    "UserError": "unisono.core.errors",
    "data": "unisono.data",
    "words": "unisono.words",
}

__all__ = [
    "Model",
    "fit",
    "load",
    "inspect",
    "open_index",
    "Index",
    "Hits",
    "Inspection",
    "Recipe",
    "load_recipe",
    "recipe_names",
    "open_table",
    "UnisonoError",
    "UserError",
    "data",
    "words",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'unisono' has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name])
    return module if name in {"data", "words"} else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
