"""The cache gives any rows back as they were, in memory that does not grow with the table."""

from __future__ import annotations

import datetime
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import ResourceError, SchemaError, TableError
from unisono.table import cache as module
from unisono.table.cache import TableCache
from unisono.table.read import open_table

REPOSITORY = Path(__file__).parents[2]
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TYPES = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint16(), st.integers(0, 65535)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float16(), st.floats(width=16, allow_nan=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=200)),
    (pa.binary(), st.binary(max_size=200)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), st.datetimes()),
    (pa.null(), st.none()),
    (pa.list_(pa.int16()), st.lists(st.none() | st.integers(-5, 5), max_size=5)),
    (pa.list_(pa.float64()), st.lists(st.floats(allow_nan=False), min_size=100, max_size=130)),
    (pa.list_(pa.bool_()), st.lists(st.none() | st.booleans(), max_size=9)),
    (pa.list_(pa.list_(pa.string())), st.lists(st.lists(st.none() | st.text(max_size=2), max_size=2) | st.none(), max_size=2)),
    (pa.list_(pa.float32(), 2), st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2)),
    (pa.list_(pa.string(), 2), st.lists(st.none() | st.text(max_size=2), min_size=2, max_size=2)),
    (MEDIA, st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=90), "path": st.none() | st.text(max_size=2)})),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b"])),
]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_rows_come_back_as_they_were(tmp_path_factory, data):
    kinds = data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    rows = data.draw(st.integers(1, 25))
    columns = {
        f"c{i}": pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), dtype)
        for i, (dtype, values) in enumerate(kinds)
    }
    table = pa.table(columns)
    previous, module._ROWS = module._ROWS, data.draw(st.integers(1, 10))
    try:
        cache = TableCache.write(open_table(table), tmp_path_factory.mktemp("cache"))
    finally:
        module._ROWS = previous
    wanted = data.draw(st.lists(st.integers(0, rows - 1), max_size=30))
    taken = cache.take(np.array(wanted, np.int64))
    taken.validate(full=True)
    assert taken.num_rows == len(wanted)
    assert taken.to_pylist() == table.take(pa.array(wanted, pa.int64())).to_pylist()
    assert pa.Table.from_batches(list(cache.batches()), cache.schema).to_pylist() == table.to_pylist()
    assert cache.scalars("c0").to_pylist() == table.column("c0").to_pylist()
    cache.remove()


