"""Numbers for contents: equal cells, files of equal bytes, items of lists, rows of one item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unisono.core.schema import Column, Schema
from unisono.model.contents import read_contents
from unisono.table.cache import TableCache
from unisono.table.read import open_table


def test_equal_cells_files_lists_and_items_have_equal_numbers(tmp_path: Path) -> None:
    for name, content in (("a.png", b"one"), ("b.png", b"two"), ("c.png", b"one")):
        (tmp_path / name).write_bytes(content)
    table = pa.table(
        {
            "photo": ["a.png", "b.png", "c.png", None],
            "words": [["red", "blue"], ["blue"], None, ["red", "blue"]],
            "size": [1.0, 2.0, 1.0, 1.0],
            "colour": ["x", "x", "x", "y"],
            "thing": ["p", None, "p", None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    columns = [("photo", "image", "photo", False), ("words", "text", "words", True)]
    columns += [("size", "number", "table", False), ("colour", "category", "table", False)]
    schema = Schema(tuple(Column(n, m, s, k, many=many) for k, (n, m, s, many) in enumerate(columns)))
    found = read_contents(TableCache.write(open_table(str(tmp_path / "t.parquet")), tmp_path / "cache"), schema, "thing")
    photo, size = found.cells["photo"], found.cells["table"]
    assert photo[0] == photo[2] != photo[1]
    assert size[0] == size[2]
    assert len({int(size[k]) for k in (0, 1, 3)}) == 3
    assert found.item[0] == found.item[2]
    assert len(set(found.item.tolist())) == 3
    identity = found.identity(np.array([1, 0]))
    words = identity.content["words"]
    assert words.shape == (2, 2)
    assert words[0, 0] == words[1, 1] != words[1, 0]
    assert found.cells["words"][0] == found.cells["words"][3]
