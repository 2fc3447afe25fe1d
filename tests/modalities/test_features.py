"""Features on disk: found again, bounded, whole after a crash, and never believed when they are another encoder's."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.examples import column_of
from tests.modalities.frozen_helpers import Colours, bert_folder, vit_folder, wave_folder
from unisono.core.errors import UserError
from unisono.modalities.features import FeatureCache, default_folder
from unisono.modalities.frozen import FrozenTokeniser, Given
from unisono.modalities.hf import HuggingFace
from unisono.modalities.signal import Signal


def states(seed: int = 0, k: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(k, 5)).astype(np.float32)


def test_what_was_written_is_read_back_to_the_bit_and_by_others(tmp_path: Path) -> None:
    first, second = FeatureCache(tmp_path / "c"), FeatureCache(tmp_path / "c")
    made = {bytes([k]): states(k, 1 + k % 3) for k in range(20)}
    first.write(made)
    found = second.read([*made, b"other"])
    assert set(found) == set(made)
    assert all(np.array_equal(found[k], made[k]) for k in made)
    second.write({b"\x00": states(99)})
    np.testing.assert_array_equal(first.read([b"\x00"])[b"\x00"], made[b"\x00"])
    assert first.count() == 20
    first.remove()
    assert not (tmp_path / "c").exists()


def test_the_oldest_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_bytes=1 << 20)
    for k in range(40):
        cache.write({f"{k}-{j}".encode(): states(k, 50) for j in range(50)})
    assert cache.size() <= 1 << 20
    assert 0 < cache.count() < 2000
    assert not cache.read([b"0-0"])
    assert cache.read([b"39-49"])
    assert sum(f.stat().st_size for f in tmp_path.glob("features.db")) < 3 << 20


def test_a_killed_process_leaves_what_it_had_finished(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from unisono.modalities.features import FeatureCache\n"
        "cache = FeatureCache(Path(sys.argv[1]))\n"
        "for k in range(10**6):\n"
        "    cache.write({f'{k}-{j}'.encode(): np.full((4, 64), k, np.float32) for j in range(8)})\n"
        "    print(k, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(30)][-1]
        os.kill(process.pid, signal.SIGKILL)
    cache = FeatureCache(tmp_path)
    found = cache.read([f"{k}-{j}".encode() for k in range(done + 1) for j in range(8)])
    assert len(found) == 8 * (done + 1)
    assert all((v == int(k.split(b"-")[0])).all() for k, v in found.items())
    assert cache.count() % 8 == 0


def test_damage_is_noticed_and_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FeatureCache(tmp_path)
    cache.write({b"a": states(1), b"b": states(2)})
    with sqlite3.connect(tmp_path / "features.db") as base:
        base.execute("UPDATE features SET data = zeroblob(60) WHERE key = ?", (b"a",))
    base.close()
    assert set(cache.read([b"a", b"b"])) == {b"b"}
    cache.remove()
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "features.db").write_bytes(b"no database at all" * 100)
    again = FeatureCache(tmp_path)
    again.write({b"a": states(1)})
    assert again.read([b"a"])
    assert "begun anew" in caplog.text


def test_a_folder_that_cannot_be_used_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file, not a folder"):
        FeatureCache(tmp_path / "file")
    with pytest.raises(UserError, match="keeps nothing"):
        FeatureCache(tmp_path / "c", 0)
    cache = FeatureCache(tmp_path / "file" / "below")
    cache.write({b"a": states()})
    cache.write({b"a": states()})
    assert cache.read([b"a"]) == {}
    assert not cache.usable
    assert caplog.text.count("cannot be used") == 1


def test_threads_share_one_cache(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: cache.write({f"{k}".encode(): states(k)}), range(40)))
        found = list(pool.map(lambda k: cache.read([f"{k}".encode()]), range(40)))
    assert all(len(f) == 1 for f in found)


def test_a_forked_process_reads_and_writes_beside_its_parent(tmp_path: Path) -> None:
    import multiprocessing

    cache = FeatureCache(tmp_path)
    cache.write({b"parent": states(1)})
    child = multiprocessing.get_context("fork").Process(target=lambda: cache.write({b"child": cache.read([b"parent"])[b"parent"] + 1}))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    cache.write({b"later": states(2)})
    found = cache.read([b"parent", b"child", b"later"])
    np.testing.assert_array_equal(found[b"child"], found[b"parent"] + 1)
    assert len(found) == 3


def test_the_folder_is_the_users_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_folder() is None
    monkeypatch.setenv("UNISONO_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "features"
    monkeypatch.delenv("UNISONO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "unisono" / "features"


# -- with encoders -----------------------------------------------------------------------------------------------------------------


def cells(word: str) -> list[Any]:
    """Cells of several lengths and sizes, some equal."""
    rng = np.random.default_rng(0)
    if word == "text":
        words = ["a", "the", "cat", "dog", "red", "runs", "and"]
        return [" ".join(rng.choice(words, n)) for n in rng.integers(1, 12, 40)]
    if word == "image":
        return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in [(16, 16), (20, 12)] * 10]
    return [Signal(rng.normal(size=n).astype(np.float32), 8000.0) for n in [800, 800, 1200, 960] * 4]


FOLDERS = {"text": bert_folder, "image": vit_folder, "audio": wave_folder}


@pytest.mark.parametrize("word", sorted(FOLDERS))
def test_cells_encoded_together_are_those_encoded_one_by_one(word: str, tmp_path: Path) -> None:
    tokeniser = HuggingFace(path=str(FOLDERS[word](tmp_path)))
    alone, together = (f(column_of(word), cells(word)) for f in (tokeniser.encode, tokeniser.encode_together))
    assert len(alone) == len(cells(word))
    for a, b in zip(alone, together, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def counted(tokeniser: FrozenTokeniser, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each run of the encoder is given."""
    asked: list[int] = []
    name = "_encode" if isinstance(tokeniser, HuggingFace) else "encode"
    encode = getattr(tokeniser, name)
    monkeypatch.setattr(tokeniser, name, lambda c, items, **how: asked.append(len(items)) or encode(c, items, **how))
    return asked


