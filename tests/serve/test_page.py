"""The page in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve import standin
from tests.serve.running import Running, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    """Sixty squares."""
    with running(standin.service(60)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, where it is installed with its driver."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def errors() -> list[str]:
    """What went wrong in the page."""
    return []


@pytest.fixture
def page(browser: Any, served: Running, errors: list[str], request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened; nothing may be asked of another machine, and nothing may go wrong unseen."""
    context = browser.new_context(accept_downloads=True, **getattr(request, "param", {"viewport": {"width": 1300, "height": 820}}))
    found = context.new_page()
    found.set_default_timeout(8000)
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    found.on("request", lambda r: None if r.url.startswith((served.address, "data:", "blob:")) else errors.append(r.url))
    found.goto(served.address)
    found.wait_for_selector(".card:not(.waiting)")
    yield found
    context.close()
    assert errors == []


def titles(page: Any) -> list[str]:
    return [str(t) for t in page.locator(".card .title").all_text_contents()]


def found(page: Any, words: str) -> None:
    page.wait_for_function("words => document.querySelector('#count').textContent.includes(words)", arg=words)


def test_words_find_items_and_nothing_in_them_is_read_as_markup(page: Any) -> None:
    found(page, "60 items")
    page.keyboard.press("/")
    page.keyboard.type("red")
    page.wait_for_selector(".card .score")
    page.wait_for_function("() => document.querySelector('.card .title')?.textContent.includes('red')")
    assert titles(page)[0] == "a <b>red</b> square & nothing else"
    assert page.locator(".card b").count() == 0
    page.keyboard.press("Escape")
    found(page, "60 items")


def test_a_picture_is_dropped_weighed_and_taken_away(page: Any, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(standin.png(standin.COLOURS["blue"]))
    page.set_input_files("#file", str(tmp_path / "blue.png"))
    page.wait_for_selector(".part img")
    page.wait_for_function("() => document.querySelector('.card .title')?.textContent.includes('blue')")
    page.click(".part button >> nth=0")
    page.click("#weigh >> text=Less like this")
    page.wait_for_selector(".part.less")
    page.wait_for_selector("#notice:visible")
    assert "query is empty" in page.locator("#notice").text_content()
    page.fill("#text", "red")
    page.wait_for_function("() => document.querySelector('.card .title')?.textContent.includes('red')")
    assert page.locator("#notice").is_hidden()
    page.click(".part .off")
    page.fill("#text", "")
    found(page, "60 items")
    (tmp_path / "note.txt").write_text("hello")
    page.set_input_files("#file", str(tmp_path / "note.txt"))
    page.wait_for_selector("#notice:visible")
    assert "text/plain" in page.locator("#notice").text_content()


def test_filters_from_the_columns(page: Any) -> None:
    page.click('.chip[data-word="north"]')
    found(page, "20 of 60")
    page.fill('[aria-label="price: at most"]', "9")
    page.keyboard.press("Enter")
    found(page, "3 of 60")
    page.click('.chip[data-word="north"]')
    page.click(""".chip[data-word='say "x"']""")
    found(page, "3 of 60")
    page.fill(".expression", "price <")
    page.keyboard.press("Enter")
    page.wait_for_selector("#notice:visible")
    assert "expected a value" in page.locator("#notice").text_content()
    page.click("#clear-filters")
    found(page, "60 items")
    assert page.locator("#notice").is_hidden()
    page.fill(".expression", "price > 1000")
    page.keyboard.press("Enter")
    page.wait_for_selector("#nothing:visible")


def test_the_keyboard_alone_finds_opens_and_selects(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("green")
    page.wait_for_selector(".card .score")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.classList.contains('card')")
    for key in ("ArrowRight", "Space", "ArrowDown", "Space", "Home"):
        page.keyboard.press(key)
    assert page.locator("#selected-count").text_content() == "2 selected"
    assert page.locator(".card[aria-selected=true]").count() == 2
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open] dl")
    assert "green" in page.locator("#detail h2").text_content()
    page.wait_for_selector(".near button")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    page.keyboard.press("m")
    page.wait_for_selector(".part")
    page.keyboard.press("Escape")
    assert page.locator("#selection").is_hidden()
    places = page.evaluate("[...document.querySelectorAll('a,button,input,select,canvas,[tabindex]')].filter(n => n.tabIndex > 0).length")
    assert places == 0


def test_the_map_is_drawn_selected_on_and_opened(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('#map-note').textContent === ''", timeout=20000)
    page.click("#pictures")
    page.wait_for_timeout(900)
    colours = """() => {
        const { canvas } = document.querySelector("#canvas").getContext("2d");
        const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        return new Set(pixels).size;
    }"""
    assert page.evaluate(colours) > 10
    assert page.locator("#legend button").count() == 3
    box = page.locator("#canvas").bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    for x, y in ((0.99, 0.01), (0.99, 0.99), (0.01, 0.99)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    chosen = int(page.locator("#selected-count").text_content().split()[0])
    assert 50 <= chosen <= 60
    page.keyboard.press("Escape")
    page.focus("#canvas")
    for key in ("+", "+", "ArrowLeft", "ArrowUp", "0"):
        page.keyboard.press(key)
    page.select_option("#colour", "price")
    page.wait_for_selector("#legend .ramp")


def test_near_duplicates_and_export(page: Any, tmp_path: Path) -> None:
    page.click("#alike")
    found(page, "near-duplicates")
    page.wait_for_selector(".badge")
    page.click(".card .tick >> nth=0", force=True)
    page.click(".card .tick >> nth=1", force=True)
    with page.expect_download() as waiting:
        page.click('[data-export="csv"]')
    waiting.value.save_as(tmp_path / "items.csv")
    lines = (tmp_path / "items.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith('"name","caption"')
    assert len(lines) == 3
    page.click("#like-selected")
    page.wait_for_function("() => document.querySelectorAll('.part').length === 2")


PHONE = {"viewport": {"width": 360, "height": 700}, "has_touch": True, "color_scheme": "dark", "reduced_motion": "reduce"}


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_narrow_dark_screen(page: Any) -> None:
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#map").is_hidden()
    page.click("[data-tab=filters]")
    page.click('.chip[data-word="south"]')
    page.click("[data-tab=map]")
    page.wait_for_function("() => document.querySelector('#canvas').width > 100")
    page.click("[data-tab=results]")
    found(page, "20 of 60")
    page.click(".card >> nth=0")
    page.wait_for_selector("#detail[open] dl")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_only_what_is_in_sight_is_in_the_document(browser: Any, errors: list[str]) -> None:
    with running(standin.service(4000)) as served:
        page = browser.new_page(viewport={"width": 1300, "height": 820})
        page.goto(served.address)
        page.wait_for_selector(".card:not(.waiting)")
        assert page.locator(".card").count() < 120
        page.keyboard.press("/")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        page.wait_for_function(
            "() => document.activeElement.dataset.row === '3999' && !document.activeElement.classList.contains('waiting')"
        )
        assert page.locator(".card").count() < 120
        page.close()
