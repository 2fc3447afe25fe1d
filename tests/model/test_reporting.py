from __future__ import annotations

import io
import json
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.report.examples import EVIL, Page
from unisono.model.evaluate import Evaluator
from unisono.model.fit import fit_table
from unisono.model.options import FitOptions
from unisono.model.scoring import Scored


def _png(rng: np.random.Generator, bright: bool) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((rng.integers(0, 60, (8, 8)) + 120 * bright).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _wav(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(rng.integers(-9000, 9000, 800).astype("<i2").tobytes())
    return stream.getvalue()


def _table(n: int = 160) -> pa.Table:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    return pa.table(
        {
            "name": [f"SECRET{k} {EVIL}" for k in range(n)],
            "photo": [None if k % 9 == 0 else _png(rng, bool(k == 1)) for k in kind],
            "sound": [_wav(rng) for _ in kind],
            "size": [float(x) if x < 2 else None for x in rng.normal(size=n)],
            "colour": [f"SECRETcolour{k}" for k in rng.integers(0, 4, n)],
            "kind": [f"kind {k}" if k else EVIL for k in kind],
            "price": rng.normal(size=n),
        }
    )


def _report(folder: Path, **options: object) -> str:
    given = {"targets": {"kind": None, "price": None}, "key": "name", "out": folder, "settings": ("train.steps=8",), "progress": False}
    fit_table(_table(), FitOptions(**{**given, **options}))  # type: ignore[arg-type]
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _report(tmp_path_factory.mktemp("model"))


def test_a_fit_leaves_a_report(page: str) -> None:
    found = Page(page)
    for words in (
        "What each source is worth",
        "The worst mistakes",
        "Which classes are confused",
        "How far off",
        "Shapley",
        "train.steps=8",
        "test rows",
    ):
        assert words in found.text, words
    tags = [tag for tag, _ in found.tags]
    assert "script" not in tags and tags.count("audio") > 4 and tags.count("img") > 4
    assert all((a.get("src") or "").startswith("data:") for t, a in found.tags if t in {"img", "audio"})
    assert "not shown (" not in found.text and len(page) < 3_000_000


def test_every_row_is_scored_once_for_calibration_metrics_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    real = Evaluator.scored

    def scored(self: Evaluator, rows: NDArray[np.int64], only: Sequence[str] | None = None) -> Scored:
        asked.append((tuple(rows.tolist()), None if only is None else tuple(only)))
        return real(self, rows, only)

    monkeypatch.setattr(Evaluator, "scored", scored)
    _report(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert len(set(asked)) == len(asked) == 2 + len(metrics["missing"])
    assert {len(rows) for rows, only in asked if only is None} == {metrics["rows"]["val"], metrics["rows"]["test"]}


def test_rows_can_be_left_out(tmp_path: Path) -> None:
    found = _report(tmp_path, examples=False)
    tags = [tag for tag, _ in Page(found).tags]
    assert "SECRET" not in found and "img" not in tags and "audio" not in tags
    assert "What each source is worth" in found
