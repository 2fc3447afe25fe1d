"""What the documentation shows works: Python runs, YAML loads, every command is understood."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from unisono.cli.main import VERBS, Parser
from unisono.recipe import KEYS, load_recipe

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
PLACES = pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(path.read_text(encoding="utf-8")) if language in languages]


def commands(path: Path) -> Iterator[list[str]]:
    for block in blocks(path, "sh"):
        for line in block.splitlines():
            part = re.split(r" > | \| ", line.split("|")[-1].strip())[0]
            if part.startswith("unisono "):
                yield shlex.split(part, comments=True)[1:]


@PLACES
def test_every_command_is_understood(path: Path) -> None:
    import importlib

    for verb, *words in commands(path):
        assert verb in VERBS
        parser = Parser(prog=verb, allow_abbrev=False, exit_on_error=False)
        importlib.import_module(f"unisono.cli.{verb}").add_arguments(parser)
        assert parser.parse_args(words) is not None


@PLACES
def test_every_recipe_loads(path: Path, tmp_path: Path) -> None:
    for text in blocks(path, "yaml"):
        content = yaml.safe_load(text)
        assert isinstance(content, dict)
        if set(content) <= set(KEYS):
            (tmp_path / "shown.yaml").write_text(text, encoding="utf-8")
            assert load_recipe(str(tmp_path / "shown.yaml"))["trunk"]


def ran(code: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    rows = [f"{k % 7 + 3 * (k % 2)},{('a calm old cat', 'a wild young dog')[k % 2]} {k % 13},{('yes', 'no')[k % 2]}" for k in range(80)]
    (tmp_path / "pets.csv").write_text("\n".join(["age,story,adopted", *rows]) + "\n")
    (tmp_path / "new.csv").write_text("\n".join(["age,story", "3,a calm cat", ",", "8,"]) + "\n")
    small = "settings=['width=16', 'train.steps=5'], progress=False"
    shown = blocks(ROOT / "README.md", "python")
    assert shown
    ran("\n".join(shown).replace('target="adopted")', f'target="adopted", {small})'), tmp_path)
    assert (tmp_path / "pets-model" / "model.safetensors").is_file()


def test_the_tutorials_python_runs(tmp_path: Path) -> None:
    ran("\n".join(blocks(ROOT / "docs" / "pages" / "tutorial.md", "python")), tmp_path)
    assert (tmp_path / "plants.csv").is_file()


def test_what_contributing_shows_works(tmp_path: Path) -> None:
    text = "\n".join(blocks(ROOT / "CONTRIBUTING.md", "python"))
    (tmp_path / "mine.yaml").write_text(blocks(ROOT / "CONTRIBUTING.md", "yaml")[0])
    trial = """
import pyarrow as pa, unisono
rng = np.random.default_rng(0)
kind = np.arange(60) % 2
vectors = [(rng.normal(size=4) + k).tolist() if j % 9 else None for j, k in enumerate(kind)]
table = pa.table({"v": vectors, "price": kind + rng.normal(size=60) / 9})
settings = ["tokens.vector=line(scale=0.5)", "train.steps=3", "width=16"]
model = unisono.fit(table, target={"price": "amount"}, recipe="mine.yaml", settings=settings, columns={"v": "vector"}, progress=False)
assert model.predict(table).num_rows == 60
guess = ColourModality().detect(ColumnSample("c", pa.string(), pa.array(["#102030"]), ["#102030"]))
assert guess is not None
decoded = ColourModality().decode("#ff0000", Column("c", "category", "table", 0), Context())
assert decoded.tolist() == [1, 0, 0]
"""
    ran(text + trial, tmp_path)


def test_the_search_pages_commands_and_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.cli.tables import QUICK, picture, write_csv
    from unisono.cli.main import main

    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cat.png", "dog.png")):
        Path(name).write_bytes(picture(number))

    def pets(first: int, n: int) -> dict[str, list[object]]:
        rows = range(first, first + n)
        return {
            "id": [f"K{k}" for k in rows],
            "age": [k % 7 for k in rows],
            "colour": [("red", "grey", "black")[k % 3] for k in rows],
            "story": [f"{('a calm old cat', 'a wild young dog')[k % 2]} number {k * 7919}" for k in rows],
            "photo": [("cat.png", "dog.png")[k % 2] for k in rows],
            "adopted": [("yes", "no")[k % 2] for k in rows],
        }

    for name, first, count in (("pets.csv", 0, 80), ("new.csv", 100, 5), ("changed.csv", 3, 4)):
        write_csv(Path(name), pets(first, count))
    page = ROOT / "docs" / "pages" / "search.md"
    for words in commands(page):
        assert main([*words, *QUICK, "--column", "story=text"] if words[0] == "fit" else words) == 0, words
    assert "rank" in capsys.readouterr().out
    Path("pets-index").rename("first-index")
    ran("\n".join(blocks(page, "python")), tmp_path)
