"""Digits, and the sets of the data folder where it is present."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unisono import data
from unisono.core.errors import ConfigError, TableError
from unisono.data.arrays import UCR, read_ts


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return data.data_folder()
    except TableError:
        pytest.skip("no data folder: set UNISONO_DATA")


def test_digits_are_the_pictures_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    table, bunch = data.digits(), datasets.load_digits()
    first = np.asarray(Image.open(io.BytesIO(table["image"][3].as_py())))
    assert (np.round(first / 255 * 16) == bunch.images[3]).all()
    assert table["digit"].to_pylist() == bunch.target.tolist()


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNISONO_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(TableError, match=r"nowhere.*UNISONO_DATA"):
        data.mfeat()
    with pytest.raises(TableError, match=r"mfeat\.npz"):
        data.mfeat(folder=tmp_path)


def test_sets_are_found_by_name() -> None:
    assert data.load("shapes", rows=3).equals(data.shapes(3))
    assert set(data.names()) >= {"shapes", "digits", "av_digits", "planetoid"}
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        data.load("digit")
    with pytest.raises(ConfigError, match="no option"):
        data.load("shapes", row=3)


def test_a_ts_file_is_read_as_time_by_channel(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text("# note\n@classLabel true x\n@data\n1,2,3:4,?,6:x\n7:8:y\n")
    cases, labels = read_ts(tmp_path / "a.ts")
    assert labels == ["x", "y"]
    assert np.array_equal(cases[0], [[1, 4], [2, np.nan], [3, 6]], equal_nan=True)
    assert cases[1] == [[7, 8]]
    (tmp_path / "b.ts").write_text("@data\n1,zwei:x\n")
    with pytest.raises(TableError, match="line 2"):
        read_ts(tmp_path / "b.ts")


def test_av_digits_pairs_each_recording_once_with_its_digit(folder: Path) -> None:
    table, digits = data.av_digits("theo", seed=1, folder=folder), data.mnist("all", folder=folder)
    assert table["sound"].equals(data.fsdd(folder=folder)["sound"])
    assert len(set(table["image"].to_pylist())) == table.num_rows
    origin = dict(zip(digits["image"].to_pylist(), zip(digits["digit"].to_pylist(), digits["split"].to_pylist(), strict=True), strict=True))
    for row in table.select(["image", "digit", "split", "speaker"]).to_pylist():
        assert origin[row["image"]] == (row["digit"], row["split"])
        assert (row["split"] == "test") == (row["speaker"] == "theo")
    assert table.equals(data.av_digits("theo", seed=1, folder=folder))
    assert not table.equals(data.av_digits("theo", seed=2, folder=folder))


def test_the_other_sets_have_their_documented_shapes(folder: Path) -> None:
    assert data.emoji(folder=folder).num_rows == 1906
    assert data.emoji_skin_tones(folder=folder).num_rows == 1890
    views = data.mfeat(folder=folder)
    assert [views.schema.field(v).type.list_size for v in ("fac", "fou", "kar", "mor", "pix", "zer")] == [216, 76, 64, 6, 240, 47]
    assert views["split"].to_pylist().count("test") == 600
    sizes = {name: data.ucr(name, folder=folder)["split"].to_pylist().count("train") for name in UCR}
    assert sizes == {"ArrowHead": 36, "BasicMotions": 40, "GunPoint": 50, "ItalyPowerDemand": 67, "JapaneseVowels": 270, "OSULeaf": 200}
    assert {len(c[0]) for c in data.ucr("JapaneseVowels", folder=folder)["series"].to_pylist()} == {12}
    assert data.ett("ETTh2", folder=folder)["split"].to_pylist().count("val") == 2880


def test_planetoid_is_one_graph(folder: Path) -> None:
    row = data.planetoid("citeseer", folder=folder)
    graph = row["graph"][0]
    assert (len(graph["nodes"]), len(graph["nodes"][0]), len(graph["edges"])) == (3327, 3703, 4552)
    with np.load(folder / "planetoid" / "citeseer.npz") as z:
        assert np.asarray(graph["nodes"].values.flatten()).sum() == z["x_data"].sum()
    assert row["y"][0].as_py().count(None) == 15
    assert row["split"][0].as_py().count("train") == 120
