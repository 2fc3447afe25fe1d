"""Tables of every format are read as they are, and refused with the reason where they cannot be."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import TableError
from unisono.table import csv_format
from unisono.table.csv_format import open_csv, sniff_delimiter
from unisono.table.read import open_table

REPOSITORY = Path(__file__).parents[2]


def whole(data, **options) -> pa.Table:
    return pa.Table.from_batches(list(open_table(data, **options).batches()))


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_keeps_null_and_empty_apart(tmp_path):
    table = whole(write(tmp_path, "a.csv", 'a,b\n1,""\n,x\nNA,"NA"\n'))
    assert table.to_pydict() == {"a": ["1", None, "NA"], "b": ["", "x", "NA"]}
    assert all(t == pa.large_string() for t in table.schema.types)


def test_null_words_add_to_every_format(tmp_path):
    assert whole(write(tmp_path, "a.csv", 'a,b\nNA,"-"\nx,\n'), null_words=["NA", "-"]).to_pydict() == {"a": [None, "x"], "b": [None, None]}
    assert whole(write(tmp_path, "a.jsonl", '{"a": "NA"}\n{"a": "b"}\n'), null_words=["NA"]).to_pydict() == {"a": [None, "b"]}
    assert whole({"a": ["NA", "b"], "n": [1, 2]}, null_words=["NA"]).to_pydict() == {"a": [None, "b"], "n": [1, 2]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", {"a": ["1"], "b": ["2"]}),
        (b'a,b\n"x\ny","p,""q"""\n', {"a": ["x\ny"], "b": ['p,"q"']}),
        (b"a;b\n1,5;2\n", {"a": ["1,5"], "b": ["2"]}),
        (b"a\tb\n1\t2\n", {"a": ["1"], "b": ["2"]}),
        (b"a|b\n1|2\n", {"a": ["1"], "b": ["2"]}),
        (b"a,b\r1,2\r3,4\r", {"a": ["1", "3"], "b": ["2", "4"]}),
        (b"a\n1\n\n2\n", {"a": ["1", None, "2"]}),
        (b"\n\na,b\n\n1,2\n\n", {"a": ["1"], "b": ["2"]}),
        (b"a,b\n1,2", {"a": ["1"], "b": ["2"]}),
        (b'a,b\n5" x,2\n6" y,3\n', {"a": ['5" x', '6" y'], "b": ["2", "3"]}),
        ("a,b\n1,é\n".encode("utf-16"), {"a": ["1"], "b": ["é"]}),
        (b'"x\ny",b\n1,2\n', {"x\ny": ["1"], "b": ["2"]}),
    ],
)
def test_csv_dialects(tmp_path, content, expected):
    assert whole(write(tmp_path, "a.csv", content)).to_pydict() == expected


def test_what_was_guessed_is_said(tmp_path):
    assert open_table(write(tmp_path, "a.csv", "a;b\n1;2\n")).notes == ["the columns are separated by semicolon"]
    source = open_table(write(tmp_path, "b.csv", ",a\n0,2\n"))
    assert source.schema.names == ["column_1", "a"]
    assert "column 1 has no name" in source.notes[0]


