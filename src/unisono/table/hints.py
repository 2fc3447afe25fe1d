"""What the Hugging Face ``datasets`` library notes about columns: features, as objects or in a file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_WORDS = {"Image": "image", "Audio": "audio", "Video": "video", "ClassLabel": "category"}
_LISTS = {"List", "LargeList", "Sequence"}


def read_features(features: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return modality words and class names that features tell.

    Args:
        features: column -> feature, as an object or as its JSON form.

    Returns:
        column -> modality word, and column -> class names in order of their numbers.
    """
    hints: dict[str, str] = {}
    classes: dict[str, list[str]] = {}
    for column, feature in features.items():
        kind, inner, names = _parts(feature)
        if kind in _LISTS or isinstance(feature, list):
            kind = _parts(inner)[0]
            names = None
            if kind == "ClassLabel":
                continue
        if kind in _WORDS:
            hints[column] = _WORDS[kind]
        if kind == "ClassLabel" and names:
            classes[column] = [str(n) for n in names]
    return hints, classes


def _parts(feature: Any) -> tuple[str, Any, Any]:
    if isinstance(feature, list):
        return "List", feature[0] if feature else None, None
    if isinstance(feature, Mapping):
        return str(feature.get("_type", "")), feature.get("feature"), feature.get("names")
    return type(feature).__name__, getattr(feature, "feature", None), getattr(feature, "names", None)


def metadata_features(schema: pa.Schema) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return what the schema metadata key ``huggingface`` tells; nothing if it is absent or malformed.

    Args:
        schema: the schema of a Parquet or Arrow file.
    """
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}, {}
    return read_features(features) if isinstance(features, Mapping) else ({}, {})
