"""The model folder: what is saved comes back, and what is damaged is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unisono
from tests.model.tables import fit, fitted, weather
from unisono.core.errors import ModelFolderError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "folder"
    fitted().save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_saving_and_loading_gives_the_same_answers(saved: Path) -> None:
    loaded, table = unisono.load(saved), weather(50, seed=8)
    assert loaded.predict(table).equals(fitted().predict(table))
    assert loaded.embed(table).equals(fitted().embed(table))
    assert loaded.evaluate(table) == fitted().evaluate(table)
    assert loaded.metrics == json.loads(json.dumps(fitted().metrics))
    for name, tensor in fitted().network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert loaded.schema.sources == fitted().schema.sources


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    unisono.load(saved).save(tmp_path / "again")
    for name in ("model.safetensors", "recipe.yaml", "schema.json", "metrics.json"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_fit_writes_the_files_of_the_design(tmp_path: Path) -> None:
    fit(out=tmp_path / "m", settings=("train.steps=4",))
    names = {p.name for p in (tmp_path / "m").iterdir()}
    assert {"model.safetensors", "recipe.yaml", "schema.json", "metrics.json", "report.html"} <= names
    assert not {"checkpoint", "cache"} & names
    assert not [p for p in (tmp_path / "m").rglob("*") if p.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]
    content = json.loads((tmp_path / "m" / "schema.json").read_text())
    assert content["format"] == 1
    assert set(content["files"]) >= {"model.safetensors", "recipe.yaml"}
    assert all(len(h) == 64 for h in content["files"].values())


def test_the_recorded_recipe_fits_again(saved: Path) -> None:
    content = yaml.safe_load((saved / "recipe.yaml").read_text())
    assert content["train"]["steps"] == 60
    assert content["width"] == 16


def _schema(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / "schema.json").read_text())
        change(content)
        (folder / "schema.json").write_text(json.dumps(content))

    return apply


def _cut(name: str, keep: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return apply


def _flip(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(bytes(data))

    return apply


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    **{
        f"{name} is cut to {keep}": (_cut(name, keep), name)
        for name in ("model.safetensors", "recipe.yaml", "schema.json")
        for keep in (0, 0.5)
    },
    "metrics.json is cut": (_cut("metrics.json", 0.5), "metrics.json"),
    **{f"a bit of {name} is changed": (_flip(name), name) for name in ("model.safetensors", "recipe.yaml")},
    **{f"{name} is gone": (_gone(name), name) for name in ("model.safetensors", "recipe.yaml", "schema.json")},
    "a newer format": (_schema(lambda c: c.update(format=99)), "newer version"),
    "no format": (_schema(lambda c: c.pop("format")), "format"),
    "a format of text": (_schema(lambda c: c.update(format="1")), "format"),
    "a format of zero": (_schema(lambda c: c.update(format=0)), "format"),
    "no columns": (_schema(lambda c: c.pop("columns")), "columns"),
    "columns of text": (_schema(lambda c: c.update(columns="x")), "malformed"),
    "no targets": (_schema(lambda c: c.pop("targets")), "targets"),
    "no hashes": (_schema(lambda c: c.pop("files")), "files"),
    "an unknown modality": (_schema(lambda c: c["columns"][0].update(modality="smell")), "malformed"),
    "a column too many": (_schema(lambda c: c["columns"].append(dict(c["columns"][0], index=4))), "does not fit|do not make"),
    "a column too few": (_schema(lambda c: c["columns"].pop()), "does not fit|do not make"),
    "a wrong index": (_schema(lambda c: c["columns"][0].update(index=3)), "malformed"),
    "an unknown key of a column": (_schema(lambda c: c["columns"][0].update(smell=1)), "smell"),
    "an unknown task": (_schema(lambda c: c["targets"][0].update(task="guess")), "guess"),
    "no statistics": (_schema(lambda c: c["columns"][0].update(statistics={})), "does not fit|do not make a model|malformed"),
    "no classes": (_schema(lambda c: c["targets"][0].update(statistics={})), "do not make a model|malformed"),
    "statistics of text": (_schema(lambda c: c["columns"][1].update(statistics="x")), "do not make a model|malformed"),
    "left_out is text": (_schema(lambda c: c.update(left_out="x")), "malformed"),
    "a list for a schema": (_write("schema.json", "[]"), "JSON object"),
    "deeply nested JSON": (_write("schema.json", "[" * 100_000), "not valid JSON"),
    "NaN among the weights": (lambda folder: _poison(folder), "not finite"),
    "weights of another model": (lambda folder: _reweigh(folder), "does not fit"),
    "a recipe of other weights": (lambda folder: _rehash(folder, "width: 16", "width: 32"), "does not fit|do not make"),
    "a recipe of an unknown word": (lambda folder: _rehash(folder, "scope: sample", "scope: smaple"), "smaple"),
    "a recipe with an unknown key": (lambda folder: _rehash(folder, "width: 16", "widht: 16"), "not a resolved recipe"),
    "a recipe without tokens": (lambda folder: _rehash(folder, "tokens:", "tasks:"), "tokens|resolved"),
}


def _record(folder: Path) -> None:
    from unisono.core.files import sha256

    _schema(lambda c: c.update(files={n: sha256(folder / n) for n in c["files"]}))(folder)


def _poison(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(state) if state[n].is_floating_point())
    state[name] = torch.full_like(state[name], torch.nan)
    save_file(state, folder / "model.safetensors")
    _record(folder)


def _reweigh(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(3)}, folder / "model.safetensors")
    _record(folder)


def _rehash(folder: Path, old: str, new: str) -> None:
    text = (folder / "recipe.yaml").read_text()
    assert old in text
    (folder / "recipe.yaml").write_text(text.replace(old, new))
    _record(folder)


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_a_damaged_folder_is_refused_with_the_reason(what: str, folder: Path) -> None:
    damage, reason = DAMAGE[what]
    damage(folder)
    with pytest.raises(ModelFolderError, match=reason) as refusal:
        unisono.load(folder)
    assert refusal.value.exit_code == 2
    assert str(folder) in str(refusal.value)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no such model folder"):
        unisono.load(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFolderError, match="no such model folder"):
        unisono.load(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFolderError, match=r"schema\.json is missing"):
        unisono.load(tmp_path / "empty")
