"""A recipe's trunk on a page: the facts are the trunk's own, and the page needs nothing but itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.tokens import FRAME, NAMES, rich_meta
from unisono.core.errors import UserError
from unisono.model.drawing import draw_recipe, modalities_of
from unisono.model.options import FitOptions
from unisono.nn.grammar import build_trunk
from unisono.recipe import Recipe, load_recipe, recipe_names
from unisono.report.mixing import Told, tell
from unisono.report.panels import lanes_of, panel
from unisono.report.schedule import Stage, Stretch, schedule, stretches

DEFAULTS = {"mixer": "attention(heads=2)"}


def stages(steps: list[dict[str, Any]]) -> list[Stage]:
    """The stages of a trunk over the first sample of ``rich_meta``."""
    meta = rich_meta()
    meta = meta.select((meta.sample == 0).nonzero().squeeze(1))
    frame = FRAME
    return schedule(build_trunk(steps, DEFAULTS, width=8, num_modalities=5, frame=frame), steps, DEFAULTS, meta)


def told(steps: list[dict[str, Any]]) -> Told:
    """The last layer, told."""
    found = stages(steps)
    layer = [s for s in found if s.kind == "layer"][-1]
    return tell(layer, lanes_of([s.before for s in found], NAMES))


def shape(found: list[Stretch]) -> list[tuple[int, list[str]]]:
    return [(s.times, [stage.title for stage in s.stages]) for s in found]


def test_repeats_are_drawn_once_alternations_too() -> None:
    steps: list[dict[str, Any]] = [{"repeat": 4}, {"scope": "source"}, *[{"scope": "cell"}, {"scope": "axis(time)"}] * 3, {"read": "mean"}]
    assert shape(stretches(stages(steps))) == [(4, ["sample"]), (1, ["source"]), (3, ["cell", "axis(time)"]), (1, ["mean"])]
    apart: list[dict[str, Any]] = [{"norm": "rms"}, {}, {"read": "mean"}]
    assert [s.times for s in stretches(stages(apart))] == [1, 1, 1]


def test_the_stages_are_the_trunks_own_steps() -> None:
    steps: list[dict[str, Any]] = [
        {"on": "photo", "save": "fine"},
        {"on": "photo", "resample": "merge(2)"},
        {"fork": {"by": "modality", "branches": {"text": [{"repeat": 2}], "image": [{"scope": "cell"}]}}},
        {"insert": "bottleneck(3)"},
        {"keys": "fine", "scope": "sample"},
        {"read": "mean"},
    ]
    found = stages(steps)
    assert [(s.kind, s.within) for s in found] == [
        ("save", ("only photo",)), ("resample", ("only photo",)), ("fork", ()), ("layer", ("branch text",)), ("layer", ("branch text",)),
        ("layer", ("branch image",)), ("insert", ()), ("layer", ()), ("read", ()),
    ]  # fmt: skip
    photo = int((rich_meta().column[rich_meta().sample == 0] == 2).sum())
    assert (len(found[1].before), len(found[1].after)) == (photo, 5)
    assert len(found[6].after) == len(found[6].before) + 3
    recall = found[7].mixing
    assert recall is not None
    assert recall.seen.shape == (len(found[7].before), photo)
    assert recall.seen.all()


def test_steps_of_each_source_and_scopes_in_turns_are_written_out() -> None:
    steps: list[dict[str, Any]] = [
        {"name": "own", "each": [{"on": "each", "scope": "source"}]},
        {"insert": "bottleneck(1)"},
        {"each": [{"scope": "cross(inserted <- each, if_any=true)"}]},
        {"repeat": 4, "scope": ["cell", "source"]},
        {"read": "mean"},
    ]
    found = stages(steps)
    assert [(s.name, s.within) for s in found[:5]] == [("own", (f"only {name}",)) for name in NAMES.sources]
    assert [s.title for s in found[6:11]] == [f"cross(inserted <- source({k}), if_any=true)" for k in range(5)]
    assert [s.title for s in found[11:15]] == ["cell", "source"] * 2
    assert [s.times for s in stretches(found)][-2:] == [2, 1]


def test_relations_are_told_as_they_are() -> None:
    early = told([{"scope": "sample"}, {"read": "mean"}])
    assert [(len(g.tokens), g.whole) for g in early.groups] == [(34, True)]
    assert (len(early.arrows), len(early.lines)) == (0, 0)
    narrow = told([{"insert": "bottleneck(2)"}, {"scope": "source & bottleneck"}, {"read": "mean"}])
    assert sorted(len(g.tokens) for g in narrow.groups) == [1, 2, 5, 12, 16]
    assert all(a.both for a in narrow.arrows)
    assert len(narrow.arrows) == 4
    cross = told([{"scope": "cross(title <- photo)"}, {"read": "mean"}])
    assert [(a.speaks, a.hears, a.both) for a in cross.arrows] == [(2, 1, False)]
    assert not cross.idle[1:6].any()
    assert int(cross.idle.sum()) == 29
    order = told([{"scope": "source & causal(sequence)"}, {"read": "mean"}])
    ranks = [g.ranks for g in order.groups if g.lanes == (1,)]
    assert ranks[0] is not None
    assert ranks[0].tolist() == [1, 2, 3, 4, 5]
    assert "nothing is mixed" in told([{"mixer": "none"}, {"read": "mean"}]).words[0]


@pytest.mark.parametrize(
    "scope", ["sample", "source", "window(2)", "axis(time)", "cross(title <- [photo, clip])", "causal(sequence)", "context(2)"]
)
def test_what_is_told_covers_every_pair_and_no_more(scope: str) -> None:
    found = stages([{"insert": "bottleneck(2)"}, {"scope": scope}, {"read": "mean"}])
    lanes, layer = lanes_of([s.before for s in found], NAMES), found[1]
    assert layer.mixing is not None
    said, number = tell(layer, lanes), np.full(len(layer.before), -1)
    for lane in lanes:
        number[lane.holds(layer.before)] = lane.number
    told_pairs = np.zeros_like(layer.mixing.seen)
    for group in said.groups:
        inside = np.ones((len(group.tokens),) * 2, bool) if group.ranks is None else group.ranks[None, :] <= group.ranks[:, None]
        told_pairs[np.ix_(group.tokens, group.tokens)] = inside
    seen = layer.mixing.seen & layer.mixing.asks[:, None]
    assert not (told_pairs & ~seen).any()
    arrows = {(a.hears, a.speaks) for a in said.arrows} | {(a.speaks, a.hears) for a in said.arrows if a.both}
    lines = {frozenset(pair) for pair in said.lines.tolist()}
    for q, k in np.argwhere(seen & ~told_pairs).tolist():
        assert q == k or (number[q], number[k]) in arrows or frozenset((q, k)) in lines


def test_no_two_tokens_stand_in_one_place() -> None:
    meta = rich_meta()
    for sample in (0, 1, 3):
        mine = meta.select((meta.sample == sample).nonzero().squeeze(1))
        for lane in lanes_of([mine], NAMES):
            found = panel(mine, lane.holds(mine), NAMES)
            far = np.abs(found.places[:, None] - found.places[None]).max(2) + 9 * np.eye(len(found.places))
            assert not len(far) or far.min() > 0.99
            assert (found.places + 1 <= np.array(found.size) + 1e-9).all()


def parsed(page: str) -> ET.Element:
    """The one picture of a page, which has nothing outside of itself."""
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "url(" not in page
    found = re.findall(r'<svg class="trunk".*?</svg>', page, re.S)
    assert len(found) == 1
    return ET.fromstring(found[0])


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_drawn(name: str) -> None:
    recipe = load_recipe(name)
    picture = parsed(draw_recipe(recipe))
    texts = [t.text or "" for t in picture.iter("text")]
    for step in recipe["trunk"]:
        if "name" in step:
            assert any(step["name"] in text for text in texts)
    height = float(picture.attrib["viewBox"].split()[3])
    assert all(float(r.attrib["y"]) + float(r.attrib["height"]) <= height for r in picture.iter("rect"))


def test_the_made_up_row_has_what_the_recipe_names() -> None:
    def of(text: str) -> list[str]:
        return modalities_of(Recipe("x", yaml.safe_load(text)))

    assert of("{trunk: [{scope: causal(sequence)}, {read: mean}]}") == []
    assert of("{needs: [video], trunk: [{'on': graph, scope: sample}, {scope: 'cross(text <- [image, cube])'}]}") == [
        "text", "image", "video", "graph", "cube",
    ]  # fmt: skip
    assert of("{trunk: [{fork: {by: modality, branches: {audio: [{'on': points}]}}}]}") == ["audio", "points"]


def test_a_tables_first_row_is_drawn(tmp_path: Path) -> None:
    rows = 30
    table = pa.table({
        "story": ["one two three four", *(f"a longer story of seven words entirely {k}" for k in range(rows - 1))],
        "age": [None] + [float(k) for k in range(rows - 1)],
        "kind": ["ab"[k % 2] for k in range(rows)],
    })  # fmt: skip
    page = draw_recipe(load_recipe("late-fusion"), table, FitOptions(targets={"kind": None}, columns={"story": "text"}))
    texts = [t.text for t in parsed(page).iter("text")]
    assert "missing" in texts, "the age of the first row"
    assert "story" in texts
    wild = pa.table({"<b>&": [f"p q r {k}" for k in range(rows)], "kind": ["ab"[k % 2] for k in range(rows)]})
    page = draw_recipe(load_recipe("late-fusion"), wild, FitOptions(targets={"kind": None}, columns={"<b>&": "text"}))
    assert "<b>&<" not in page
    long = pa.table({"story": [" ".join(f"{k}x{j}" for j in range(2000)) for k in range(rows)], "kind": ["ab"[k % 2] for k in range(rows)]})
    recipe = load_recipe("late-fusion", ["tokens.text=subwords(max_tokens=8000, enough=1)"])
    with pytest.raises(UserError, match="tokens"):
        draw_recipe(recipe, long, FitOptions(targets={"kind": None}, columns={"story": "text"}))