@pytest.mark.parametrize("word", ["text", "module"])
def test_another_run_finds_the_same_bits_and_encodes_one_cell_to_be_sure(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column, items = column_of("image" if word == "module" else word), cells("image" if word == "module" else word)
    folder = bert_folder(tmp_path / "m")

    def made() -> FrozenTokeniser:
        tokeniser = Given.of("image", Colours()) if word == "module" else HuggingFace(path=str(folder))
        tokeniser.keep(FeatureCache(tmp_path / "c"))
        return tokeniser

    first = made().states(column, items)
    again = made()
    asked = counted(again, monkeypatch)
    found = again.states(column, items)
    assert asked[0] == 1
    assert sum(asked) <= 2
    assert all(np.array_equal(a, b) for a, b in zip(first, found, strict=True))
    with_other_tokens = HuggingFace(path=str(folder), tokens=1) if word == "text" else Given.of("image", Colours(1))
    with_other_tokens.keep(FeatureCache(tmp_path / "c"))
    asked = counted(with_other_tokens, monkeypatch)
    with_other_tokens.states(column, items)
    assert sum(asked) == len({i if isinstance(i, str) else i.tobytes() for i in items})


class Scaled(nn.Module):
    """Its answer depends on a number outside it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(1, 2) * OUTSIDE[0]


OUTSIDE = [1.0]


def test_a_module_that_changed_behind_its_name_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> float:
        tokeniser = Given.of("image", Scaled())
        tokeniser.keep(FeatureCache(tmp_path))
        return float(tokeniser.states(column_of("image"), cells("image"))[3][0, 0])

    OUTSIDE[0] = 1.0
    assert said() == 1.0
    OUTSIDE[0] = 2.0
    try:
        assert said() == 2.0
        assert "says other things" in caplog.text
    finally:
        OUTSIDE[0] = 1.0


def test_code_and_settings_of_a_module_tell_it_apart() -> None:
    class Plain(nn.Module):
        def __init__(self, factor: Any) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * self.factor

    class Other(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] + self.factor

    names = [Given.of("image", m).identity() for m in (Plain(1.0), Plain(1.0), Plain(2.0), Other(1.0))]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert None not in names
    captured = 3.0

    class Closed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * captured

    assert Given.of("image", Closed()).identity() is None
    assert Given.of("image", Plain(object())).identity() is None