def test_the_source_knows_its_name_and_folder(tmp_path, monkeypatch):
    write(tmp_path, "a.csv", "a\n1\n")
    monkeypatch.chdir(tmp_path)
    assert (open_table("a.csv").name, open_table("a.csv").root) == ("a.csv", Path())
    assert open_table(tmp_path / "a.csv").root == tmp_path
    assert open_table("a.csv", media_root=Path("/media")).root == Path("/media")
    assert (open_table({"a": [1]}).name, open_table({"a": [1]}).root) == ("table in memory", None)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", ["empty"]),
        ("a.csv", b"\n\n", ["empty"]),
        ("a.csv", b"a,b\n", ["header but no rows"]),
        ("a.csv", b"a,b,a\n1,2,3\n", ["'a' occurs twice", "1 and 3"]),
        ("a.csv", b"a,b\n1,2\n3\n", ["row 1", "1 fields instead of 2"]),
        ("a.csv", b"a,b\n1,2,3\n", ["row 0", "3 fields instead of 2"]),
        ("a.csv", b'a,b\n1,2\n3,"x\n4,5\n', ["quote", "row 1", "never closed"]),
        ("a.csv", "a,b\n1,é\n".encode("latin-1"), ["not utf-8", "byte 6", "line 2", "--encoding"]),
        ("a.csv", b"PK\x03\x04rest", ["Excel", "50 4b 03 04"]),
        ("a.csv", b"\x89PNG\r\n\x1a\n", ["PNG"]),
        ("a.xyz", b"\x00\x01\x02\x03", ["format is unknown", "00 01 02 03"]),
        ("a.parquet", b"PAR1 but not really", ["damaged"]),
        ("a.parquet", b"a,b\n1,2\n", ["no Parquet file"]),
        ("a.arrow", b"ARROW1\0\0garbage", ["damaged"]),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', ["line 2", "not JSON"]),
        ("a.jsonl", b'{"a": 1}\n[1]\n', ["line 2", "list"]),
        ("a.jsonl", b'{"a": 1, "a": 2}\n', ["'a' twice"]),
        ("a.jsonl", b"{}\n", ["no rows"]),
        ("a.json", b"[1, 2]", ["row 0"]),
        ("a.jsonl", b'{"a": "\xff"}\n', ["not utf-8", "line 1", "--encoding"]),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", ["line 1"]),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, name, content, words):
    path = write(tmp_path, name, content)
    with pytest.raises(TableError) as caught:
        whole(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_bad_byte_far_into_the_file_is_placed(tmp_path):
    content = b"a,b\n" + b"1,2\n" * 700_000 + b"3,\xff\n"
    with pytest.raises(TableError, match=rf"byte {len(content) - 2}, on line 700002"):
        whole(write(tmp_path, "a.csv", content))


def test_a_ragged_row_far_into_the_file_is_placed(tmp_path):
    with pytest.raises(TableError, match="row 1500000 "):
        whole(write(tmp_path, "a.csv", b"a,b\n" + b"1,2\n" * 1_500_000 + b"3\n"))


def test_unknown_encodings_and_absent_files(tmp_path):
    with pytest.raises(TableError, match="unknown encoding 'klingon'"):
        open_table(write(tmp_path, "a.csv", "a\n1\n"), encoding="klingon")
    with pytest.raises(TableError, match="no such file"):
        open_table(tmp_path / "none.csv")
    assert whole(write(tmp_path, "b.csv", "a\né\n".encode("cp1252")), encoding="cp1252").to_pydict() == {"a": ["é"]}


def test_cells_longer_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_format, "_BLOCK", 64)
    rows = [("x" * 1000, "a\nb"), ("", '"'), ("é" * 333, ",")] * 3
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    table = whole(write(tmp_path, "a.csv", text.getvalue()))
    assert table.to_pydict() == {"a": [r[0] for r in rows], "b": [r[1] for r in rows]}


@given(
    rows=st.lists(st.tuples(st.text(alphabet='a,"\n\r;é', max_size=6), st.text(alphabet='b,"\n\r', max_size=6)), min_size=1, max_size=30),
    block=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=150, deadline=None)
def test_quoted_csv_round_trips_over_any_block_size(rows, block, end):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([("a", "b"), *rows])
    data = text.getvalue().encode()
    previous, csv_format._BLOCK = csv_format._BLOCK, block
    try:
        raw = open_csv("t", lambda: io.BytesIO(data), delimiter=",")
        table = pa.Table.from_batches(list(raw.opener(4096)))
    finally:
        csv_format._BLOCK = previous
    assert table.to_pydict() == {"a": [r[0] for r in rows], "b": [r[1] for r in rows]}


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data):
    try:
        raw = open_csv("t", lambda: io.BytesIO(data))
        list(raw.opener(4096))
    except TableError:
        pass


def test_sniffing_prefers_the_consistent_separator():
    assert sniff_delimiter("a;b;c\n1,5;2,5;3\n1;2;3,1\n") == ";"
    assert sniff_delimiter('a,b\n"x;y;z",2\n"x;y",3\n') == ","
    assert sniff_delimiter("word\nother\n") == ","


