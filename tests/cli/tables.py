"""Small tables in files, and commands run in this process."""

from __future__ import annotations

import csv
import io
import json
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unisono.cli.main import main

#: A fit of a fraction of a second.
QUICK = ("--set", "width=16", "--set", "defaults.mixer=attention(heads=2)", "--set", "train.steps=3", "--set", "train.batch=32", "--quiet")
WORDS = ("a calm bright morning over the hills", "a wild dark evening near the sea")


def weather(n: int = 60) -> dict[str, list[Any]]:
    """Columns of a table whose kind its numbers and notes tell."""
    rng = np.random.default_rng(5)
    kind = [k % 2 for k in range(n)]
    return {
        "heat": [f"{rng.normal() + 3 * k:.3f}" for k in kind],
        "colour": [("red", "green", "blue")[j % 3] for j in range(n)],
        "note": [f"{WORDS[k]} with {'abcdefghij'[rng.integers(10)]} and {'klmnopqrst'[rng.integers(10)]}" for k in kind],
        "kind": [("calm", "wild")[k] for k in kind],
        "split": [("train", "train", "val", "test")[j // 2 % 4] for j in range(n)],
    }


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A CSV file of these columns; None is an empty field."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def picture(seed: int = 0) -> bytes:
    """A small PNG."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (10, 10, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_wav(path: Path, pitch: float) -> Path:
    """A quarter of a second of one tone."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((8000 * np.sin(np.arange(2000) * 2 * np.pi * pitch / 8000)).astype("<i2").tobytes())
    return path


class Ran:
    """What a command did."""

    def __init__(self, *, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


Run = Callable[..., Ran]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs one command here."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        code = main([str(w) for w in words])
        said = capsys.readouterr()
        return Ran(code=code, out=said.out, err=said.err)

    return run
