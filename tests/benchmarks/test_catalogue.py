"""The page of systems says what docstrings and records say, shortfalls included."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from benchmarks import Case, Goal, Row
from benchmarks.catalogue import System, systems, told, unmeasured, written
from benchmarks.record import append, records_of

DOC = """Windows that go round (arXiv:1234.56789; recipes ``round`` and ``round-again``).

Claim: news goes round; it costs nothing. Exact (``tests/systems/test_round.py``): round twice is once; nothing is lost. It holds for any
size. Waiting: decoding, for generation.

Digits on a ring; the baseline stays where it is.
"""


def made_row(name: str = "systems/round", module: str = "benchmarks.systems.round") -> Row:
    cases = tuple(Case(arm, seed) for seed in (0, 1, 2) for arm in ("ours", "baseline"))
    goals = (Goal("score", arm="ours", must=0.9), Goal("score", arm="baseline", must=0.4, better="lower"))
    return Row(name, print, cases, goals, None, "Going round.", module)


def test_a_docstring_is_taken_apart() -> None:
    found = told(DOC, [])
    assert found.title == "Windows that go round"
    assert found.source == "arXiv:1234.56789"
    assert found.recipes == ("round", "round-again")
    assert found.claim == "news goes round; it costs nothing."
    assert found.exact == "round twice is once; nothing is lost. It holds for any size."
    assert found.tests == ("tests/systems/test_round.py",)
    assert found.waiting == "decoding, for generation."
    assert found.setting == "Digits on a ring; the baseline stays where it is."


@pytest.mark.parametrize(
    ("text", "title", "exact"),
    [
        ("Plain.", "Plain", ""),
        (
            "A title that\ngoes on (arXiv:1; recipe ``a``).\n\nExact (``tests/a.py``): it is. Nothing waits.\n",
            "A title that goes on",
            "it is.",
        ),
        ("B (Huber (1964); recipe ``b``)\n\nClaim: c.", "B", ""),
        ("C (arXiv:1; recipe ``c``), and D (recipe ``d``).\n\nClaim: c.", "C, and D", ""),
    ],
)
def test_other_docstrings(text: str, title: str, exact: str) -> None:
    found = told(text, [])
    assert (found.title, found.exact, found.waiting) == (title, exact, "")


def test_every_module_of_systems_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("benchmarks.systems.round", DOC)
    monkeypatch.setitem(sys.modules, "benchmarks.systems.round", module)
    other = made_row("speed", "benchmarks.speed")
    found = systems([made_row(), other, made_row("systems/round-fast")])
    assert [(s.title, [r.name for r in s.rows]) for s in found] == [("Windows that go round", ["systems/round", "systems/round-fast"])]


def test_the_page_shows_values_spread_verdicts_and_what_is_absent(tmp_path: Path) -> None:
    row = made_row()
    for seed, (ours, baseline) in enumerate([(0.95, 0.5), (0.85, 0.5), (0.96, 0.5)]):
        for arm, value in (("ours", ours), ("baseline", baseline)):
            records = records_of(row, Case(arm, seed), {"score": (value, "share")}, key=f"{arm}{seed}", seconds=1.0)
            append(tmp_path / "systems/round.jsonl", records)
    text = written([told(DOC, [row])], tmp_path, tmp_path)
    assert "| ours: score | 0.92 | 0.11 | 3 | ≥ 0.9 | - | met |" in text
    assert "| baseline: score | 0.5 | 0 | 3 | ≤ 0.4 | - | short |" in text
    assert "1 met, 1 **short**" in text
    assert "`tests/systems/test_round.py` (absent)" in text
    assert "decoding, for generation." in text
    (tmp_path / "tests" / "systems").mkdir(parents=True)
    (tmp_path / "tests" / "systems" / "test_round.py").touch()
    assert "(absent)" not in written([told(DOC, [row])], tmp_path, tmp_path)
    bare = written([told(DOC, [made_row("systems/none")])], tmp_path, tmp_path)
    assert "2 no result" in bare
    assert "0 of 6 cases recorded" in bare


def test_recipes_that_nobody_measures_are_listed() -> None:
    names = {s.title for s in unmeasured([])}
    assert {"early-fusion", "late-fusion", "bottleneck-fusion"} <= names
    assert "early-fusion" not in {s.title for s in unmeasured([System("x", recipes=("early-fusion",))])}
    assert "base" not in names
