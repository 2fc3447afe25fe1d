"""An index in a folder: what it finds, keeps, refuses; adding, replacing, deleting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.retrieve.stub import Stub, picture, things
from unisono.core.errors import FilterError, IndexFolderError, QueryError, ResourceError, SchemaError, Unreadable, UserError
from unisono.retrieve.index import Index
from unisono.retrieve.make import build_index
from unisono.retrieve.store import only_writer


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return build_index(Stub(), things(), tmp_path / "idx")


def keys(hits: Any) -> list[Any]:
    return [h.key for h in hits]


def colours(hits: Any) -> set[str]:
    return {h.fields["colour"] for h in hits}


def test_a_text_finds_pictures_and_a_picture_finds_texts(index: Index) -> None:
    assert colours(index.search(text="red", to="photo", k=6)) == {"red"}
    assert colours(index.search(image=picture("blue", 99), to="note", k=6)) == {"blue"}
    hits = index.search(text=["green", "a green one"], k=3).to_json()
    assert [h["rank"] for h in hits["hits"]] == [1, 2, 3]
    assert hits["hits"][0]["score"] >= hits["hits"][1]["score"]
    json.dumps(hits, allow_nan=False)


def test_scores_are_cosines_as_float64_finds_them(index: Index) -> None:
    vectors, present = index.vectors("row")
    query = np.asarray(vectors[4], np.float64)
    best = np.argsort(-(np.asarray(vectors, np.float64) @ query), kind="stable")
    expected = [int(r) for r in best if present[r] and r != 4][:5]
    hits = index.search(row="t004", k=5)
    assert [h.row for h in hits] == expected
    assert [h.score for h in hits] == pytest.approx([float(vectors[r].astype(np.float64) @ query) for r in expected], abs=1e-12)


def test_rows_that_are_asked_with_are_no_hits(index: Index) -> None:
    found = keys(index.search(row=["t003", "t006"], minus={"row": "t004"}, k=40))
    assert not {"t003", "t004", "t006"} & set(found)
    assert len(found) == len(set(found)) == 30 - 3 - index.without_vector
    assert len(index.search(text="red", k=10**12)) == 28


def test_rows_without_a_cell_are_never_found_but_counted(index: Index) -> None:
    assert index.without_vector == 2
    told = index.search(text="red", k=100).to_json()["query"]
    assert (told["searched"], told["without_vector"]) == (28, 2)
    assert "t029" not in keys(index.search(text="red", k=100))
    with pytest.raises(QueryError, match="t029"):
        index.search(row="t029")


def test_addition_subtraction_and_weights(index: Index) -> None:
    both = index.search(query=[{"note": "red"}, {"note": "blue"}], to="photo", k=12)
    assert colours(both) == {"red", "blue"}
    mostly = index.search(text="red", image=picture("blue"), weights={"text": 0.05, "photo": 1}, to="photo", k=3)
    assert colours(mostly) == {"blue"}
    away = index.search(query=[{"note": "red"}, {"note": "blue"}], minus={"note": "red"}, k=5)
    assert colours(away) == {"blue"}
    vector, _ = index.vector(_asked(index, text="red", minus={"photo": picture("blue")}, weights={"photo": 0.5}))
    red, blue = _unit(index, text="red"), _unit(index, image=picture("blue"))
    expected = red - 0.5 * blue
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def _asked(index: Index, **given: Any) -> Any:
    from unisono.retrieve.query import read_query

    short = {word: given.pop(word, None) for word in ("text", "image", "audio")}
    return read_query(index.columns, index.sides, short=short, **given)


def _unit(index: Index, **given: Any) -> Any:
    return index.vector(_asked(index, **given))[0]


def test_a_filter_leaves_the_best_of_what_it_chooses(index: Index) -> None:
    hits = index.search(text="red", where="price < 4 and colour = red", k=20)
    assert hits.hits and colours(hits) == {"red"}
    assert all(h.fields["price"] < 4 for h in hits)
    everything = [h.key for h in index.search(text="red", k=100) if (h.fields["price"] or 9) < 4 and h.fields["colour"] == "red"]
    assert keys(hits) == everything
    assert len(index.search(text="red", where="colour = purple")) == 0


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({}, QueryError, "empty"),
        ({"text": ""}, QueryError, "empty"),
        ({"text": "   "}, QueryError, "says nothing"),
        ({"minus": {"note": "red"}}, QueryError, "empty"),
        ({"text": "red", "k": 0}, QueryError, "at least 1"),
        ({"audio": b"x"}, QueryError, "no audio"),
        ({"query": {"nte": "red"}}, QueryError, "did you mean 'note'"),
        ({"row": "t999"}, QueryError, "no row with the key 't999'"),
        ({"text": "red", "to": "photos"}, QueryError, "did you mean 'photo'"),
        ({"text": "red", "weights": {"image": 1.0}}, QueryError, "no such part"),
        ({"text": "red", "weights": {"text": -1.0}}, QueryError, "at least 0"),
        ({"text": "red", "weights": {"text": float("nan")}}, QueryError, "at least 0"),
        ({"text": "red", "weights": {"text": 0.0}}, QueryError, "cancel out"),
        ({"text": "red", "minus": {"note": "red"}}, QueryError, "cancel out"),
        ({"image": b"this is no picture"}, QueryError, "cannot be read as image"),
        ({"image": "nowhere.png"}, QueryError, "does not exist"),
        ({"image": "."}, QueryError, "no file"),
        ({"text": "red", "where": "price <"}, FilterError, "expected a value"),
        ({"text": "red", "where": "prise < 3"}, FilterError, "did you mean 'price'"),
        ({"text": "red", "where": "__import__('os')"}, FilterError, "filter"),
    ],
)
def test_what_cannot_be_asked(index: Index, asked: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        index.search(**asked)


def test_a_file_that_is_too_large_is_not_read(index: Index, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(QueryError, match=r"1,073,741,824 bytes"):
        index.search(image=tmp_path / "large.png")


def test_several_columns_of_a_kind_have_to_be_named(tmp_path: Path) -> None:
    stub = Stub()
    index = build_index(stub, things(), tmp_path / "idx")
    index.columns = {**index.columns, "title": "text"}
    with pytest.raises(QueryError, match="several columns of text: note, title"):
        index.search(text="red")


def test_an_index_without_an_aligned_space_finds_by_row_alone(tmp_path: Path) -> None:
    index = build_index(Stub(aligned=False), things(), tmp_path / "idx")
    assert len(index.search(row="t003", k=4)) == 4
    for asked in ({"text": "red"}, {"row": "t003", "to": "photo"}, {"row": "t003", "minus": {"note": "red"}}):
        with pytest.raises(QueryError, match=r"unisono fit TABLE --align"):
            index.search(**asked)


def test_another_model_is_refused_and_none_finds_by_row(index: Index) -> None:
    with pytest.raises(IndexFolderError, match="another model"):
        Index(index.folder, embedder=Stub(fingerprint="0" * 64))
    alone = Index(index.folder)
    assert keys(alone.search(row="t003", k=3)) == keys(index.search(row="t003", k=3))
    with pytest.raises(QueryError, match="--model DIR"):
        alone.search(text="red")
    with pytest.raises(IndexFolderError, match="model that made"):
        alone.add(things(2, 50))


def test_rows_are_added_replaced_and_deleted(index: Index) -> None:
    assert index.add(things(6, 100)) == 6
    assert (index.size, index.rows) == (36, 36)
    assert "t102" in keys(index.search(text="green" if 102 % 3 == 1 else "red", k=40))
    with pytest.raises(SchemaError, match=r"row 0: the key 't100' is in the index already"):
        index.add(things(2, 100))
    changed = things(30).slice(3, 1).set_column(1, "note", pa.array(["a blue thing"])).set_column(2, "photo", pa.array([picture("blue")]))
    assert index.update(changed) == 1
    assert index.size == 36
    assert "t003" not in keys(index.search(text="red", to="photo", k=8))
    assert index.take(["t003"]).column("note").to_pylist() == ["a blue thing"]
    with pytest.raises(QueryError, match="t999"):
        index.update(changed.set_column(0, "id", pa.array(["t999"])))
    assert index.delete(["t003", "t004"]) == 2
    with pytest.raises(QueryError, match="t003"):
        index.search(row="t003")
    again = Index(index.folder, embedder=Stub(), verify=True)
    assert again.size == index.size == 34
    assert keys(again.search(text="blue", k=30)) == keys(index.search(text="blue", k=30))


def test_an_index_of_which_much_was_deleted_is_written_anew(index: Index) -> None:
    index.add(things(3, 100))
    before = {h.key: h.score for h in index.search(text="blue", k=50) if h.key >= "t012"}
    (index.folder / "notes.txt").write_text("mine")
    index.delete([f"t{k:03d}" for k in range(12)])
    assert (index.size, index.rows) == (21, 21)
    assert (index.folder / "notes.txt").exists()
    assert {p.name for p in index.folder.glob("*-*")} == set(index._content["files"]), "no file is left of the old index"
    assert {h.key: h.score for h in index.search(text="blue", k=50)} == pytest.approx(before)
    Index(index.folder, verify=True)
    assert index.add(things(2, 200)) == 2
    with pytest.raises(QueryError, match="all rows"):
        index.delete(index.keys.to_pylist())


def test_a_refused_change_changes_nothing(index: Index) -> None:
    before = keys(index.search(text="red", k=50))
    odd = things(2, 300)
    for table, says in (
        (odd.drop(["colour"]), "column 'colour'"),
        (odd.drop(["id"]), "column 'id'"),
        (odd.set_column(0, "id", pa.array(["a", "a"])), "column 'id': the rows 0 and 1 have the same key 'a'"),
        (odd.set_column(0, "id", pa.array(["a", None])), "row 1, column 'id': the key is missing"),
        (odd.set_column(4, "colour", pa.array([1, 2])), "column 'colour' holds int64"),
    ):
        with pytest.raises(SchemaError, match=says):
            index.add(table)
    again = Index(index.folder, embedder=Stub(), verify=True)
    assert keys(again.search(text="red", k=50)) == before
    assert again.add(things(2, 300)) == 2, "what a refused change left behind is written over"
    Index(index.folder, verify=True)


def test_rows_without_keys_are_numbered(tmp_path: Path) -> None:
    index = build_index(Stub(key=None), things(6).drop(["id"]), tmp_path / "idx")
    assert index.key is None
    assert keys(index.search(row="1", k=1)) == keys(index.search(row=1, k=1)) == [4]
    index.add(things(3, 1).drop(["id"]))
    assert index.keys.to_pylist() == list(range(9))
    with pytest.raises(SchemaError, match="only numbers"):
        index.update(things(1).drop(["id"]))
    with pytest.raises(QueryError, match="keys are numbers"):
        index.find(["one"])


def test_one_item_and_all_items_alike(tmp_path: Path) -> None:
    one = build_index(Stub(), things(3).slice(1, 1), tmp_path / "one")
    assert keys(one.search(text="red")) == ["t001"]
    assert keys(one.search(row="t001")) == []
    alike = pa.concat_tables([things(3).slice(1, 1)] * 40).set_column(0, "id", pa.array([f"s{k:02d}" for k in range(40)]))
    index = build_index(Stub(), alike, tmp_path / "alike")
    assert keys(index.search(text="red", k=3)) == ["s00", "s01", "s02"]


def test_a_table_without_any_vector_and_a_folder_that_is_taken(tmp_path: Path) -> None:
    empty = pa.table({"id": ["a", "b"], "note": pa.array([None, None], pa.string()), "colour": ["red", "blue"]})
    with pytest.raises(UserError, match="no row has a vector"):
        build_index(Stub(), empty, tmp_path / "idx")
    assert list(tmp_path.iterdir()) == []
    build_index(Stub(), things(), tmp_path / "idx")
    with pytest.raises(UserError, match="something already"):
        build_index(Stub(), things(), tmp_path / "idx")


def _change(index: Index, **values: Any) -> None:
    path = index.folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_damaged_and_newer_folders_are_refused(index: Index, tmp_path: Path) -> None:
    good = (index.folder / "index.json").read_text()
    vectors = index.folder / "side1-0.f32"
    data = vectors.read_bytes()
    for spoil, says in (
        (lambda: vectors.write_bytes(data[:-4]), "956 bytes, fewer than the 960"),
        (lambda: vectors.write_bytes(data[:-1] + b"?"), "its content is not what"),
        (lambda: vectors.unlink(), r"side1-0.f32 is missing"),
        (lambda: _change(index, format=99), "newer version"),
        (lambda: _change(index, format="x"), "no index"),
        (lambda: _change(index, files={"../m": []}), "malformed"),
        (lambda: _change(index, dead_file="../../secret"), "does not record"),
        (lambda: _change(index, rows=31), "malformed|damaged"),
        (lambda: _change(index, rows=29), "malformed"),
        (lambda: (index.folder / "index.json").write_text("{"), "not valid JSON"),
        (lambda: (index.folder / "index.json").unlink(), "index.json is missing"),
    ):
        spoil()
        with pytest.raises(IndexFolderError, match=says):
            Index(index.folder)
        vectors.write_bytes(data)
        (index.folder / "index.json").write_text(good)
    with pytest.raises(IndexFolderError, match="no such index"):
        Index(tmp_path / "nowhere")
    Index(index.folder)


def test_one_process_changes_an_index_at_a_time(index: Index) -> None:
    with only_writer(index.folder), pytest.raises(ResourceError, match="another process"):
        index.delete(["t001"])


def test_fields_and_media(index: Index, tmp_path: Path) -> None:
    assert index.fields.names == ["id", "note", "photo", "price", "colour"]
    assert index.media(1, "photo") == picture("green", 1)
    for row, column in ((0, "photo"), (1, "nothing"), (1, "price")):
        with pytest.raises(Unreadable):
            index.media(row, column)
    (tmp_path / "media").mkdir()
    for k in range(3):
        (tmp_path / "media" / f"{k}.png").write_bytes(picture("red", k))
    (tmp_path / "t.csv").write_text("id,note,photo,price\n" + "".join(f"{k},a red thing,media/{k}.png,{k}.5\n" for k in range(3)))
    index = build_index(Stub(), tmp_path / "t.csv", tmp_path / "csv", fields=["photo", "price"])
    assert index.fields.names == ["photo", "price"]
    assert index.take([1]).to_pylist() == [{"photo": "media/1.png", "price": 1.5}]
    assert index.media(1, "photo") == picture("red", 1)
    assert (
        keys(index.search(text="red", where="price > 1", k=9))
        and index.search(text="red", where="price > 1", k=9).hits[0].fields["price"] > 1
    )
    with pytest.raises(SchemaError, match="did you mean 'price'"):
        build_index(Stub(), things(), tmp_path / "no", fields=["prise"])
    small = build_index(Stub(), things(), tmp_path / "small", max_media=10)
    assert small.table(["photo"]).column("photo").null_count == 30
    assert colours(small.search(image=picture("red"), to="photo", k=3)) == {"red"}


def test_an_index_in_memory_leaves_nothing_behind() -> None:
    index = build_index(Stub(), things())
    folder = index.folder
    assert folder.is_dir()
    del index
    assert not folder.exists()


def test_an_index_that_keeps_no_column(tmp_path: Path) -> None:
    index = build_index(Stub(), things(), tmp_path / "idx", fields=[])
    assert index.search(text="red", to="photo", k=1).to_json()["hits"][0]["fields"] == {}
    index.delete([f"t{k:03d}" for k in range(10)])
    assert (index.size, index.rows) == (20, 20)
    with pytest.raises(FilterError, match="no column 'price'"):
        index.search(text="red", where="price < 3")


def test_a_correction_is_what_its_formula_says_on_the_rows_of_the_index(index: Index, tmp_path: Path) -> None:
    from unisono.retrieve.hubness import corrections

    corrected = build_index(Stub(), things(), tmp_path / "dbnorm", correction="dbnorm(dynamic=false)")
    vectors, present = index.vectors("photo")
    rows, (notes, with_note), (tables, with_table) = np.flatnonzero(present), index.vectors("note"), index.vectors("table")
    bank = np.concatenate([notes[with_note], tables[with_table]])
    by = corrections.build("dbnorm(dynamic=false)").fit(vectors[rows], query_bank=bank, gallery_bank=vectors[rows])
    red = _unit(index, text="red")
    scores = by.gallery.astype(np.float64) @ by.queries(red[None])[0].astype(np.float64)
    hits = Index(tmp_path / "dbnorm", embedder=Stub()).search(text="red", to="photo", k=6)
    assert [h.row for h in hits] == rows[np.argsort(-scores, kind="stable")[:6]].tolist()
    assert [h.score for h in hits] == pytest.approx(np.sort(scores)[::-1][:6].tolist(), abs=1e-12)
    assert hits.hits != index.search(text="red", to="photo", k=6).hits
    assert "t300" in keys(corrected.search(text="red" if corrected.add(things(3, 300)) else "", k=40))
    still = build_index(Stub(), things(), tmp_path / "still", correction="invgc(rate=0)")
    assert keys(still.search(text="red", to="photo", k=6)) == keys(index.search(text="red", to="photo", k=6))
    with pytest.raises(UserError, match="dbnorm"):
        build_index(Stub(), things(), tmp_path / "no", correction="dbnrom")
    with pytest.raises(UserError, match="searched exactly"):
        build_index(Stub(), things(), tmp_path / "no", correction="dbnorm", approximate=True)