def test_json_lines_unify_types(tmp_path):
    lines = [
        {"n": 1, "mixed": 1, "l": [1], "s": {"a": 1}, "f": float("nan")},
        {"n": 2.5, "mixed": "x", "l": ["y"], "s": {"b": None, "a": "z"}, "big": 2**70},
        {"n": None, "mixed": True, "l": None, "late": b"x".hex()},
    ]
    table = whole(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert table.schema.field("n").type == pa.float64()
    assert table.column("mixed").to_pylist() == ["1", "x", "true"]
    assert table.column("l").to_pylist() == [["1"], ["y"], None]
    assert table.column("s").to_pylist() == [{"a": "1", "b": None}, {"a": "z", "b": None}, None]
    assert table.column("big").to_pylist() == [None, str(2**70), None]
    assert table.column("late").to_pylist() == [None, None, "78"]
    nan = table.column("f").to_pylist()
    assert nan[0] != nan[0] and nan[1:] == [None, None]


def test_json_conflicts_in_a_later_block(tmp_path, monkeypatch):
    monkeypatch.setattr("unisono.table.json_format._CHUNK_ROWS", 2)
    lines = ['{"a": 1}'] * 5 + ['{"a": "x"}', "", '{"b": 2}']
    source = open_table(write(tmp_path, "a.jsonl", "\n".join(lines)))
    assert source.num_rows == 7
    assert pa.Table.from_batches(list(source.batches())).to_pydict() == {"a": ["1"] * 5 + ["x", None], "b": [None] * 6 + [2]}


def test_a_json_array_of_objects(tmp_path):
    assert whole(write(tmp_path, "a.json", '[{"a": 1},\n {"a": null}]')).to_pydict() == {"a": [1, None]}


TYPED = pa.table(
    {
        "d": pa.array(["u", None, "v"]).dictionary_encode(),
        "v": pa.array([b"x", None, b""], pa.binary_view()),
        "m": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "l": pa.array([["a"], None, []], pa.list_(pa.string_view())),
        "n": pa.array([1.5, float("nan"), None]),
    }
)


def test_arrow_files_streams_and_feather(tmp_path):
    for name, opener in (
        ("a.arrow", pa.ipc.new_file),
        ("b.arrow", pa.ipc.new_stream),
        ("c.feather", pa.ipc.new_file),
        ("d", pa.ipc.new_file),
    ):
        with pa.OSFile(str(tmp_path / name), "wb") as file, opener(file, TYPED.schema) as writer:
            writer.write_table(TYPED)
        table = whole(tmp_path / name)
        assert table.column("d").to_pylist() == ["u", None, "v"]
        assert table.column("v").to_pylist() == [b"x", None, b""]
        assert table.column("m").to_pylist() == [[{"key": "k", "value": 1}], None, []]
        assert table.column("l").to_pylist() == [["a"], None, []]
        assert str(table.column("n").to_pylist()) == "[1.5, nan, None]"
        assert table.schema.field("l").type == pa.large_list(pa.large_string())


def test_parquet_streams_bounded_batches(tmp_path):
    media = pa.table({"b": [bytes(100_000)] * 1000, "i": range(1000)})
    pq.write_table(media, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    source = open_table(tmp_path / "a.parquet")
    assert source.num_rows == 1000
    sizes = [b.nbytes for b in source.batches()]
    assert max(sizes) < 40 << 20 and len(sizes) > 2
    assert whole(tmp_path / "a.parquet").column("i").to_pylist() == list(range(1000))


def test_a_folder_of_parquet_parts(tmp_path):
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"a": [year]}), tmp_path / f"year={year}" / "part.parquet")
    assert whole(tmp_path).to_pydict() == {"a": [2023, 2024], "year": ["2023", "2024"]}
    pq.write_table(pa.table({"b": [1]}), tmp_path / "year=2024" / "other.parquet")
    with pytest.raises(TableError, match=r"other\.parquet.*'b'"):
        open_table(tmp_path)


def test_a_folder_with_one_table_and_one_with_several(tmp_path):
    write(tmp_path, "a.csv", "a\n1\n")
    write(tmp_path, "README.md", "words")
    source = open_table(tmp_path)
    assert source.name.endswith("a.csv") and source.root == tmp_path
    write(tmp_path, "b.csv", "a\n1\n")
    with pytest.raises(TableError, match=r"2 tables.*name the one"):
        open_table(tmp_path)


