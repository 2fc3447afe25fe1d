"""What every test stands on: no network, one thread, patience with a busy machine, data only where they are."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# read when torch, numpy and the like are first imported, which happens after this file; a test that needs none of them imports none of them
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

# a deadline measures the neighbours on the machine, not the code
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


class NetworkUsed(BaseException):
    """A test tried to reach another machine. Not an Exception, so that nothing which forgives errors forgives this one."""


def _stays_here(family: int, address: Any) -> bool:
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return True
    host = str(address[0])
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == socket.gethostname()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections end on this machine."""
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, original: Any = original) -> Any:
            if not _stays_here(self.family, address):
                raise NetworkUsed(f"a test tried to connect to {address!r}")
            return original(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept in the user's cache, and nothing of one test is found by another."""
    monkeypatch.setenv("UNISONO_CACHE", "off")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Torch stays at one thread whatever an earlier test has set."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of public data sets; a test that asks for it is skipped where there is none."""
    from unisono.core.errors import TableError
    from unisono.data import data_folder as find

    try:
        return find()
    except TableError:
        pytest.skip("no data folder: set UNISONO_DATA")
