"""``unisono serve`` from the command line."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tables import Run
from unisono.cli.serve import size
from unisono.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_model_is_served_until_it_is_told_to_stop(model: Path) -> None:
    command = [sys.executable, "-m", "unisono", "serve", str(model), "--port", "0", "--json", "--timeout", "20s"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            told = json.loads(server.stdout.readline())
            connection = http.client.HTTPConnection("127.0.0.1", int(told["address"].rsplit(":", 1)[1]), timeout=20)
            row = {"heat": "2.5", "colour": "red", "note": "a wild dark evening near the sea"}
            connection.request("POST", "/predict", json.dumps({"rows": [row, {}]}), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["predictions"]
            assert [set(p["kind"]) for p in answer] == [{"value", "probability", "probabilities"}] * 2
            assert sum(answer[0]["kind"]["probabilities"].values()) == pytest.approx(1.0)
            connection.request("GET", "/")
            assert b"/page/main.js" in connection.getresponse().read()
        finally:
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=30)
    assert server.returncode == 0, said
    assert "stopped" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no such folder"),
        (["MODEL", "--queue", "0"], "--queue 0: at least 1"),
        (["MODEL", "--max-upload", "much"], "--max-upload much: no size"),
        (["MODEL", "--timeout", "soon"], "no duration"),
        (["MODEL", "--model", "MODEL"], "is no index"),
        (["MODEL", "--port", "99999"], "0 to 65535"),
        (["TESTS"], "schema.json is missing"),
    ],
)
def test_mistakes_are_said(words: list[str], said: str, model: Path, run: Run, tmp_path: Path) -> None:
    given = [str(model) if w == "MODEL" else str(tmp_path) if w == "TESTS" else w for w in words]
    given += [] if "--port" in given else ["--port", "0"]
    ran = run("serve", *given)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_port_in_use_is_said(model: Path, run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = run("serve", str(model), "--port", str(taken.getsockname()[1]))
    assert ran.code == 2
    assert "is in use" in ran.err


@pytest.mark.parametrize(("text", "expected"), [("20MB", 20_000_000), ("1.5 kb", 1500), ("7", 7), ("2g", 2_000_000_000), ("3k", 3000)])
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-3MB", "5 TB", "MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="no size"):
        size(text)
