"""What a request asks, read from JSON or from a form with files, and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unisono.core.errors import nearest
from unisono.core.schema import ROW, Column, Schema
from unisono.serve.cells import cell_value, media_value
from unisono.serve.replies import Refused

M = TypeVar("M", bound=BaseModel)

#: The most hits of one search.
MAX_HITS = 1000
_NESTED = frozenset({"series", "points", "graph", "vector", "cube"})
_SHORT = ("text", "image", "audio")


class Strict(BaseModel):
    """A body whose every key is known."""

    model_config = ConfigDict(extra="forbid")


class RowsAsked(Strict):
    """Rows to predict or embed."""

    rows: list[dict[str, Any]] = Field(description='column -> value; a file is {"base64": "..."}; what is left out counts as missing')


class SearchAsked(Strict):
    """A query: its parts are added up, those of ``minus`` are taken away."""

    text: Any = Field(None, description="a text, or several, for the only text column")
    image: Any = Field(None, description='a picture as {"base64": "..."}, or several, for the only picture column')
    audio: Any = Field(None, description='a sound as {"base64": "..."}, or several, for the only sound column')
    row: Any = Field(None, description="the key of an item, or several: more like these")
    query: dict[str, Any] = Field(default_factory=dict, description="column -> value or values")
    minus: dict[str, Any] = Field(default_factory=dict, description="column -> value or values that the hits should not be like")
    weights: dict[str, float] = Field(default_factory=dict, description="part -> weight (1 by default)")
    to: str | None = Field(None, description="the side that is searched: a source, or row (the default)")
    k: int = Field(10, ge=1, le=MAX_HITS, description="how many hits")
    where: str | None = Field(None, description='a filter of items, such as price < 20 and kind in (a, "b c")')


class ItemsAsked(Strict):
    """Items by number."""

    rows: list[int] = Field(max_length=512)


class WhereAsked(Strict):
    """A filter of items."""

    where: str | None = None


class ExportAsked(Strict):
    """Items to be written to a file."""

    rows: list[int] = Field(min_length=1)
    format: Literal["csv", "parquet", "jsonl"] = "csv"


async def read_body(request: Any) -> dict[str, Any]:
    """A request's JSON object, or the fields and files of its form (repeated ones as lists).

    Raises:
        Refused: it is neither.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind in {"multipart/form-data", "application/x-www-form-urlencoded"}:
        return await _form(request)
    if kind not in {"", "application/json"}:
        raise Refused(415, f"a body of the type {kind!r} cannot be read; send application/json or multipart/form-data", "content-type")
    body = await request.body()
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}", "body") from None
    if not isinstance(content, dict):
        raise Refused(400, "the body is no JSON object", "body")
    return content


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


async def _form(request: Any) -> dict[str, Any]:
    from starlette.exceptions import HTTPException

    found: dict[str, Any] = {}
    try:
        async with request.form(max_files=64, max_fields=512, max_part_size=4 << 20) as form:
            for name, value in form.multi_items():
                cell = value if isinstance(value, str) else await value.read()
                found[name] = cell if name not in found else [*_listed(found[name]), cell]
    except HTTPException as error:
        raise Refused(400, f"the form cannot be read: {error.detail}", "body") from None
    return found


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def checked(model: type[M], content: Mapping[str, Any]) -> M:
    """A body as its model.

    Raises:
        Refused: a key is unknown, or a value of another type.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        hint = nearest(str(first["loc"][-1]), model.model_fields) if first["type"] == "extra_forbidden" else ""
        said = "there is no such key" if hint else first["msg"]
        raise Refused(422, f"{place}: {said}{hint}", place) from None


async def read_rows(request: Any, schema: Schema) -> list[dict[str, Any]]:
    """The rows of a request: ``{"rows": [...]}`` in JSON, or one row whose columns are the fields and files of a form."""
    content = await read_body(request)
    if not _is_form(request):
        return checked(RowsAsked, content).rows
    columns = {c.name: c for c in schema.columns}
    return [{n: _parsed(v, columns.get(n)) for n, v in content.items()}]


def _is_form(request: Any) -> bool:
    return not request.headers.get("content-type", "").lower().startswith("application/json") and bool(request.headers.get("content-type"))


def _parsed(value: Any, column: Column | None) -> Any:
    """A form's text for a column of lists, as JSON."""
    if column is None or column.modality not in _NESTED or not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_no_constant) if value.strip() else None
    except (ValueError, RecursionError):
        raise Refused(422, f"a cell of {column.modality} is written as a JSON list", f"column {column.name!r}") from None


async def read_search(request: Any, schema: Schema) -> dict[str, Any]:
    """A query as keyword arguments of ``Index.search``.

    In a form the parts are the fields ``text``, ``image``, ``audio``, ``row``, ``query.COLUMN``, ``minus.COLUMN`` and ``weight.PART``.
    """
    content = await read_body(request)
    asked = checked(SearchAsked, _unfolded(content) if _is_form(request) else content)
    columns = {c.name: c for c in schema.columns}
    found: dict[str, Any] = {"k": asked.k, "to": asked.to, "where": asked.where or None, "weights": asked.weights or None}
    found |= {"text": _texts(asked.text), "row": asked.row}
    found |= {kind: _each(getattr(asked, kind), partial(media_value, kind=kind, where=kind)) for kind in ("image", "audio")}
    for part in ("query", "minus"):
        given = [(n, v) for n, each in getattr(asked, part).items() for v in _listed_or_one(each)]
        found[part] = [{n: _queried(v, name=n, columns=columns, part=part)} for n, v in given] or None
    return found


def _listed_or_one(value: Any) -> list[Any]:
    """Several examples, or one."""
    return value if isinstance(value, list) else [value]


def _unfolded(content: Mapping[str, Any]) -> dict[str, Any]:
    """A form's dotted fields as mappings."""
    found: dict[str, Any] = {}
    folded = {"query": "query", "minus": "minus", "weight": "weights"}
    for name, value in content.items():
        head, dot, tail = name.partition(".")
        if dot and head in folded:
            found.setdefault(folded[head], {})[tail] = value
        elif value not in ("", b""):
            found[name] = value
    return found


def _texts(value: Any) -> Any:
    for text in _listed(value) if value is not None else ():
        if not isinstance(text, str) or not text.strip():
            raise Refused(422, "a text of a query is not empty", "text")
    return value


def _each(value: Any, read: Any) -> Any:
    """One value or several, read."""
    if value is None:
        return None
    return [read(v) for v in value] if isinstance(value, list | tuple) else read(value)


def _queried(value: Any, name: str, columns: Mapping[str, Column], part: str) -> Any:
    where = f"{part}.{name}"
    if name == ROW and name not in columns:
        return value
    if name not in columns:
        raise Refused(422, f"the model has no column {name!r}{nearest(name, columns)}", where)
    cell = cell_value(_parsed(value, columns[name]), columns[name])
    if cell is None:
        raise Refused(422, "a part of a query is not empty", where)
    return cell


def simple(columns: Mapping[str, Column]) -> dict[str, str]:
    """``text``, ``image`` and ``audio`` -> the only column of that kind, as far as there is one."""
    found = {}
    for kind in _SHORT:
        names = [n for n, c in columns.items() if c.modality == kind]
        if len(names) == 1:
            found[kind] = names[0]
    return found
