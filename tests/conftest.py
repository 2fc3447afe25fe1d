"""What holds for every test: no network beyond this machine, one thread, the same random numbers every time."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ipaddress
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("steady")

SEED = 20_2511


class NetworkUseError(RuntimeError):
    """A test reached for another machine."""


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # AF_UNIX and its kin
    host = str(address[0])
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(address: Any) -> None:
        if not _is_local(address):
            raise NetworkUseError(f"a test tried to reach {address!r}; tests use this machine only")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        refuse(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        refuse(address)
        return connect_ex(self, address)

    def guarded_lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name != socket.gethostname():
            refuse((name, port))
        return lookup(host, port, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _guard(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    """The same seeds for every test; libraries that the test has not imported are left unimported."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.manual_seed(SEED)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    from unisono.core.errors import UserError
    from unisono.data.folder import data_folder as find

    try:
        return find()
    except UserError:
        pytest.skip("no data folder: set UNISONO_DATA")
