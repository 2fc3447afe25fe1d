"""A server on a free port of this machine, in a thread."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

from unisono.serve import server
from unisono.serve.app import build
from unisono.serve.service import Service


class Running:
    """A server that answers.

    Attributes:
        address: for a browser.
        port: its number.
    """

    def __init__(self, service: Service) -> None:
        self.listening = server.open_port("127.0.0.1", 0)
        self.address, self.port = server.address_of(self.listening), self.listening.getsockname()[1]
        self.service, self._ready, self._server = service, threading.Event(), None
        app = build(service, hosts=server.hosts_of("127.0.0.1"))
        self.made = server.made(app, seconds=service.limits.seconds, ready=self._ready.set)
        self.thread = threading.Thread(target=lambda: self.made.run(sockets=[self.listening]), daemon=True)
        self.thread.start()
        assert self._ready.wait(20)

    def ask(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """One request with JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body, {} if body is None else {"content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        self.made.should_exit = True
        self.thread.join(20)
        self.service.close()
        self.listening.close()


@contextlib.contextmanager
def running(service: Service) -> Iterator[Running]:
    """Serve for the time of a block."""
    served = Running(service)
    try:
        yield served
    finally:
        served.stop()
