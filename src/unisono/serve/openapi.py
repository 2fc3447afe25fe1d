"""The OpenAPI document of a service: its addresses, with the columns of the model that is served."""

from __future__ import annotations

from typing import Any

from unisono import __version__
from unisono.core.schema import Schema
from unisono.serve.asked import RowsAsked, SearchAsked
from unisono.serve.cells import MEDIA

_TYPES: dict[str, dict[str, Any]] = {
    "number": {"type": "number"}, "boolean": {"type": "boolean"}, "datetime": {"type": "string", "format": "date-time"},
    "series": {"type": "array"}, "points": {"type": "array"}, "vector": {"type": "array", "items": {"type": "number"}},
    "cube": {"type": "array"}, "graph": {"type": "object"},
}  # fmt: skip
_ERRORS = {
    "400": "the body cannot be read", "413": "the request is too large", "408": "the request did not arrive in time",
    "422": "a value is none of its column", "429": "too many requests wait; see Retry-After", "503": "the answer took too long",
}  # fmt: skip


def document(schema: Schema, name: str, *, gallery: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document.

    Args:
        schema: the model's.
        name: what is served.
        gallery: whether an index is served as well.
    """
    rows = {"application/json": {"schema": _json_rows(schema)}, "multipart/form-data": {"schema": _form_row(schema)}}
    paths: dict[str, Any] = {}
    if schema.targets:
        paths["/predict"] = {
            "post": _operation("Predict rows", "Each target's value, with probabilities where it has them.", rows, _predictions(schema))
        }
    paths["/embed"] = {"post": _operation("Embed rows", "One vector for each row and each of its sources.", rows, _list("embeddings"))}
    if gallery:
        query = {"application/json": {"schema": SearchAsked.model_json_schema()}, "multipart/form-data": {"schema": _form_query(schema)}}
        hits = {"type": "object", "properties": {"query": {"type": "object"}, "hits": {"type": "array", "items": _HIT}}}
        paths["/search"] = {"post": _operation("Search", "The items most like a query.", query, hits)}
        key, column = _parameter("key", "path", "the item's key"), _parameter("column", "path", "a column of media")
        size = _parameter("size", "query", "the longest side of a thumbnail; without it the file itself", required=False)
        paths["/items/{key}"] = {"get": {**_operation("One item", "All its fields.", None, _HIT), "parameters": [key]}}
        media = {**_operation("Media of an item", "The file, a thumbnail or a sketch.", None, None), "parameters": [key, column, size]}
        paths["/items/{key}/media/{column}"] = {"get": media}
    for path, summary in {
        "/health": "Whether it lives",
        "/metrics": "Counters for Prometheus",
        "/schema": "Columns, targets and limits",
    }.items():
        paths[path] = {"get": _operation(summary, "", None, {"type": "string"} if path == "/metrics" else {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Unisono: {name}", "version": __version__, "description": _about(schema)},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"message": {"type": "string"}, "where": {"type": ["string", "null"]}}}},
}
_HIT = {
    "type": "object",
    "properties": {"rank": {"type": "integer"}, "key": {}, "score": {"type": "number"}, "fields": {"type": "object"}},
}


def _about(schema: Schema) -> str:
    columns = ", ".join(f"{c.name} ({c.modality})" for c in schema.columns)
    targets = ", ".join(f"{t.name} ({t.task})" for t in schema.targets)
    return f"Columns: {columns}." + (f" Targets: {targets}." if targets else "")


def _cell(modality: str) -> dict[str, Any]:
    if modality in MEDIA:
        return {"type": "object", "properties": {"base64": {"type": "string", "contentEncoding": "base64"}}, "required": ["base64"]}
    return dict(_TYPES.get(modality, {"type": "string"}))


def _json_rows(schema: Schema) -> dict[str, Any]:
    whole = RowsAsked.model_json_schema()
    whole["properties"]["rows"]["items"] = {"type": "object", "properties": {c.name: _cell(c.modality) for c in schema.columns}}
    return whole


def _form_row(schema: Schema) -> dict[str, Any]:
    cells = {c.name: _BINARY if c.modality in MEDIA else {"type": "string", "description": c.modality} for c in schema.columns}
    return {"type": "object", "properties": cells}


_BINARY = {"type": "string", "format": "binary"}


def _form_query(schema: Schema) -> dict[str, Any]:
    names: dict[str, Any] = {"text": {"type": "string"}, "image": _BINARY, "audio": _BINARY}
    names |= {n: {"type": "string"} for n in ("row", "to", "where")} | {"k": {"type": "integer"}}
    for column in schema.columns:
        names[f"query.{column.name}"] = names[f"minus.{column.name}"] = _BINARY if column.modality in MEDIA else {"type": "string"}
    return {"type": "object", "properties": names, "additionalProperties": {"type": "string", "description": "weight.PART"}}


def _predictions(schema: Schema) -> dict[str, Any]:
    answer = {"type": "object", "properties": {"value": {}, "probability": {"type": "number"}, "probabilities": {"type": "object"}}}
    return {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": {"type": "object", "properties": {t.name: answer for t in schema.targets}}}
        },
    }


def _list(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "array", "items": {"type": "object"}}}}


def _parameter(name: str, place: str, words: str, *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "description": words, "schema": {"type": "string"}}


def _operation(summary: str, words: str, body: dict[str, Any] | None, answer: dict[str, Any] | None) -> dict[str, Any]:
    content = {"application/json": {"schema": answer}} if answer is not None else {"*/*": {}}
    found: dict[str, Any] = {"summary": summary, "description": words, "responses": {"200": {"description": "done", "content": content}}}
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        found["responses"] |= {status: {"description": what, "content": error} for status, what in _ERRORS.items()}
    return found
