"""Data that ship: a procedural world with planted truths, handwritten digits, and loaders for a folder of public sets."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "shapes": "world",
    "stream_shapes": "world",
    "write_shapes": "world",
    "COLUMNS": "world",
    "scene": "scenes",
    "Scene": "scenes",
    "Thing": "scenes",
    "Noise": "truth",
    "shapes_truth": "truth",
    "best_score": "truth",
    "digits": "images",
    "emoji": "images",
    "emoji_skin_tones": "images",
    "mnist": "images",
    "fsdd": "sounds",
    "av_digits": "sounds",
    "mfeat": "arrays",
    "ucr": "arrays",
    "ett": "arrays",
    "planetoid": "arrays",
    "load": "catalogue",
    "names": "catalogue",
    "data_folder": "folder",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
