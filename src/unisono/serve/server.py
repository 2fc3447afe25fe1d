"""The server: a port of this machine, an end to clients that say nothing, and a graceful stop."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from unisono.core.errors import DependencyError, UserError

_STOP = (signal.SIGINT, signal.SIGTERM)


def open_port(host: str, port: int) -> socket.socket:
    """Take a port.

    Args:
        host: an address of this machine.
        port: its number; 0 for any that is free.

    Raises:
        UserError: it is in use, may not be used, or is no port of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"a port is a number from 0 to 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"{host!r} is no address of this machine: {error.strerror or error}") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"the port {port} is in use; choose another with --port, or --port 0 for any that is free") from None
        raise UserError(f"{host} port {port} cannot be used: {error.strerror}") from None
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(listening: socket.socket) -> str:
    """The address of a port for a browser."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def hosts_of(host: str) -> frozenset[str] | None:
    """Names by which a server at an address may be called; None for any, where it stands open to other machines."""
    return frozenset({"localhost", "127.0.0.1", "::1", host}) if is_loopback(host) else None


def made(app: Any, *, seconds: float, ready: Callable[[], None] | None = None) -> Any:
    """A server, whose ``run(sockets=[...])`` ends at a signal, or when ``should_exit`` is set, after the requests that were begun.

    Args:
        app: the application.
        seconds: how long a client may take to say what it wants, and requests to finish at the end.
        ready: is called when requests are answered.

    Raises:
        DependencyError: the server library is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise DependencyError("uvicorn", "serve", "serving") from None

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Stop at the first signal and end well, instead of dying by it afterwards."""
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {sig: signal.signal(sig, self.handle_exit) for sig in _STOP}
            try:
                yield
            finally:
                for sig, handler in before.items():
                    signal.signal(sig, handler)

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if ready is not None:
                ready()

    config = uvicorn.Config(
        app, http=_protocol(seconds), ws="none", lifespan="off", log_config=None, log_level="warning", access_log=False,
        server_header=False, timeout_keep_alive=max(1, int(min(seconds, 15))), timeout_graceful_shutdown=max(1, int(seconds)),
    )  # fmt: skip
    return Server(config)


def _protocol(seconds: float) -> Any:
    """HTTP that closes a connection on which no request begins in time; by the faster of the parsers that are installed."""
    protocol: Any
    try:
        from uvicorn.protocols.http import httptools_impl

        protocol = httptools_impl.HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http import h11_impl

        protocol = h11_impl.H11Protocol

    class Patient(protocol):
        _until: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._until = self.loop.call_later(seconds, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._until is not None:
                self._until.cancel()
            super().connection_lost(exc)

    return Patient
