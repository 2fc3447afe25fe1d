from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.report.examples import EVIL, Page, category_target, number_target, report
from unisono.report import content as c
from unisono.report import sketch
from unisono.report.render import confused, render


def test_the_page_says_what_matters() -> None:
    text = Page(render(report())).text
    for words in (
        "97.4 %",
        "95.1 – 99.2 %",
        "120 test rows",
        "Always answering “class 0”",
        "62.1 %",
        "pets.csv",
        "1,200 rows",
        "a leaked target",
        "unisono fit pets.csv --set train.steps=3",
        "width: 64",
        "truncated",
        "3 of 120 test rows are wrong",
        "id 7",
        "+21.0",
        "and 3 more columns",
    ):
        assert words in text, words


def test_numbers_have_residuals_and_intervals() -> None:
    text = Page(render(report(number_target()))).text
    for words in ("0.487", "How far off the answers are", "43.21", "off by 0.5", "missing", "95 %"):
        assert words in text, words
    assert "confused" not in text


def test_nothing_that_a_table_says_becomes_markup() -> None:
    cell = c.Cell("text", EVIL)
    target = replace(
        category_target(EVIL, word=EVIL),
        reason=EVIL,
        constant=EVIL,
        mistakes=[c.Mistake(EVIL, EVIL, EVIL, [(EVIL, 0.5)], EVIL, [(EVIL, cell)])],
        worth=[c.SourceWorth(EVIL, 0.1, 0.1, 0.1, 0.1), c.SourceWorth("b", 0.1, 0.1, 0.1, 0.1)],
        subsets=[c.SubsetRow([EVIL, "b"], 0.1)] * 2,
        labels=[c.LabelRow(EVIL, 1, 1, 1)],
    )
    column = c.ColumnRow(EVIL, "input", "text", EVIL, EVIL, EVIL, 0.1, 1, [cell, replace(sketch.curve(np.arange(4.0), EVIL))])
    page = render(
        report(
            target,
            table=EVIL,
            split_how=EVIL,
            columns=[column],
            bad=[c.BadRow(EVIL, EVIL, EVIL)],
            notes=[EVIL],
            command=EVIL,
            repeat=EVIL,
            facts=[(EVIL, EVIL)],
            recipe=EVIL,
            recipe_name=EVIL,
            made=EVIL,
            sources=(EVIL, "b"),
        )
    )
    found = Page(page)
    names = {tag for tag, _ in found.tags}
    assert "script" not in names and "img" not in names
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    assert "alert('x')" in found.text


def test_the_page_loads_nothing() -> None:
    picture = sketch.film(np.zeros((3, 8, 8, 3), np.uint8))
    column = c.ColumnRow("photo", "input", "image", "PNG", samples=[picture])
    page = render(report(category_target(), number_target(), columns=[column]))
    found = Page(page)
    assert "http://" not in page and "https://" not in page and "url(" not in page and "@import" not in page
    for tag, attributes in found.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for key in ("src", "href", "srcset", "poster", "xlink:href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/", "data:audio/", "#")), value
    policy = next(a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy


def test_whoever_cannot_see_it_is_told() -> None:
    found = Page(render(report(category_target(), number_target())))
    charts = [a for t, a in found.tags if t == "svg" and a.get("aria-hidden") != "true"]
    assert charts and all(a.get("role") == "img" and a.get("aria-label") for a in charts)
    assert all(a.get("alt") for t, a in found.tags if t == "img")
    count = {tag: sum(t == tag for t, _ in found.tags) for tag in ("table", "caption", "h1")}
    assert count["table"] == count["caption"] and count["h1"] == 1
    places = {a["id"] for _, a in found.tags if "id" in a}
    assert all(a["href"][1:] in places for t, a in found.tags if t == "a" and a["href"])


@pytest.mark.parametrize(
    "case",
    [
        report(
            headline=None,
            split={"train": 10, "val": 0, "test": 0},
            targets=[c.TargetReport("kind", "category", "", "accuracy", True)],
            curves=None,
        ),
        report(headline="val", targets=[replace(category_target(), parts=[c.Part("val", 60, [c.Measure("accuracy", None)])])]),
        report(sources=("table",), targets=[replace(category_target(), worth=[], subsets=[])]),
        report(category_target("a"), category_target("b"), number_target("c")),
        report(category_target(classes=21), columns=[c.ColumnRow(f"x{k}", "input", "number", missing=0.0) for k in range(450)]),
        report(curves=c.Curves([5.0], [1.0], [None])),
        report(
            replace(category_target(), mistakes=[], wrong=(0, 120)), examples=False, columns=[], bad=(), bad_count=0, notes=[], facts=[]
        ),
        report(
            c.TargetReport(
                "tags",
                "labels",
                "lists",
                "map",
                True,
                labels=[c.LabelRow("red", 0, 0, 0)],
                parts=[c.Part("test", 2, [c.Measure("map", 0.5)])],
            )
        ),
    ],
    ids=["nothing measured", "undefined", "one source", "three targets", "many classes", "one record", "no examples", "labels"],
)
def test_pieces_may_be_missing(case: c.Report) -> None:
    page = render(case)
    assert "Predicting" in Page(page).text
    assert len(page) < 1_000_000
    assert "nan" not in re.sub(r"[A-Za-z]*nan[A-Za-z]+|[A-Za-z]+nan", "", page)


def test_confusions_are_listed_by_frequency() -> None:
    found = confused(c.Confusion(["a", "b"], ["a", "b"], [[5, 2], [4, 1]]))
    assert found == [("b", "a", 4, 5), ("a", "b", 2, 7)]


def test_no_error_among_few_rows_is_not_called_certain() -> None:
    target = replace(category_target(), parts=[c.Part("test", 17, [c.Measure("accuracy", 1.0, 1.0, 1.0, 0.4)])])
    text = Page(render(report(target))).text
    assert "error rate of up to 20 % possible" in text and "95 % interval 100.0" not in text.split("Data", 1)[0]
