"""Recipes that are no models: listed with their verb, and refused by every other one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unisono.cli.main import main
from unisono.core.errors import ConfigError
from unisono.recipe import MODEL, VERBS, kind_of, load_recipe, recipe_names


def test_every_recipe_has_one_name_and_is_of_its_kind() -> None:
    names = [name for kind in (MODEL, *VERBS) for name in recipe_names(kind)]
    assert len(names) == len(set(names))
    for kind in VERBS:
        for name in recipe_names(kind):
            recipe = load_recipe(name, kind=kind)
            assert kind_of(recipe.settings) == kind
            assert recipe["claim"]
            assert recipe["source"]


def test_another_verb_refuses_them_by_naming_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="dbnorm is no model: it is for index, not for fit"):
        load_recipe("dbnorm")
    with pytest.raises(ConfigError, match="early-fusion is a model: it is for fit, not for index"):
        load_recipe("early-fusion", kind="index")
    own = tmp_path / "mine.yaml"
    own.write_text("index: {correction: invgc(rate=0.2)}\n")
    with pytest.raises(ConfigError, match="it is for index"):
        load_recipe(str(own))
    assert load_recipe(str(own), kind="index")["index"] == {"correction": "invgc(rate=0.2)"}
    with pytest.raises(ConfigError, match="trunk is unknown"):
        load_recipe({"index": {}, "trunk": []}, kind="index")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    assert main(["fit", str(tmp_path / "t.csv"), "--target", "b", "--out", str(tmp_path / "m"), "--recipe", "invgc"]) == 2
    assert "it is for index, not for fit" in capsys.readouterr().err


def test_a_setting_can_be_changed() -> None:
    changed = load_recipe("invgc", ["index.correction.rate=0.1"], kind="index")["index"]["correction"]
    assert changed == {"type": "invgc", "rate": 0.1, "nearest": 10}


def test_they_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    listed = {r["name"]: r["verb"] for r in json.loads(capsys.readouterr().out)["recipes"]}
    assert (listed["dbnorm"], listed["early-fusion"]) == ("index", "fit")
    assert main(["recipes", "dbnorm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["index"]["correction"].startswith("dbnorm(")
    assert main(["recipes", "dbnorm", "--draw"]) == 2
    assert "is no model" in capsys.readouterr().err
