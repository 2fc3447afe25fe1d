from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from tests.serve import standin
from tests.serve.running import Running, running
from unisono.core.errors import UserError
from unisono.serve import server
from unisono.serve.service import Limits


class Slow(standin.Embedder):
    """Takes a while for a query, and says when it has begun."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.begun = seconds, threading.Event()

    def embeddings(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        if "price" not in table.column_names or table.column("price").null_count == table.num_rows:
            self.begun.set()
            time.sleep(self.seconds)
        yield from super().embeddings(table)


@pytest.fixture(scope="module")
def quick() -> Iterator[Running]:
    """A server with a short patience."""
    with running(standin.service(limits=Limits(seconds=0.5, upload=1_000_000))) as served:
        yield served


def talk(port: int, *parts: bytes, wait: float = 0.0) -> bytes:
    """Send raw bytes, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(wait)
        found = b""
        while data := connection.recv(65536):
            found += data
        return found


HEAD = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_gigabyte_is_refused_without_being_read(quick: Running) -> None:
    begin = time.perf_counter()
    said = talk(quick.port, HEAD + b"Content-Length: 1073741824\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413")
    assert b"1,000,000 bytes" in said
    assert time.perf_counter() - begin < 2


def test_a_client_that_stops_in_the_middle_is_cut_off(quick: Running) -> None:
    said = talk(quick.port, HEAD + b'Content-Length: 100\r\n\r\n{"text": ')
    assert said.startswith(b"HTTP/1.1 408")
    assert quick.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize("part", [b"", b"GET /health HTT"])
def test_a_connection_that_says_nothing_is_closed(quick: Running, part: bytes) -> None:
    begin = time.perf_counter()
    talk(quick.port, part)
    assert 0.3 < time.perf_counter() - begin < 5


def test_what_is_no_http_is_refused(quick: Running) -> None:
    assert talk(quick.port, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    with running(standin.service(limits=Limits(seconds=0.3), embedder=Slow(0.8))) as served:
        status, said = served.ask("POST", "/search", {"text": "red"})
        assert status == 503
        assert "longer than 0.3 s" in said["error"]["message"]


def test_requests_at_the_same_time_share_batches_and_agree_with_single_ones() -> None:
    slow = Slow(0.05)
    with running(standin.service(limits=Limits(batch=8), embedder=slow)) as served:
        words = [list(standin.COLOURS)[k % 5] for k in range(24)]

        def ask(word: str) -> Any:
            return served.ask("POST", "/search", {"text": word, "k": 3})[1]["hits"]

        alone = {word: ask(word) for word in standin.COLOURS}
        slow.batches.clear()
        with ThreadPoolExecutor(24) as threads:
            together = list(threads.map(ask, words))
        assert together == [alone[word] for word in words]
        assert sum(slow.batches) == 24
        assert max(slow.batches) <= 8
        assert len(slow.batches) <= 8


def test_stopping_finishes_what_was_begun() -> None:
    slow = Slow(0.5)
    served = Running(standin.service(embedder=slow))
    slow.begun.clear()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(served.ask, "POST", "/search", {"text": "red"})
        assert slow.begun.wait(10)
        served.stop()
        assert answer.result(10)[0] == 200
    with pytest.raises(OSError, match="refused"):
        served.ask("GET", "/health")


def test_ports_that_cannot_be_had() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="in use"):
            server.open_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="0 to 65535"):
        server.open_port("127.0.0.1", 70000)
    with pytest.raises(UserError, match="no address"):
        server.open_port("not a host", 8000)


def test_hosts() -> None:
    assert server.is_loopback("127.0.0.1")
    assert server.is_loopback("::1")
    assert not server.is_loopback("0.0.0.0")
    assert server.hosts_of("0.0.0.0") is None
    assert "localhost" in (server.hosts_of("127.0.0.1") or ())