def test_class_folders(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        write(tmp_path / label, "1.png", b"x")
    write(tmp_path / "dog", ".hidden", b"x")
    source = open_table(tmp_path)
    assert pa.Table.from_batches(list(source.batches())).to_pydict() == {"file": ["cat/1.png", "dog/1.png"], "label": ["cat", "dog"]}
    assert source.root == tmp_path and source.key == "file"


def test_class_folders_in_split_folders(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        write(tmp_path / part / "cat", "1.png", b"x")
    assert whole(tmp_path).to_pydict() == {
        "file": ["test/cat/1.png", "train/cat/1.png"],
        "label": ["cat", "cat"],
        "split": ["test", "train"],
    }


def test_a_folder_with_metadata(tmp_path):
    write(tmp_path, "1.png", b"x")
    write(tmp_path, "metadata.csv", "file_name,age\n1.png,3\n")
    source = open_table(tmp_path)
    assert source.schema.names == ["file_name", "age"] and source.root == tmp_path
    with pytest.raises(TableError, match="no table and no class folders"):
        (tmp_path / "empty").mkdir()
        open_table(tmp_path / "empty")


def test_hugging_face_metadata(tmp_path):
    features = {
        "pic": {"_type": "Image"},
        "pics": {"_type": "List", "feature": {"_type": "Image"}},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
        "x": {"_type": "Value", "dtype": "int64"},
    }
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "pic": pa.array([{"bytes": b"x", "path": None}, None, None], media),
            "pics": pa.array([[{"bytes": b"x", "path": None}], None, []], pa.list_(media)),
            "label": [0, 1, -1],
            "x": [1, 2, 3],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_table(tmp_path / "a.parquet")
    assert source.hints == {"pic": "image", "pics": "image", "label": "category"}
    read = pa.Table.from_batches(list(source.batches()))
    assert read.column("label").to_pylist() == ["cat", "dog", None]
    assert read.column("pic").to_pylist()[0] == {"bytes": b"x", "path": None}
    pq.write_table(table.set_column(2, "label", pa.array([0, 1, 2])), tmp_path / "b.parquet")
    with pytest.raises(TableError, match=r"class number outside 0\.\.1"):
        whole(tmp_path / "b.parquet")


def test_malformed_hugging_face_metadata_is_no_hint(tmp_path):
    for text in ("{", "[]", '{"info": 3}', '{"info": {"features": 3}}'):
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"huggingface": text}), tmp_path / "a.parquet")
        assert open_table(tmp_path / "a.parquet").hints == {}


def test_fingerprints_know_the_table_again(tmp_path):
    path = write(tmp_path, "a.csv", "a\n1\n")
    first = open_table(path).fingerprint
    assert first == open_table(path).fingerprint
    assert first != open_table(path, null_words=["NA"]).fingerprint
    write(tmp_path, "a.csv", "a\n1\n2\n")
    assert first != open_table(path).fingerprint
    assert open_table({"a": [1]}).fingerprint == open_table({"a": [1]}).fingerprint != open_table({"a": [2]}).fingerprint


SCRIPT = """
import sys, json
from unisono.table.read import open_table
from unisono.core.errors import UserError
try:
    source = open_table("-")
    rows = [r for b in source.batches() for r in b.to_pylist()]
    print(json.dumps([source.name, rows]))
    list(source.batches())
    print("again")
except UserError as error:
    print(error)
    sys.exit(2)
"""


def piped(data: bytes) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=data,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        check=False,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.decode().splitlines()


def test_standard_input(tmp_path):
    table = pa.table({"a": [1, 2]})
    stream, file, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, parquet)
    numbers = json.dumps(["standard input", [{"a": 1}, {"a": 2}]])
    for data in (b'{"a": 1}\n{"a": 2}\n', file.getvalue(), parquet.getvalue()):
        assert piped(data) == (0, [numbers, "again"])
    code, lines = piped(stream.getvalue())
    assert (code, lines[0]) == (2, numbers) and "only once" in lines[1]
    code, lines = piped(b"a;b\n1;2\n")
    assert (code, lines[0]) == (2, json.dumps(["standard input", [{"a": "1", "b": "2"}]]))
    assert piped(b"a,b\n1,2\n3\n")[0] == 2
    assert piped(b"") == (2, ["standard input: the file is empty; give a table with a header and at least two rows"])
