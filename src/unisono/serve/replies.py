"""Replies and refusals, free of any web framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unisono.core.errors import CellError, FilterError, ResourceError, UnisonoError, UserError

JSON, BINARY = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Reply:
    """What an endpoint answers.

    Attributes:
        body: the content.
        type: its media type.
        status: the HTTP status.
        headers: further headers.
    """

    body: bytes
    type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - an answer, not a failure of the server
    """A request that is answered with a status and a reason.

    Args:
        status: the HTTP status, 400 or above.
        message: what is wrong and what to do.
        where: the place: a column, a header, ``filter``, ``body``.
        headers: further headers.
    """

    def __init__(self, status: int, message: str, where: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.where, self.headers = status, message, where, dict(headers or {})

    def reply(self) -> Reply:
        """The refusal as JSON."""
        return json_reply({"error": {"message": self.message, "where": self.where}}, self.status, self.headers)


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Plain values as a reply."""
    return Reply(json.dumps(content, ensure_ascii=False, allow_nan=False).encode(), JSON, status, dict(headers or {}))


def refusal(error: UnisonoError) -> Refused:
    """What a failure of the package is to the person who asked: 422 for a mistake of theirs, else 500 (503 for lack of something)."""
    if isinstance(error, CellError):
        return Refused(422, error.reason, f"row {error.row}, column {error.column!r}")
    if isinstance(error, FilterError):
        return Refused(422, str(error), "filter")
    if isinstance(error, UserError):
        return Refused(422, str(error))
    return Refused(503 if isinstance(error, ResourceError) else 500, str(error))
