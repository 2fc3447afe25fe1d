"""The application: endpoints on a web framework, every failure as JSON."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from unisono.core.errors import DependencyError, UnisonoError
from unisono.serve.endpoints import Endpoint, Endpoints
from unisono.serve.guard import ROUTE, Guard
from unisono.serve.openapi import document
from unisono.serve.replies import Refused, refusal
from unisono.serve.service import Service

logger = logging.getLogger("unisono")


def build(service: Service, *, hosts: Collection[str] | None = None) -> Guard:
    """The application of a service.

    Args:
        service: answers.
        hosts: names that the server is called by; None for any.

    Raises:
        DependencyError: the web framework is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError:
        raise DependencyError("starlette", "serve", "serving") from None

    endpoints = Endpoints(service, document(service.schema, service.name, gallery=service.gallery is not None))
    routes = [Route(path, _called(endpoint, path), methods=[method]) for method, path, endpoint in endpoints.table()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
    return Guard(app, service.limits, service.metrics, hosts)


def _called(endpoint: Endpoint, path: str) -> Any:
    """An endpoint as the framework calls it."""
    from starlette.responses import Response

    async def call(request: Any) -> Any:
        request.scope[ROUTE] = path
        try:
            reply = await endpoint(request)
        except Refused as refused:
            reply = refused.reply()
        except UnisonoError as error:
            reply = refusal(error).reply()
        except Exception:
            logger.exception("%s %s failed", request.method, path)
            reply = Refused(500, "the server failed; its log says more").reply()
        return Response(reply.body, reply.status, dict(reply.headers), reply.type)

    return call


async def _refused(request: Any, error: Any) -> Any:
    """An address or method that is not there."""
    from starlette.responses import Response

    said = {404: "there is nothing at this address; see /docs", 405: f"{request.method} is not answered here; see /docs"}
    reply = Refused(error.status_code, said.get(error.status_code, str(error.detail)), request.url.path).reply()
    return Response(reply.body, reply.status, dict(error.headers or {}), reply.type)
