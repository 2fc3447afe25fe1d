"""Around every request: who may ask, how much and how long may be sent, and which headers go with every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from unisono.serve.metrics import Metrics
from unisono.serve.replies import Refused
from unisono.serve.service import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: Where a request's scope says which route it took.
ROUTE = "unisono.route"
#: A page from here loads nothing from elsewhere, runs no text, and stands in no other page.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses what must not come in, before it is read."""

    def __init__(self, app: App, limits: Limits, metrics: Metrics, hosts: Collection[str] | None) -> None:
        """Wrap an application.

        Args:
            app: the application.
            limits: what is allowed.
            metrics: what is told of every request.
            hosts: names that the server is called by, so that no other page can reach it through a name of its own; None for any.
        """
        self.app, self.limits, self.metrics, self.hosts = app, limits, metrics, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {k.lower() for k, _ in message["headers"]}
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items() if k.lower().encode() not in given]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._bounded(receive), sending)
        except Refused as refused:
            await answer(refused, sending)
        finally:
            self.metrics.request(scope.get(ROUTE, "other"), status, time.perf_counter() - begin)

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self.hosts is not None and name not in self.hosts:
            raise Refused(403, f"this server is not called {name!r}", "host")
        origin = headers.get("origin")
        if scope["method"] not in {"GET", "HEAD"} and origin is not None and urlsplit(origin).netloc != host:
            raise Refused(403, "a page from elsewhere asked", "origin")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.limits.upload:
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(
            413, f"a request may have at most {self.limits.upload:,} bytes (--max-upload)", "body", headers={"Connection": "close"}
        )

    def _bounded(self, receive: Receive) -> Receive:
        """A body that ends with a refusal when it becomes too large or does not come in time."""
        taken, deadline, whole = 0, asyncio.get_running_loop().time() + self.limits.seconds, False

        async def receiving() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()  # only the news that the client has gone can follow
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                seconds = f"{self.limits.seconds:g}"
                raise Refused(408, f"the request did not arrive within {seconds} s", "body", headers={"Connection": "close"}) from None
            taken += len(message.get("body", b""))
            if taken > self.limits.upload:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return receiving


async def answer(refused: Refused, send: Send) -> None:
    """Send a refusal."""
    reply = refused.reply()
    headers = {"content-type": reply.type, "content-length": str(len(reply.body)), **reply.headers}
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()]}
    )
    await send({"type": "http.response.body", "body": reply.body})