def test_reopening_tells_what_it_is_a_copy_of(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,x\n2,\n")
    source = open_table(path)
    written = TableCache.write(source, tmp_path / "cache")
    opened = TableCache.open(tmp_path / "cache")
    assert (opened.name, opened.root, opened.num_rows) == (str(path), tmp_path, 2)
    assert opened.fingerprint == written.fingerprint == source.fingerprint == open_table(path).fingerprint
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["cache.json", "table.arrow"]
    assert opened.take(np.array([1, 0, 1]), ["b"]).to_pydict() == {"b": [None, "x", None]}
    opened.remove()
    assert not (tmp_path / "cache").exists()


def test_a_cache_replaces_the_one_before(tmp_path):
    TableCache.write(open_table({"a": [1, 2]}), tmp_path)
    assert TableCache.write(open_table({"b": ["x"]}), tmp_path).schema.names == ["b"]


def test_a_stream_is_known_by_its_content(tmp_path):
    marks = [
        TableCache.write(open_table(pa.table({"a": values}).to_reader()), tmp_path / str(i)).fingerprint
        for i, values in enumerate(([1, 2], [1, 2], [1, 3]))
    ]
    assert marks[0] == marks[1] != marks[2]


def test_rows_and_columns_that_are_not_there(tmp_path):
    cache = TableCache.write(open_table({"price": [1, 2]}), tmp_path)
    with pytest.raises(SchemaError, match="did you mean 'price'"):
        cache.take(np.array([0]), ["prise"])
    with pytest.raises(SchemaError, match="prise"):
        list(cache.batches(["prise"]))
    for rows in ([2], [-1]):
        with pytest.raises(IndexError, match="0 to 1"):
            cache.take(np.array(rows))
    assert cache.take(np.array([], np.int64)).num_rows == 0


def test_damage_is_refused(tmp_path):
    with pytest.raises(TableError, match="no table cache"):
        TableCache.open(tmp_path)
    TableCache.write(open_table({"a": [1, 2]}), tmp_path)
    info = json.loads((tmp_path / "cache.json").read_text())
    whole = (tmp_path / "table.arrow").read_bytes()
    for change in ({"format": 99}, {"rows": 3}, {"name": None, "hints": 3}):
        (tmp_path / "cache.json").write_text(json.dumps({**info, **change}))
        with pytest.raises(TableError, match="remove it"):
            TableCache.open(tmp_path)
    (tmp_path / "cache.json").write_text(json.dumps(info))
    for content in (b"", whole[: len(whole) // 2], b"x" * len(whole)):
        (tmp_path / "table.arrow").write_bytes(content)
        with pytest.raises(TableError, match="damaged"):
            TableCache.open(tmp_path)


def test_the_limit_says_how_much_is_needed(tmp_path):
    source = open_table({"b": [bytes(1_000_000)] * 64})
    with pytest.raises(ResourceError, match=r"needs about 0\.06 GB, its limit is 0\.02 GB"):
        TableCache.write(source, tmp_path, limit_bytes=20_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_lack_of_space(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._HashingFile, "write", full)
    with pytest.raises(ResourceError, match="no space left"):
        TableCache.write(open_table({"a": [1]}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_table_leaves_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n" * 10 + "3\n")
    with pytest.raises(TableError, match="row 19 "):
        TableCache.write(open_table(tmp_path / "a.csv"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/version").exists(), reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written():
    with pytest.raises(TableError, match="cannot be written"):
        TableCache.write(open_table({"a": [1]}), "/proc/none/cache")


def test_media_rows_are_written_in_small_batches(tmp_path):
    table = pa.table({"b": [bytes(1_000_000)] * 100})
    cache = TableCache.write(open_table(table), tmp_path)
    sizes = [b.num_rows for b in cache.batches()]
    assert sum(sizes) == 100 and max(sizes) <= 34


def test_dates_are_not_shifted(tmp_path):
    day = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    cache = TableCache.write(open_table(pa.table({"t": pa.array([day], pa.timestamp("ms", "Europe/Berlin"))})), tmp_path)
    assert cache.take(np.array([0])).column("t").to_pylist() == [day]


ROWS = 50_000
GROWTH = """
import sys, pyarrow as pa, numpy as np
from unisono.table.read import open_table
from unisono.table import cache, csv_format
from unisono.table.cache import TableCache

cache._ROWS, csv_format._BLOCK = 2048, 1 << 17

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

kind, path, folder = sys.argv[1:]
before = anonymous()
peak = 0
table = TableCache.write(open_table(path), folder)
rng = np.random.default_rng(0)
for _ in range(50):
    table.take(rng.integers(0, table.num_rows, 256))
    peak = max(peak, anonymous())
for batch in table.batches():
    peak = max(peak, anonymous())
print(table.num_rows, peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_does_not_grow_with_rows(tmp_path, kind):
    grown = []
    for rows in (ROWS, 10 * ROWS):
        table = pa.table({"i": np.arange(rows), "x": np.arange(rows) * 0.37, "s": pa.array(["some text of a row"] * rows)})
        path = tmp_path / f"{rows}.{kind}"
        pa_csv.write_csv(table, path) if kind == "csv" else pq.write_table(table, path, row_group_size=5_000)
        del table
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, kind, str(path), str(tmp_path / f"cache{rows}")],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "ARROW_DEFAULT_MEMORY_POOL": "system"},
            check=True,
            timeout=120,
        )
        found, kilobytes = map(int, done.stdout.split())
        assert found == rows
        grown.append(kilobytes)
    assert grown[1] < 1.1 * grown[0] + 8_000, f"kilobytes at 1x and 10x: {grown}"
