"""The section on searching across sources: figures, hits and misses, nothing of the table where rows may not be shown."""

from __future__ import annotations

import re
from dataclasses import replace

from unisono.report.content import Cell
from unisono.report.render import render_search
from unisono.report.searching import ClassRow, Estimate, Example, Found, PairRow, SearchReport, SpaceRow


def report() -> SearchReport:
    some = Estimate(0.5, 0.4, 0.6)
    pairs = [PairRow(a, b, [some, some, Estimate(None)], Estimate(3.0, 2.0, 4.5), some, 10, 12) for a, b in ("xy", "yx")]
    found = [Found([Cell("text", "<b>near</b>")], "k1", 0.9, False), Found([Cell("text", "own")], "k2", 0.8, True)]
    example = Example("x", "y", [Cell("text", "secret cell")], "k2", found, 2, 12)
    lost = replace(example, rank=12, found=found[:1], wanted=[Cell("text", "wanted cell")])
    space = [SpaceRow("alignment", "x and y", some, "0 at best", "good"), SpaceRow("hubness", "x → y", Estimate(None), "0", "")]
    return SearchReport(10, "test rows", pairs, [ClassRow("x", "kind", some, 4, 10, ["a {}"])], space, [example], [lost])


def test_the_page_says_every_figure_and_marks_hits_and_misses() -> None:
    page = render_search(report(), table="t.csv", made="today")
    assert page.count("50.0 %") >= 4
    assert "40.0 – 60.0 %" in page
    assert len(re.findall(r'<li class="hit">', page)) == 1
    assert len(re.findall(r'<li class="miss">', page)) == 2
    assert "wanted cell" in page
    assert "&lt;b&gt;near&lt;/b&gt;" in page
    assert "<script" not in page
    assert 'badge fine">good' in page


def test_without_examples_no_cell_is_on_the_page() -> None:
    page = render_search(replace(report(), examples=(), misses=(), shown=False), table="t.csv", made="today")
    assert "secret cell" not in page
    assert "Some searches" not in page
    assert "50.0 %" in page
