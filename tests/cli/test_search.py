"""Index and search from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tables import Run, weather, write_csv
from unisono.model.indexing import PredictorEmbedder


@pytest.fixture(scope="module")
def index(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the weather, said to be aligned, that no test changes."""
    from unisono.cli.main import main

    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictorEmbedder, "aligned", True)
        assert main(["index", str(model), str(write_csv(folder / "t.csv", weather())), "--out", str(folder / "idx"), "--quiet"]) == 0
    return folder / "idx"


def test_index_says_what_it_made(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    done = run("index", model, table, "--out", tmp_path / "idx", "--json", "--field", "kind", "--field", "heat")
    assert done.code == 0, done.err
    expected = {"rows": 60, "out": str(tmp_path / "idx"), "sides": ["row", "table", "note"]}
    assert done.json == {**expected, "without_vector": 0, "aligned": False, "approximate": {}}
    found = run("search", tmp_path / "idx", "--row", "3", "-k", "2", "--json").json
    assert [set(h["fields"]) for h in found["hits"]] == [{"kind", "heat"}] * 2
    refused = run("search", tmp_path / "idx", "--text", "calm")
    assert (refused.code, refused.out) == (2, "")
    assert "unisono fit TABLE --align" in refused.err


def test_search_for_machines_and_for_people(run: Run, index: Path) -> None:
    words = ["--text", "a calm bright morning", "--query", "heat=0.1", "--minus", "note=a wild dark evening", "--weight", "text=0.7"]
    found = run("search", index, *words, "-k", "4", "--to", "note", "--where", "heat < 2 and colour in (red, blue)", "--json").json
    assert [p["part"] for p in found["query"]["parts"]] == ["note", "heat", "note"]
    assert [p["weight"] for p in found["query"]["parts"]] == [0.7, 1.0, -1.0]
    assert [h["rank"] for h in found["hits"]] == [1, 2, 3, 4]
    assert all(h["fields"]["heat"] < 2 and h["fields"]["colour"] in {"red", "blue"} for h in found["hits"])
    scores = [h["score"] for h in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    shown = run("search", index, "--row", "3", "--row", "5", "-k", "2")
    assert shown.code == 0
    assert shown.out.splitlines()[0].split() == ["rank", "key", "score", "heat", "colour", "note", "kind", "split"]
    assert len(shown.out.splitlines()) == 4
    assert "no row" in run("search", index, "--row", "3", "--where", "heat > 1000").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "empty"),
        (["--text", "x", "-k", "0"], "at least 1"),
        (["--row", "77"], "no row with the key '77'"),
        (["--image", "cat.png"], "reads no image"),
        (["--query", "note"], "COLUMN=VALUE"),
        (["--query", "nose=x"], "did you mean 'note'"),
        (["--text", "x", "--weight", "text=heavy"], "'heavy' is no number"),
        (["--text", "x", "--to", "notes"], "did you mean 'note'"),
        (["--text", "x", "--where", "heat >"], "expected a value"),
    ],
)
def test_what_is_refused(run: Run, index: Path, words: list[str], says: str) -> None:
    done = run("search", index, *words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_rows_come_and_go(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    assert run("index", model, table, "--out", tmp_path / "idx", "--quiet").code == 0
    again = run("index", model, table, "--out", tmp_path / "idx")
    assert (again.code, "something already" in again.err) == (2, True)
    assert run("index", model, table, "--out", tmp_path / "idx", "--add", "--json").json["rows"] == 120
    assert run("index", model, "--out", tmp_path / "idx", "--delete", "0", "--delete", "119", "--json").json["deleted"] == 2
    for words, says in (
        ([table, "--update"], "only numbers"),
        ([table, "--delete", "1"], "no TABLE"),
        ([], "TABLE to index"),
        ([table, "--add", "--approximate"], "chosen when an index is made"),
        (["--delete", "0"], "no row with the key '0'"),
    ):
        done = run("index", model, *words, "--out", tmp_path / "idx")
        assert (done.code, done.out) == (2, "")
        assert says in done.err


def test_another_model_is_refused(run: Run, model: Path, table: Path, index: Path, tmp_path: Path) -> None:
    from tests.cli.tables import QUICK

    assert run("fit", table, "--target", "kind", "--split", "split", "--out", tmp_path / "m", "--seed", "7", *QUICK).code == 0
    done = run("search", index, "--row", "1", "--model", tmp_path / "m")
    assert (done.code, done.out) == (2, "")
    assert "another model" in done.err


def test_a_correction_comes_from_a_recipe_of_an_index(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    assert run("index", model, table, "--out", tmp_path / "a", "--quiet").code == 0
    done = run("index", model, table, "--out", tmp_path / "b", "--recipe", "invgc", "--set", "index.correction.rate=0.2", "--quiet")
    assert done.code == 0, done.err
    plain, corrected = (run("search", tmp_path / name, "--row", "3", "-k", "5", "--json").json["hits"] for name in "ab")
    assert [h["score"] for h in plain] != [h["score"] for h in corrected]
    for words, says in (
        (["--set", "index.correction.rate=0.2"], "name one with --recipe"),
        (["--recipe", "early-fusion"], "early-fusion"),
        (["--recipe", "invgc", "--approximate"], "searched exactly"),
        (["--recipe", "invgc", "--set", "index.correction.rate=-1"], "rate"),
    ):
        done = run("index", model, table, "--out", tmp_path / "c", *words)
        assert (done.code, done.out) == (2, "")
        assert says in done.err
        assert not (tmp_path / "c").exists()
