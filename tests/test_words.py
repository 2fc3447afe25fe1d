"""Recipes written in Python say the same as those in files."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import unisono
from unisono import words as w
from unisono.core.errors import ConfigError
from unisono.core.words import Chain, Word, parse_chain, parse_word
from unisono.recipe import load_recipe

FUSION: dict[str, Any] = {
    "extends": "base",
    "width": 16,
    "defaults": {"mixer": w.attention(heads=2, bias=w.word("table")), "ffn": w.mlp(2, act="relu")},
    "trunk": [
        dict(name="apart", repeat=2, scope=w.source),
        dict(insert=w.bottleneck(4)),
        {"name": "meet", "scope": w.source & w.bottleneck, "residual": w.pre(layerscale=0.1)},
        dict(scope=w.cross("text", ["image", "number"]), ffn=w.none, on=["text", "image", "number"]),
        dict(resample=w.latents(2, by=w.source & w.level)),
        dict(read=w.mean(by="source", norm=w.rms(eps=1e-7))),
    ],
    "train": {"steps": 3},
}
TEXT = """
extends: base
width: 16
defaults: {mixer: 'attention(heads=2, bias=table)', ffn: 'mlp(2, act=relu)'}
trunk:
  - {name: apart, repeat: 2, scope: source}
  - {insert: bottleneck(4)}
  - {name: meet, scope: source & bottleneck, residual: pre(layerscale=0.1)}
  - {scope: 'cross(text, [image, number])', ffn: none, 'on': [text, image, number]}
  - {resample: "latents(2, by='source & level')"}
  - {read: 'mean(by=source, norm=rms(eps=1e-07))'}
train: {steps: 3}
"""


def test_a_mapping_says_the_same_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "fusion.yaml").write_text(TEXT)
    kept = copy.deepcopy(FUSION)
    mine = load_recipe(FUSION)
    assert mine.settings == load_recipe(str(tmp_path / "fusion.yaml")).settings
    assert mine.lineage == ("base",)
    assert kept == FUSION, "the mapping is left as it was"
    assert yaml.safe_load(mine.to_yaml()) == mine.settings


def test_words_are_what_is_written() -> None:
    assert str(w.attention(heads=3)) == "attention(heads=3)"
    assert str(w.window(7) & w.source) == "window(7) & source"
    assert str(w.a & (w.b & w.c)) == "a & b & c"
    assert parse_chain(str(w.window(7, shift=3) & w.source)) == [Word("window", (7,), {"shift": 3}), Word("source")]
    assert w.source == Word("source")
    assert str(w.mlp(np.float64(2.5), np.int64(3))) == "mlp(2.5, 3)"
    assert str(w.pre(layerscale=None, x="null", y="it's")) == "pre(layerscale=null, x='null', y=\"it's\")"
    for wrong in (object(), float("nan"), "both ' and \""):
        with pytest.raises(ConfigError, match="word"):
            str(w.mlp(wrong))
    with pytest.raises(TypeError):
        w.a & "b"
    with pytest.raises(AttributeError):
        w._private  # noqa: B018


def test_words_that_hold_a_mapping_become_one() -> None:
    active = {"text": ["table", "text"]}
    given = {"extends": "base", "defaults": {"sharing": {"ffn": w.skills(active=active, of=w.depth(of=w.all)), "mixer": w.all}}}
    assert load_recipe(given)["defaults"]["sharing"] == {"ffn": {"type": "skills", "active": active, "of": "depth(of=all)"}, "mixer": "all"}
    with pytest.raises(ConfigError, match="by name"):
        load_recipe({"extends": "base", "defaults": {"norm": w.some({"a": 1})}})


names = st.from_regex(r"[a-z][a-z_0-9]{0,6}", fullmatch=True)
plain = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
                  st.text(st.characters(exclude_characters="'", exclude_categories=("Cs",))))  # fmt: skip
values = st.recursive(plain, lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.builds(Word, names, st.lists(inner, min_size=1, max_size=3).map(tuple), st.dictionaries(names, inner, max_size=2)),
), max_leaves=8)  # fmt: skip


@given(names, st.lists(values, max_size=3).map(tuple), st.dictionaries(names, values, max_size=3))
def test_every_word_is_read_back_as_it_was_written(name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    word = w.word(name)(*positional, **named)
    again = parse_word(str(word))
    assert str(again) == str(word)
    assert again == word


def test_a_fit_takes_a_mapping_and_records_it_as_text(tmp_path: Path) -> None:
    table = {"story": [f"a tale of {k % 5} cats and {k}" for k in range(50)], "age": [float(k % 7) for k in range(50)],
             "kind": ["ab"[k % 2] for k in range(50)]}  # fmt: skip
    import pyarrow as pa

    recipe = {**FUSION, "trunk": [*FUSION["trunk"][:3], FUSION["trunk"][-1]]}
    options: dict[str, Any] = {"settings": ["defaults.mixer=attention(heads=2)"], "columns": {"story": "text"}, "progress": False}
    model = unisono.fit(pa.table(table), "kind", recipe=recipe, out=tmp_path / "model", **options)
    written = yaml.safe_load((tmp_path / "model" / "recipe.yaml").read_text())
    assert written["trunk"][2] == {"name": "meet", "scope": "source & bottleneck", "residual": "pre(layerscale=0.1)"}
    assert "--recipe" in (tmp_path / "model" / "report.html").read_text()
    again = unisono.load(tmp_path / "model")
    assert again.predict(pa.table(table)).equals(model.predict(pa.table(table)))
    (tmp_path / "same.yaml").write_text(load_recipe(recipe).to_yaml())
    twin = unisono.fit(pa.table(table), "kind", recipe=str(tmp_path / "same.yaml"), **options)
    for a, b in zip(model.fitted_.network.parameters(), twin.fitted_.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_estimator_with_a_mapping_can_be_cloned() -> None:
    from sklearn.base import clone

    model = unisono.Model(recipe=FUSION, task="category")
    assert clone(model).get_params()["recipe"] == FUSION


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"extends": "bse"}, "did you mean 'base'"),
        ({"extends": "base", "trnk": []}, "did you mean 'trunk'"),
        ({1: 2}, "mapping of its keys"),
        (7, "mapping of its keys"),
        ({"extends": "base", "trunk": w.mean(object())}, "word holds"),
    ],
)
def test_what_is_no_recipe_is_refused(recipe: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_recipe(recipe)


def test_an_unknown_word_is_refused_where_it_is_used() -> None:
    from unisono.nn.grammar import build_trunk

    settings = load_recipe({"extends": "base", "trunk": [dict(scope=w.sorce), dict(read=w.mean)]}).settings
    with pytest.raises(ConfigError, match=r"trunk\[0\]\.scope.*did you mean 'source'"):
        build_trunk(settings["trunk"], settings["defaults"], width=16)


def test_words_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom unisono import words as w\nw.window(7) & w.source\nassert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(unisono.__file__).parents[1])


def test_a_chain_is_a_scope() -> None:
    assert isinstance(w.source & w.level, Chain)
