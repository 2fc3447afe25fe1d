"""Frozen encoders: what they read, that they stay frozen, and that each cell is encoded once."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contracts.tokenising import blank, by_row, same
from tests.examples import ROWS, canonical, column_of, decoded
from tests.modalities.frozen_helpers import WIDTH, Colours, bert_folder, vit_folder, wave_folder
from unisono.core.errors import ConfigError, UserError
from unisono.core.schema import Column
from unisono.modalities.base import Cells
from unisono.modalities.frozen import FrozenTokeniser, Given, module_hash, shrink
from unisono.modalities.hf import HuggingFace, folder_hash

FOLDERS = {"text": bert_folder, "image": vit_folder, "audio": wave_folder}


def fitted(tokeniser: FrozenTokeniser, word: str, array: Any = None) -> tuple[Column, Cells]:
    cells = decoded(word, canonical(word) if array is None else array)
    column = column_of(word)
    return replace(column, statistics=tokeniser.fit(column, [cells])), cells


@pytest.fixture(params=["text", "image", "audio", "module"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FrozenTokeniser, Column, Cells]:
    word = "image" if request.param == "module" else request.param
    given = Given.of("image", Colours(), 3) if request.param == "module" else None
    tokeniser: FrozenTokeniser = given or HuggingFace(path=str(FOLDERS[word](tmp_path)), tokens=3)
    return (tokeniser, *fitted(tokeniser, word))


def test_a_frozen_encoder_gives_a_few_tokens_of_every_cell(case: tuple[FrozenTokeniser, Column, Cells]) -> None:
    tokeniser, column, cells = case
    packed = tokeniser.pack([column], {column.name: cells}, None)
    module = tokeniser.module([column], 8)
    assert module(packed).shape == (len(packed), 8)
    counts = np.bincount(packed.sample.numpy(), minlength=ROWS)
    assert counts.min() >= 1
    assert counts.max() <= tokeniser.tokens + 1
    assert packed.inputs["features"].shape[1] == WIDTH


def test_rows_alone_missing_cells_and_order_agree(case: tuple[FrozenTokeniser, Column, Cells]) -> None:
    tokeniser, column, cells = case
    again = pickle.loads(pickle.dumps(tokeniser))
    module = tokeniser.module([column], 8).eval()
    whole = tokeniser.pack([column], {column.name: cells}, None)
    values = module(whole)
    for row in (0, 5, ROWS - 1):
        alone = again.pack([column], {column.name: [cells[row]]}, None)
        for a, b in zip(by_row(alone, module(alone), 0), by_row(whole, values, row), strict=True):
            torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-5, atol=1e-5)
    part = tokeniser.pack([column], {column.name: blank(cells, [0, 4])}, None)
    assert not {0, 4} & set(part.sample.tolist())
    nothing = tokeniser.pack([column], {column.name: [None] * ROWS}, None)
    assert module(nothing).shape == (0, 8)


def test_the_encoder_is_no_part_of_the_weights(case: tuple[FrozenTokeniser, Column, Cells]) -> None:
    tokeniser, column, _ = case
    module = tokeniser.module([column], 8)
    assert {n for n, _ in module.named_parameters()} == {"norm.weight", "norm.bias", "linear.weight", "linear.bias"}
    assert set(module.state_dict()) == {n for n, _ in module.named_parameters()}


def test_each_cell_is_encoded_once(case: tuple[FrozenTokeniser, Column, Cells], monkeypatch: pytest.MonkeyPatch) -> None:
    tokeniser, column, cells = case
    asked: list[int] = []
    encode = tokeniser.encode
    monkeypatch.setattr(tokeniser, "encode", lambda c, items: asked.append(len(items)) or encode(c, items))
    tokeniser._kept.clear()
    first = tokeniser.pack([column], {column.name: cells}, None)
    assert sum(asked) == len({repr(c) if not hasattr(c, "values") else c.values.tobytes() for c in cells})
    assert same(tokeniser.pack([column], {column.name: cells}, None), first)
    assert len(asked) == 1


def test_a_given_module_is_copied_and_left_as_it_is() -> None:
    module = Colours().train()
    before = copy.deepcopy(module.state_dict())
    tokeniser = Given.of("image", module)
    column, cells = fitted(tokeniser, "image")
    first = tokeniser.pack([column], {"image": cells}, None)
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert same(dict(module.state_dict()), dict(before))
    with torch.no_grad():
        module.linear.weight.zero_()
    tokeniser._kept.clear()
    assert same(tokeniser.pack([column], {"image": cells}, None), first)


def test_what_a_given_module_sees() -> None:
    shapes: dict[str, tuple[int, ...]] = {}

    class Probe(nn.Module):
        def forward(self, x: Any) -> Tensor:
            shapes[self.word] = tuple(x.shape) if isinstance(x, Tensor) else (len(x),)  # type: ignore[index]
            return torch.ones(len(x), 2)

    for word in sorted(Given.reads):
        probe = Probe()
        probe.word = word  # type: ignore[assignment]
        tokeniser = Given.of(word, probe)
        column, cells = fitted(tokeniser, word)
        packed = tokeniser.pack([column], {word: cells}, None)
        assert packed.inputs["features"].shape == (ROWS, 2)
    assert len(shapes["image"]) == 4
    assert shapes["image"][1] == 3
    assert len(shapes["video"]) == 5
    assert shapes["video"][2] == 3
    assert [len(shapes[w]) for w in ("audio", "series", "points", "cube", "vector", "text")] == [2, 3, 3, 4, 2, 1]


def test_a_recorded_module_has_to_be_given() -> None:
    with pytest.raises(ConfigError, match="has to be given"):
        fitted(Given(name="image", sha256="0"), "image")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x.new_zeros(len(x)), "has to answer"),
        (lambda x: x.new_zeros(2, 3), "has to answer"),
        (lambda x: x.new_full((len(x), 3), torch.nan), "not finite"),
        (lambda x: "no tensor", "has to answer"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_module_that_answers_nonsense_is_refused(answer: Any, message: str) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return answer(x)

    with pytest.raises(UserError, match=message):
        fitted(Given.of("image", Odd()), "image")


def test_folders_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        fitted(HuggingFace(path=str(tmp_path / "empty")), "image")
    folder = vit_folder(tmp_path / "vit")
    with pytest.raises(UserError, match="cannot"):
        fitted(HuggingFace(path=str(folder)), "text")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="no weights in safetensors"):
        fitted(HuggingFace(path=str(folder)), "image")


def test_hashes_tell_content_apart(tmp_path: Path) -> None:
    assert module_hash(Colours(0)) == module_hash(Colours(0)) != module_hash(Colours(1))
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "b" / "code.py").write_text("never read")
    assert folder_hash(tmp_path / "a") == folder_hash(tmp_path / "b") != folder_hash(tmp_path / "c")


@pytest.mark.parametrize(("states", "tokens", "expected"), [(1, 4, 1), (3, 4, 4), (4, 4, 5), (9, 4, 5), (2, 1, 2)])
def test_states_are_averaged_down(states: int, tokens: int, expected: int) -> None:
    values = np.random.default_rng(0).normal(size=(states, 3)).astype(np.float32)
    small = shrink(values, tokens)
    assert small.shape == (expected, 3)
    np.testing.assert_allclose(small[-1], values.mean(0), atol=1e-6)
    if states <= tokens:
        np.testing.assert_array_equal(small[:states], values)
