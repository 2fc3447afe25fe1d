"""What is written reads back; a file appears whole or not at all; a reader that goes away is no error."""

from __future__ import annotations

import datetime
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import ResourceError, TableError
from unisono.table.read import open_table
from unisono.table.write import TableWriter, open_writer, write_batches

REPOSITORY = Path(__file__).parents[2]
BATCH = pa.record_batch({"a": ["", None, 'x"y', "p,\n"], "f": [1.5, None, 2.0, float("nan")], "l": [[1], None, [], [2, 3]]})
ENDINGS = ["parquet", "arrow", "jsonl", "csv", "tsv"]


def read(path) -> pa.Table:
    return pa.Table.from_batches(list(open_table(path).batches()))


rows = st.lists(
    st.tuples(
        st.none() | st.text(st.characters(codec="utf-8"), max_size=8),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
        st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


@given(rows=rows, ending=st.sampled_from(ENDINGS), cut=st.integers(0, 10))
@settings(max_examples=150, deadline=None)
def test_round_trips(tmp_path_factory, rows, ending, cut):
    types = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "l": pa.list_(pa.int64()), "b": pa.bool_()}
    table = pa.table({n: pa.array([r[k] for r in rows], t) for k, (n, t) in enumerate(types.items())})
    path = tmp_path_factory.mktemp("out") / f"o.{ending}"
    parts = [p for p in (table.slice(0, cut), table.slice(cut)) if p.num_rows]
    assert write_batches(path, [p.combine_chunks().to_batches()[0] for p in parts]) == len(rows)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    back = read(path)
    if ending not in {"csv", "tsv"}:
        assert back.to_pylist() == table.to_pylist()
        return
    assert back.column("s").to_pylist() == [r[0] for r in rows]
    for column, original in (("i", 1), ("f", 2), ("l", 3), ("b", 4)):
        found = [None if v is None else json.loads(v) for v in back.column(column).to_pylist()]
        assert found == [r[original] for r in rows]


def test_json_lines_are_strict_json(tmp_path):
    batch = pa.record_batch(
        {
            "x": [float("inf"), float("nan")],
            "v": pa.array([[1.0, float("nan")], None], pa.list_(pa.float32(), 2)),
            "d": [datetime.date(2024, 1, 2), None],
            "b": [b"\0", None],
            "s": [{"é": 1}, None],
        }
    )
    write_batches(tmp_path / "o.jsonl", [batch])
    first, second = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert first == '{"x": null, "v": [1.0, null], "d": "2024-01-02", "b": "AA==", "s": {"é": 1}}'
    assert json.loads(second) == dict.fromkeys("xvdbs")


def test_csv_keeps_null_and_empty_apart_and_lists_as_json(tmp_path):
    write_batches(tmp_path / "o.csv", [BATCH])
    assert (tmp_path / "o.csv").read_text() == '"a","f","l"\n"",1.5,"[1]"\n,,\n"x""y",2,"[]"\n"p,\n",nan,"[2, 3]"\n'


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    path = tmp_path / f"o.{ending}"
    path.write_text("old")

    def failing():
        yield BATCH
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_batches(path, failing())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_batches(path, [BATCH])
    assert path.read_bytes() != b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "csv"])
def test_a_full_disk(kind):
    with pytest.raises(ResourceError, match="no space left"), TableWriter("/dev/full", BATCH.schema, kind) as writer:
        writer.write(BATCH)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none/o.csv", "folder does not exist"),
        ("o.xlsx", "ending '.xlsx'"),
        ("o", "ending ''"),
        ("folder.csv", "cannot be written"),
        ("-.parquet", "cannot be streamed"),
        ("-.foo", "ending '.foo'"),
    ],
)
def test_outputs_that_are_refused(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match=words):
        write_batches(path, [BATCH])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.csv"]


def test_columns_and_types_of_batches(tmp_path):
    with open_writer(tmp_path / "o.parquet", pa.schema([("a", pa.int64())])) as writer:
        assert writer.write(pa.record_batch({"a": pa.array([1], pa.int8())}))
        with pytest.raises(TableError, match="expected"):
            writer.write(pa.record_batch({"b": [1]}))
    assert read(tmp_path / "o.parquet").to_pydict() == {"a": [1]}
    with pytest.raises(TableError, match="no rows"):
        write_batches(tmp_path / "p.csv", [])


SCRIPT = """
import sys
import pyarrow as pa
from unisono.table.write import write_batches
batch = pa.record_batch({"a": list(range(1000))})
count = 0
def stream():
    global count
    for _ in range(int(sys.argv[2])):
        count += 1
        yield batch
write_batches(sys.argv[1], stream())
print(count, file=sys.stderr)
"""


def started(path: str, batches: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, path, str(batches)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )


def test_standard_output():
    out, _ = started("-", 2).communicate(timeout=60)
    assert [json.loads(line)["a"] for line in out.splitlines()] == [*range(1000)] * 2
    out, _ = started("-.arrow", 2).communicate(timeout=60)
    assert pa.ipc.open_stream(io.BytesIO(out)).read_all().num_rows == 2000
    out, _ = started("-.csv", 1).communicate(timeout=60)
    assert out.startswith(b'"a"\n0\n1\n')


@pytest.mark.parametrize("path", ["-", "-.arrow", "-.csv"])
def test_a_broken_pipe_ends_quietly(path):
    process = started(path, 100_000)
    process.stdout.read(10)
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert int(told) < 100_000
