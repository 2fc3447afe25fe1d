"""Deploying: the same answers, in memory and from a folder; columns left out; what it says it did."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import unisono
from tests.model.tables import fit, fitted, weather
from unisono.compress.fold import FOLDS
from unisono.compress.pack import can_pack
from unisono.core.errors import ModelFolderError, SchemaError, UserError
from unisono.model import Model
from unisono.network import LOSSLESS

COLUMNS = [c for c in weather().column_names if c in {"number", "colour", "note", "curve"}]


@cache
def deployed() -> Model:
    """With every fold there is."""
    return fitted().deploy(folds=LOSSLESS)


@cache
def by_modality() -> Model:
    return fit(settings=("defaults.sharing=modality", "train.steps=8"))


def close(a: pa.Table, b: pa.Table, tolerance: float = 2e-5) -> None:
    assert a.column_names == b.column_names
    for name in a.column_names:
        if pa.types.is_floating(a.column(name).type):
            np.testing.assert_allclose(a.column(name).to_numpy(), b.column(name).to_numpy(), rtol=0, atol=tolerance)
        else:
            assert a.column(name).equals(b.column(name))


def test_predictions_and_embeddings_are_the_same() -> None:
    table = weather(50, seed=8)
    close(deployed().predict(table), fitted().predict(table))
    for name in ("embedding", "embedding.note"):
        ours, theirs = (m.embed(table).column(name) for m in (deployed(), fitted()))
        assert ours.is_null().equals(theirs.is_null())
        np.testing.assert_allclose(ours.drop_null().to_pylist(), theirs.drop_null().to_pylist(), rtol=0, atol=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    before = {k: v.clone() for k, v in fitted().network.state_dict().items()}
    fitted().deploy(folds=LOSSLESS)
    assert fitted().network.folds == ()
    assert all(torch.equal(v, before[k]) for k, v in fitted().network.state_dict().items())


def test_what_was_done_is_recorded() -> None:
    report = deployed().metrics["deployment"]
    assert set(report["folds"]) <= set(LOSSLESS)
    assert {"affine", "rms"} <= set(report["folds"])
    assert ("pack" in report["folds"]) == can_pack()
    assert report["exact_change"] < 1e-12
    assert report["change"] < 1e-4
    assert report["weights"][1] < report["weights"][0]
    assert all(ms > 0 for ms in report["milliseconds"])
    assert deployed().network.folds == tuple(report["folds"])
    json.dumps(report, allow_nan=False)


def test_a_saved_folder_predicts_the_same(tmp_path: Path) -> None:
    table = weather(50, seed=8)
    deployed().save(tmp_path / "m")
    content = json.loads((tmp_path / "m" / "schema.json").read_text())
    assert content["format"] == 2
    assert tuple(content["folds"]) == deployed().network.folds
    loaded = unisono.load(tmp_path / "m")
    assert loaded.predict(table).equals(deployed().predict(table))
    assert loaded.metrics["deployment"] == deployed().metrics["deployment"]
    loaded.save(tmp_path / "again")
    for name in ("model.safetensors", "recipe.yaml", "schema.json", "metrics.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize("folds", [["affin"], "affine", [3], ["affine", "afine"], {"affine": 1}])
def test_folders_with_folds_that_are_none(tmp_path: Path, folds: object) -> None:
    deployed().save(tmp_path / "m")
    path = tmp_path / "m" / "schema.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "folds": folds}))
    with pytest.raises(ModelFolderError, match="folds"):
        unisono.load(tmp_path / "m")


def test_folders_whose_weights_went_through_other_folds(tmp_path: Path) -> None:
    deployed().save(tmp_path / "m")
    path = tmp_path / "m" / "schema.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "folds": ["rms"]}))
    with pytest.raises(ModelFolderError, match="does not fit"):
        unisono.load(tmp_path / "m")


def test_by_itself_it_leaves_what_costs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from unisono.model import deploy

    for times, kept in (([1.0, 2.0], False), ([2.0, 1.0], True)):
        monkeypatch.setattr(deploy, "fastest", lambda runs, repeats=1, times=times: times)
        model, report = fitted().deployment()
        assert ("rms" in report.folds) == kept
        assert any("costs more than it saves" in n.what for n in report.notes if n.fold == "rms") == (not kept)
        close(model.predict(weather(20, seed=8)), fitted().predict(weather(20, seed=8)))


def test_a_fold_that_is_not_exact_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(trunk: torch.nn.Module) -> list[object]:
        from unisono.compress.fold import Note

        next(p for p in trunk.parameters() if p.dim() > 1).mul_(1.01)
        return [Note("scale", "somewhere", True, "spoilt")]

    monkeypatch.setitem(FOLDS, "scale", wrong)
    model, report = fitted().deployment(folds=["scale", "affine"])
    assert report.folds == ("affine",)
    assert [n.done for n in report.notes if n.fold == "scale"] == [False]
    close(model.predict(weather(20, seed=8)), fitted().predict(weather(20, seed=8)))


def test_the_change_in_error_is_measured_on_a_table() -> None:
    _, report = fitted().deployment(folds=["affine"], data=weather(60, seed=9))
    before, after = report.metrics["kind"]["accuracy"]
    assert before == after
    assert before is not None
    with pytest.raises(SchemaError, match="kind"):
        fitted().deployment(folds=["affine"], data=weather(60).drop_columns(["kind"]))


@pytest.mark.parametrize("norm", ["unified", "batch"])
def test_a_norm_with_running_statistics_is_gone(norm: str, tmp_path: Path) -> None:
    model, table = fit(settings=(f"defaults.norm={norm}", "train.steps=12")), weather(50, seed=8)
    small, report = model.deployment(folds=LOSSLESS)
    assert "copies" in report.folds
    assert report.exact_change < 1e-12
    close(small.predict(table), model.predict(table))
    small.save(tmp_path / "m")
    assert unisono.load(tmp_path / "m").predict(table).equals(small.predict(table))


@pytest.mark.parametrize("model", [fitted, by_modality], ids=["shared", "modality"])
@pytest.mark.parametrize("names", [["note"], ["curve", "note"], ["number"], ["colour", "curve"]])
def test_columns_left_out_answer_as_if_they_were_missing(model: object, names: list[str], tmp_path: Path) -> None:
    whole: Model = model()  # type: ignore[operator]
    table = weather(50, seed=8)
    small, report = whole.deployment(folds=[], columns=names)
    assert set(report.left_out) == set(COLUMNS) - set(names)
    hidden = table
    for name in report.left_out:
        at = table.column_names.index(name)
        hidden = hidden.set_column(at, name, pa.nulls(len(table), table.column(name).type))
    close(small.predict(table.select(["key", *names])), whole.predict(hidden))
    assert report.weights[1] < report.weights[0]
    small.deploy(folds=LOSSLESS).save(tmp_path / "m")
    close(unisono.load(tmp_path / "m").predict(table.select(["key", *names])), whole.predict(hidden))


def test_columns_that_share_weights_stay_together() -> None:
    table = weather()
    for name in ("height", "depth"):
        table = table.append_column(name, table.column("amount"))
    _, report = fit(table, settings=("train.steps=4",)).deployment(folds=[], columns=["height"])
    assert set(report.left_out) == {"number", "colour", "note", "curve"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"folds": ["affin"]}, "affin.*did you mean 'affine'"),
        ({"columns": ["nte"]}, "nte.*did you mean 'note'"),
        ({"columns": []}, "at least one column"),
    ],
)
def test_what_is_refused(options: dict[str, list[str]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        fitted().deploy(**options)


def test_a_deployed_model_is_not_narrowed_but_may_be_deployed_again() -> None:
    with pytest.raises(UserError, match="deployed already"):
        deployed().deploy(columns=["note"])
    model, report = deployed().deployment(folds=["affine", "scale"])
    assert report.folds == ()
    assert any(n.what == "done before" for n in report.notes)
    close(model.predict(weather(20, seed=8)), deployed().predict(weather(20, seed=8)))


def test_a_recipe_that_names_a_column_cannot_do_without_it() -> None:
    model = fit(settings=("train.steps=4", "trunk=[{'on': note}, {name: mix}, {name: read, read: mean}]"))
    with pytest.raises(UserError, match="cannot do without"):
        model.deploy(columns=["curve"])


def test_fitting_a_deployed_model_again_starts_afresh() -> None:
    model = copy.copy(deployed()).set_params(options={"split": "split", "key": "key", "drop": ["amount", "tags", "flag"]})
    model.set_params(settings=("width=16", "defaults.mixer=attention(heads=2)", "train.steps=3"))
    model.fit(weather())
    assert model.network.folds == ()


def test_half_precision_has_to_be_asked_for_and_is_kept_by_the_folder(tmp_path: Path) -> None:
    model = fitted()
    assert "half" not in model.deploy().network.folds
    half, report = model.deployment(folds=["half", "pack"])
    assert half.network.folds[0] == "half" and {p.dtype for p in half.network.trunk.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.network.heads.parameters()} == {torch.float32}
    assert 0 < report.change < 0.1 and report.exact_change == 0
    half.save(tmp_path / "half")
    again = Model.load(tmp_path / "half")
    assert again.predict(weather()).equals(half.predict(weather()))
    close(again.predict(weather()), model.predict(weather()), tolerance=0.05)
    model.save(tmp_path / "whole")
    whole, small = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert whole - small >= 1.9 * sum(p.numel() for p in model.network.trunk.parameters())
