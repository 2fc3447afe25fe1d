from __future__ import annotations

import base64
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.report.examples import Page
from unisono.report import figures, sketch, svg


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    high = low + span
    if high <= low or span < 1e-9 * abs(low):
        return
    found = svg.ticks(low, high)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-6 * span <= t <= high + 1e-6 * span for t in found)


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=20))
def test_lines_may_have_gaps(values: list[float | None]) -> None:
    chart = svg.line_chart([svg.Line("a", range(len(values)), values)], title="t", x_label="x", y_label="y", mark=(3.0, "chosen"))
    Page(str(chart))
    assert "nan" not in chart


def test_attributes_and_text_are_escaped() -> None:
    found = svg.tag("text", '<b>&"', class_='"><i>')
    assert str(found) == '<text class="&#34;&gt;&lt;i&gt;">&lt;b&gt;&amp;&#34;</text>'


def test_figures_are_for_people() -> None:
    assert figures.figure(0.9744, "accuracy") == "97.4 %"
    assert figures.figure(None, "r2") == "–"
    assert figures.figure(-0.0001, "r2") == "0.000"
    assert figures.interval(0.951, 0.992, "accuracy") == "95.1 – 99.2 %"
    assert figures.number(1234567.0) == "1,234,567"
    assert figures.number(-0.5) == "−0.5"
    assert figures.share(1, 3000) == "< 0.1 %"
    assert figures.clean("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    assert figures.plural(1, "row") == "1 row" and figures.plural(2000, "row") == "2,000 rows"


def test_sketches_are_small_and_well_formed() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        sketch.curve(rng.normal(size=(100_000, 6))),
        sketch.cloud(rng.normal(size=(50_000, 3))),
        sketch.network(5000, rng.integers(0, 5000, (2, 20_000))),
        sketch.bars(rng.normal(size=4096)),
        sketch.film(rng.integers(0, 255, (40, 200, 300, 3)).astype(np.uint8)),
    ]
    for cell in drawn:
        assert cell.text and len(cell.svg) + len(cell.uri) < 60_000, cell.text
        Page(str(cell.svg))
    assert sketch.cloud(np.zeros((0, 3))).kind == "text"
    Page(str(sketch.waveform(np.zeros(0), "")) + str(sketch.curve(np.full((3, 1), np.nan)).svg))


def test_pictures_become_thumbnails_and_masks_visible() -> None:
    def shown(array: np.ndarray) -> tuple[Image.Image, str]:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG")
        cell = sketch.picture(stream.getvalue())
        return Image.open(io.BytesIO(base64.b64decode(cell.uri.partition(",")[2]))), cell.text

    large, words = shown(np.full((400, 800, 3), 200, np.uint8))
    assert large.size == (144, 72) and words == "picture of 800 × 400 pixels"
    mask, words = shown(np.arange(16, dtype=np.uint8).reshape(4, 4) % 5)
    assert mask.getextrema() == (0, 255) and words.endswith("brightened")
    plain, words = shown(np.arange(0, 160, 10, dtype=np.uint8).reshape(4, 4))
    assert plain.getextrema() == (0, 150) and "brightened" not in words
