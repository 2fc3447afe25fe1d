"""Models that read a column by a frozen encoder: fitted, saved, found again, and refused when it is absent or another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import unisono
from tests.modalities.frozen_helpers import Colours, bert_folder, vit_folder
from tests.model.tables import SMALL, pictures
from unisono.core.errors import ModelFolderError, UserError

SETTINGS = (*SMALL, "train.steps=30")


def fit(**options: object) -> unisono.Model:
    return unisono.fit(
        pictures(), "light", columns={"photo": "image", "words": "text"}, settings=SETTINGS, progress=False, **options  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_module_is_recorded_by_hash_and_given_again(tmp_path: Path) -> None:
    model = fit(encoders={"photo": Colours()}, out=tmp_path / "m")
    assert model.evaluate(pictures(), missing=False)["targets"]["light"]["accuracy"] > 0.9
    recorded = yaml.safe_load((tmp_path / "m" / "recipe.yaml").read_text())["tokens"]["photo"]
    assert recorded["type"] == "given"
    assert len(recorded["sha256"]) == 64
    again = unisono.load(tmp_path / "m", encoders={"photo": Colours()})
    assert again.predict(pictures()).equals(model.predict(pictures()))
    with pytest.raises(ModelFolderError, match="give it again"):
        unisono.load(tmp_path / "m")
    with pytest.raises(ModelFolderError, match="weights differ"):
        unisono.load(tmp_path / "m", encoders={"photo": Colours(seed=1)})
    with pytest.raises(ModelFolderError, match=r"nn\.Module"):
        unisono.load(tmp_path / "m", encoders={"photo": "somewhere"})
    with pytest.raises(ModelFolderError, match="did you mean 'photo'"):
        unisono.load(tmp_path / "m", encoders={"phto": Colours()})
    with pytest.raises(ModelFolderError, match="not by an encoder"):
        unisono.load(tmp_path / "m", encoders={"photo": Colours(), "text": Colours()})


def test_the_encoder_is_neither_trained_nor_saved_among_the_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    module = Colours()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    model = fit(encoders={"photo": module})
    model.save(tmp_path / "m")
    assert all((before[n] == t).all() for n, t in module.state_dict().items())
    shapes = {n: tuple(t.shape) for n, t in load_file(tmp_path / "m" / "model.safetensors").items() if n.startswith("tokenisers.0.")}
    assert set(shapes.values()) == {(12,), (16, 12), (16,)}


def test_folders_are_copied_into_the_model(tmp_path: Path) -> None:
    vit, bert = vit_folder(tmp_path / "vit"), bert_folder(tmp_path / "bert")
    (bert / "pytorch_model.bin").write_bytes(b"never copied")
    model = fit(encoders={"photo": vit, "words": str(bert)}, out=tmp_path / "m")
    assert model.evaluate(pictures(), missing=False)["targets"]["light"]["accuracy"] > 0.9
    copied = tmp_path / "m" / "encoders" / "words"
    assert {p.name for p in copied.iterdir()} == {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    expected = model.predict(pictures())
    shutil.rmtree(vit)
    shutil.rmtree(bert)
    moved = shutil.move(tmp_path / "m", tmp_path / "moved")
    again = unisono.load(moved)
    assert again.predict(pictures()).equals(expected)
    again.save(tmp_path / "resaved")
    assert unisono.load(tmp_path / "resaved").predict(pictures()).equals(expected)
    (Path(moved) / "encoders" / "photo" / "config.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="damaged or was changed"):
        unisono.load(moved)
    shutil.rmtree(Path(moved) / "encoders" / "photo")
    with pytest.raises(ModelFolderError, match="is not at"):
        unisono.load(moved)


def test_folders_can_be_linked(tmp_path: Path) -> None:
    bert = bert_folder(tmp_path / "bert")
    model = fit(encoders={"words": bert}, link_encoders=True, out=tmp_path / "m")
    assert not (tmp_path / "m" / "encoders").exists()
    recorded = yaml.safe_load((tmp_path / "m" / "recipe.yaml").read_text())["tokens"]["words"]
    assert recorded["path"] == str(bert.resolve())
    expected = model.predict(pictures())
    assert unisono.load(tmp_path / "m").predict(pictures()).equals(expected)
    moved = bert.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelFolderError, match="say where it is now"):
        unisono.load(tmp_path / "m")
    assert unisono.load(tmp_path / "m", encoders={"words": moved}).predict(pictures()).equals(expected)
    with pytest.raises(ModelFolderError, match="damaged or was changed"):
        unisono.load(tmp_path / "m", encoders={"words": bert_folder(tmp_path / "other", seed=4)})


def test_a_recipe_may_name_the_folder(tmp_path: Path) -> None:
    vit = vit_folder(tmp_path / "vit")
    found = unisono.fit(
        pictures(), "light", columns={"photo": "image", "words": "text"}, progress=False,
        settings=(*SETTINGS, f"tokens.photo=hf('{vit}', tokens=2)"),
    )  # fmt: skip
    assert dict(found.fitted_.recipe["tokens"])["photo"]["tokens"] == 2


def test_a_path_that_leads_out_of_the_model_folder_is_refused(tmp_path: Path) -> None:
    from unisono.core.files import sha256

    vit = vit_folder(tmp_path / "vit")
    fit(encoders={"photo": vit}, out=tmp_path / "m")
    recipe = tmp_path / "m" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("encoders/photo", "../vit"))
    schema = json.loads((tmp_path / "m" / "schema.json").read_text())
    schema["files"]["recipe.yaml"] = sha256(recipe)
    (tmp_path / "m" / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(ModelFolderError, match="not its place"):
        unisono.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({"phot": Colours()}, "did you mean 'photo'"),
        ({"photo": 3}, "expected a model folder or an nn.Module"),
        ({"photo": "/no/such/folder"}, "is no folder"),
        ({"photo": "."}, "config.json is missing"),
    ],
)
def test_encoders_that_are_none_are_refused(
    encoders: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        fit(encoders=encoders)


def test_a_scalar_column_has_no_encoder() -> None:
    table = pictures().append_column("size", [[float(k) for k in range(60)]])
    with pytest.raises(UserError, match=r"reads .*, but column 'size' is number"):
        unisono.fit(
            table, "light", columns={"photo": "image", "size": "number"}, settings=SETTINGS, progress=False, encoders={"size": Colours()}
        )


def test_the_command_line_takes_encoder_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    from unisono.cli.main import main

    vit = vit_folder(tmp_path / "vit")
    pq.write_table(pictures(), tmp_path / "t.parquet")
    words = [
        "fit",
        str(tmp_path / "t.parquet"),
        "--target",
        "light",
        "--column",
        "words=text",
        "--encoder",
        f"photo={vit}",
        "--link-encoders",
    ]
    words += ["--out", str(tmp_path / "m"), "--quiet", "--json", *(w for s in SETTINGS for w in ("--set", s))]
    assert main(words) == 0, capsys.readouterr().err
    recorded = yaml.safe_load((tmp_path / "m" / "recipe.yaml").read_text())["tokens"]["photo"]
    assert (recorded["type"], recorded["link"]) == ("hf", True)
    words[words.index(f"photo={vit}")] = "phto=nowhere"
    words[words.index("--out") + 1] = str(tmp_path / "n")
    assert main(words) == 2
    assert "did you mean 'photo'" in capsys.readouterr().err


def test_with_freeze_only_projections_are_trained_and_every_column_needs_an_encoder(tmp_path: Path) -> None:
    table = pictures()
    columns = {"photo": "image", "words": "text"}
    given = {"columns": columns, "align": True, "progress": False, "settings": ("train.steps=40", "train.lr=0.01", "width=16")}
    table = table.drop_columns([c for c in table.column_names if c not in columns])
    encoders = {"photo": Colours(), "words": bert_folder(tmp_path / "bert")}
    model = unisono.fit(table, encoders=encoders, freeze=True, **given)  # type: ignore[arg-type]
    trunk = {n.removeprefix("trunk.steps.0.") for n, _ in model.network.named_parameters() if n.startswith("trunk.")}
    assert trunk == {"nothing", "norm.weight", "norm.bias"}  # the step that reads, and no layer
    assert model.aligned
    assert len(model.evaluate(table, retrieval=True)["retrieval"]) == 2
    with pytest.raises(UserError, match="words is read by no frozen encoder"):
        unisono.fit(table, encoders={"photo": Colours()}, freeze=True, **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="name one for each column"):
        unisono.fit(table, freeze=True, **given)  # type: ignore[arg-type]


def test_features_are_kept_where_a_person_says_and_found_by_the_next_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from unisono.modalities.features import FeatureCache
    from unisono.modalities.hf import HuggingFace

    bert, features = bert_folder(tmp_path / "bert"), tmp_path / "features"
    with caplog.at_level("INFO", "unisono"):
        first = fit(encoders={"words": bert}, features=features)
    assert f"are kept in {features}" in caplog.text
    kept = FeatureCache(features).count()
    assert kept == len(set(pictures()["words"].drop_null().to_pylist()))
    asked: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        encode = HuggingFace._encode
        patch.setattr(HuggingFace, "_encode", lambda s, c, i, **how: asked.append(len(i)) or encode(s, c, i, **how))
        second = fit(encoders={"words": bert}, features=features)
    assert sum(asked) <= 3  # two to fit the projection's width, one to be sure of what is stored
    assert FeatureCache(features).count() == kept
    assert second.predict(pictures()).equals(first.predict(pictures()))
