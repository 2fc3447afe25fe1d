"""What is refused: exit code 2, a message that names the thing and the way out, nothing on stdout, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from tests.cli.tables import QUICK, Run, picture, weather, write_csv, write_wav


def refused(run: Run, *words: object, says: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.code == 2, done.err
    assert done.out == ""
    for part in says:
        assert part.lower() in done.err.lower(), done.err
    assert "Traceback" not in done.err


def fit_refused(run: Run, table: object, out: Path, *words: object, says: tuple[str, ...], target: str = "kind") -> None:
    refused(run, "fit", table, "--target", target, "--out", out, *QUICK, *words, says=says)
    assert not out.exists() or not any(out.iterdir()), "a refused fit leaves nothing behind"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ("empty",)),
        ("heat,note,kind\n", ("no row",)),
        ("heat,note,kind\n1.5,a word or two,calm\n", ("1 distinct row",)),
        ("heat,heat,kind\n" + "1,2,calm\n2,3,wild\n" * 20, ("heat", "twice")),
    ],
    ids=["empty", "header only", "one row", "duplicate column"],
)
def test_tables_that_hold_nothing_to_learn(run: Run, tmp_path: Path, text: str, says: tuple[str, ...]) -> None:
    (tmp_path / "t.csv").write_text(text)
    fit_refused(run, tmp_path / "t.csv", tmp_path / "m", says=says)


def test_one_class(run: Run, tmp_path: Path) -> None:
    columns = weather()
    columns["kind"] = ["calm"] * len(columns["kind"])
    fit_refused(run, write_csv(tmp_path / "t.csv", columns), tmp_path / "m", says=("kind", "calm"))


def test_an_absent_table_and_an_absent_column(run: Run, table: Path, tmp_path: Path) -> None:
    fit_refused(run, tmp_path / "weathr.csv", tmp_path / "m", says=("weathr.csv",))
    fit_refused(run, table, tmp_path / "m", target="kinds", says=("kinds", "did you mean 'kind'"))
    for option in ("--split", "--key", "--group", "--time", "--drop"):
        fit_refused(run, table, tmp_path / "m", option, "nowhere", says=("nowhere",))
    fit_refused(run, table, tmp_path / "m", "--column", "nowhere=image", says=("nowhere",))


def test_a_split_value_that_is_none(run: Run, tmp_path: Path) -> None:
    columns = weather()
    columns["split"][7] = "holdout"
    fit_refused(run, write_csv(tmp_path / "t.csv", columns), tmp_path / "m", "--split", "split", says=("holdout", "split"))


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BAD = {
    "truncated": ("bad.png", picture(3)[:-60], "truncated"),
    "missing": ("gone.png", None, "gone.png"),
    "bomb": ("bomb.png", _bomb(), "pixels"),
}


def _gallery(folder: Path, name: str, content: bytes | None) -> Path:
    columns = {k: v[:24] for k, v in weather().items() if k in {"heat", "kind"}}
    files = [f"p{j}.png" for j in range(24)]
    for j, file in enumerate(files):
        (folder / file).write_bytes(picture(j))
    files[5] = name
    if content is not None:
        (folder / name).write_bytes(content)
    return write_csv(folder / "gallery.csv", {"photo": files, **columns})


@pytest.mark.parametrize("what", BAD)
def test_unreadable_cells_stop_or_are_counted(run: Run, tmp_path: Path, what: str) -> None:
    name, content, reason = BAD[what]
    path = _gallery(tmp_path, name, content)
    fit_refused(run, path, tmp_path / "m", "--column", "photo=image", says=("photo", "row", reason, "--bad-cells missing"))
    done = run("fit", path, "--target", "kind", "--out", tmp_path / "m", *QUICK, "--column", "photo=image", "--bad-cells", "missing")
    assert done.code == 0, done.err
    listed = (tmp_path / "m" / "bad_cells.csv").read_text()
    assert "photo" in listed
    assert len(listed.splitlines()) == 2


@pytest.mark.parametrize(
    "content", [b"this is a text file, not a sound\n", b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0\x80>\0\0\2\0\x10\0data\0\0\0\0"]
)
def test_a_sound_that_is_none(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    files = [write_wav(tmp_path / f"s{j}.wav", 200 + 10 * j).name for j in range(24)]
    files[4] = "bad.wav"
    path = write_csv(tmp_path / "t.csv", {"sound": files, **{k: v[:24] for k, v in weather().items() if k in {"heat", "kind"}}})
    fit_refused(run, path, tmp_path / "m", "--column", "sound=audio", says=("sound", "row 4", "--bad-cells missing"))


def test_undecodable_text_names_the_way_out(run: Run, tmp_path: Path) -> None:
    text = "heat,note,kind\n" + "".join(f"{j},Grüße und Küsse {j},{'calm' if j % 2 else 'wild'}\n" for j in range(30))
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    fit_refused(run, tmp_path / "t.csv", tmp_path / "m", says=("utf-8", "--encoding"))
    assert run("fit", tmp_path / "t.csv", "--target", "kind", "--out", tmp_path / "m", *QUICK, "--encoding", "latin-1").code == 0


@pytest.mark.parametrize(("given", "says"), [("1s", ("budget", "need")), ("soon", ("soon", "90s")), ("-5m", ("-5m", "90s"))])
def test_a_budget_that_cannot_be_kept(run: Run, table: Path, tmp_path: Path, given: str, says: tuple[str, ...]) -> None:
    words = [w for w in QUICK if w != "train.steps=3"]
    words = [w for j, w in enumerate(words) if not (w == "--set" and words[j + 1 : j + 2] == ["--set"])]
    refused(run, "fit", table, "--target", "kind", "--out", tmp_path / "m", *words, f"--budget={given}", says=says)


def test_a_folder_that_holds_something_is_left_alone(run: Run, table: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "letter.txt").write_text("dear")
    refused(run, "fit", table, "--target", "kind", "--out", tmp_path / "m", *QUICK, says=("--force", "--resume"))
    assert (tmp_path / "m" / "letter.txt").read_text() == "dear"


def test_a_place_that_cannot_be_written(run: Run, table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(run, "fit", table, "--target", "kind", "--out", tmp_path / "file" / "m", *QUICK, says=("file",))
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        refused(run, "fit", table, "--target", "kind", "--out", tmp_path / "locked" / "m", *QUICK, says=("locked",))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("schema.json", lambda b: b[:-30], ("schema.json",)),
        ("schema.json", lambda b: b.replace(b'"format"', b'"form"'), ("schema.json",)),
        ("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), ("model.safetensors",)),
        ("model.safetensors", lambda b: b[:50], ("model.safetensors",)),
        ("recipe.yaml", lambda b: b"trunk: [" + b, ("recipe.yaml",)),
        ("recipe.yaml", None, ("recipe.yaml",)),
    ],
)
def test_damaged_folders(run: Run, model: Path, table: Path, tmp_path: Path, name: str, change: object, says: tuple[str, ...]) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    if callable(change):
        (folder / name).write_bytes(change((folder / name).read_bytes()))
    else:
        (folder / name).unlink()
    refused(run, "predict", folder, table, says=says)


def test_a_folder_of_a_newer_version(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    schema = json.loads((tmp_path / "m" / "schema.json").read_text())
    key = next(k for k in schema if "format" in k)
    schema[key] = 999
    (tmp_path / "m" / "schema.json").write_text(json.dumps(schema))
    refused(run, "predict", tmp_path / "m", table, says=("999", "newer"))
    refused(run, "predict", tmp_path / "nowhere", table, says=("nowhere",))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budgett", "5m"], ("--budgett", "did you mean '--budget'")),
        (["--recipe", "late-fuson"], ("late-fuson", "late-fusion")),
        (["--column", "note=txt"], ("txt", "text")),
        (["--column", "note"], ("note", "NAME=")),
        (["--set", "train.stepz=4"], ("stepz", "steps")),
        (["--set", "widht=8"], ("widht", "width")),
        (["--set", "tokens.text=subword"], ("subword", "subwords")),
        (["--bad-cells", "maybe"], ("bad-cells", "maybe")),
        (["--seed", "x"], ("seed",)),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_words_that_do_not_exist(run: Run, table: Path, tmp_path: Path, words: list[str], says: tuple[str, ...]) -> None:
    fit_refused(run, table, tmp_path / "m", *words, says=says)


def test_an_unknown_verb_and_a_missing_argument(run: Run) -> None:
    refused(run, "predikt", says=("predikt", "did you mean 'predict'"))
    refused(run, "fit", says=("TABLE", "--help"))
    refused(run, "recipes", "early", says=("early",))


@pytest.mark.parametrize("where", ["split = ", "nowhere = 3", "(split = test", "split like t", "__import__('os')"])
def test_filters_that_are_none(run: Run, model: Path, table: Path, where: str) -> None:
    refused(run, "evaluate", model, table, "--where", where, "--quiet", says=("filter" if where[0] != "n" else "nowhere",))
