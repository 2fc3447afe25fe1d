"""Splits leak nothing, are stratified, stay put when rows are added, and are refused where they cannot be made."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unisono.core.errors import SchemaError
from unisono.table.hashing import array_hashes, row_fingerprints
from unisono.table.split import Split, split_rows


def part_of(split: Split, rows: int) -> np.ndarray:
    """(N,) 0 train, 1 val, 2 test; every row in exactly one part."""
    part = np.full(rows, -1)
    for number, chosen in enumerate((split.train, split.val, split.test)):
        assert chosen.dtype == np.int64 and (np.diff(chosen) > 0).all()
        assert (part[chosen] == -1).all()
        part[chosen] = number
    assert (part >= 0).all()
    return part


def test_hash_split_is_80_10_10_and_stratified():
    rng = np.random.default_rng(0)
    target = pa.array(rng.choice(["a", "b", "c"], 3000, p=[0.9, 0.08, 0.02]))
    split = split_rows(3000, key=pa.array(range(3000)), target=target)
    assert split.how.startswith("80/10/10") and "stratified" in split.how
    assert split.counts == {"train": len(split.train), "val": len(split.val), "test": len(split.test)}
    labels = np.array(target.to_pylist())
    for name in "abc":
        count = (labels == name).sum()
        for chosen in (split.val, split.test):
            assert abs((labels[chosen] == name).sum() - 0.1 * count) <= 1


def test_numbers_are_stratified_by_range_also_as_text():
    values = np.random.default_rng(0).normal(size=2000)
    for target in (pa.array(values), pa.array(values.astype(str))):
        split = split_rows(2000, key=pa.array(range(2000)), target=target)
        for chosen in (split.val, split.test):
            lowest = (values[chosen] < np.quantile(values, 0.1)).sum()
            assert abs(lowest - 20) <= 1


def test_small_classes_are_kept_for_training_and_pooled():
    target = pa.array([f"rare {i}" for i in range(100)] + ["common"] * 100)
    split = split_rows(200, key=pa.array(range(200)), target=target)
    assert all(8 <= len(chosen) <= 12 + 10 for chosen in (split.val, split.test))
    for size in (1, 2, 3, 4):
        few = pa.array(["few"] * size + ["many"] * 50)
        for seed in range(20):
            assert (split_rows(50 + size, key=pa.array(range(50 + size)), target=few, seed=seed).train >= size).any()


def test_the_order_of_rows_and_the_storage_do_not_matter():
    keys = np.arange(500)
    order = np.random.default_rng(0).permutation(500)
    one = part_of(split_rows(500, key=pa.array(keys)), 500)
    two = part_of(split_rows(500, key=pa.array(keys[order], pa.int32())), 500)
    assert (one[order] == two).all()


def test_seeds_differ_and_repeat():
    parts = [part_of(split_rows(500, key=pa.array(range(500)), seed=s), 500) for s in (0, 0, 1)]
    assert (parts[0] == parts[1]).all() and (parts[0] != parts[2]).any()


def mixed(word: int) -> int:
    """SplitMix64's output function in Python integers."""
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def test_the_hash_is_the_documented_one():
    for seed in (0, 3):
        split = split_rows(200, key=pa.array(range(200)), seed=seed)
        order = sorted(range(200), key=lambda k: mixed(mixed(k) ^ mixed(seed)))
        assert len(split.test) in {20, 21} and split.test.tolist() == sorted(order[: len(split.test)])
        assert len(split.val) in {20, 21} and split.val.tolist() == sorted(order[-len(split.val) :])


@pytest.mark.parametrize("target", [None, "class", "number"])
def test_new_rows_move_few_old_ones(target):
    rng = np.random.default_rng(0)
    values = {"class": pa.array(rng.integers(0, 5, 1001)), "number": pa.array(rng.normal(size=1001)), None: None}[target]
    before = part_of(split_rows(1000, key=pa.array(range(1000)), target=values and values[:1000]), 1000)
    after = part_of(split_rows(1001, key=pa.array(range(1001)), target=values), 1001)
    assert (before != after[:1000]).sum() <= (2 if target != "number" else 20)


@given(
    groups=st.lists(st.none() | st.integers(0, 12), min_size=15, max_size=60),
    keys=st.integers(5, 100),
    content=st.integers(3, 100),
    seed=st.integers(0, 5),
    stratify=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_nothing_that_belongs_together_is_parted(groups, keys, content, seed, stratify):
    rows = len(groups)
    rng = np.random.default_rng(seed)
    key, print_, target = rng.integers(0, keys, rows), rng.integers(0, content, rows), rng.integers(0, 3, rows)
    try:
        split = split_rows(
            rows,
            key=pa.array(key),
            group=pa.array(groups, pa.int64()),
            fingerprints=array_hashes(pa.array(print_)),
            target=pa.array(target) if stratify else None,
            seed=seed,
        )
    except SchemaError as error:
        assert "cannot be divided into 3 parts" in str(error)
        return
    part = part_of(split, rows)
    assert min(split.counts.values()) >= 1
    for i in range(rows):
        for j in range(i):
            if key[i] == key[j] or print_[i] == print_[j] or (groups[i] is not None and groups[i] == groups[j]):
                assert part[i] == part[j]


def test_identical_rows_are_on_one_side_without_a_key():
    table = pa.table({"a": np.random.default_rng(0).integers(0, 50, 1000)})
    split = split_rows(1000, fingerprints=row_fingerprints(table.to_batches()))
    part, values = part_of(split, 1000), table.column("a").to_numpy()
    for value in range(50):
        assert len(set(part[values == value])) == 1


@pytest.mark.parametrize("rows", range(1, 12))
def test_tiny_tables(rows):
    if rows < 3:
        with pytest.raises(SchemaError, match="at least 3"):
            split_rows(rows, key=pa.array(range(rows)))
        return
    for target in (None, pa.array(["x"] * rows), pa.array([str(i) for i in range(rows)])):
        counts = split_rows(rows, key=pa.array(range(rows)), target=target).counts
        assert min(counts.values()) >= 1 and counts["train"] >= rows - 4


@pytest.mark.parametrize(
    "make",
    [
        lambda t: pa.array(t),
        lambda t: pa.array(t.astype(float) / 7),
        lambda t: pa.array([str(v) for v in t]),
        lambda t: pa.array([datetime.date(2024, 1, 1) + datetime.timedelta(int(v)) for v in t]),
        lambda t: pa.array([datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=int(v)) for v in t], pa.timestamp("ns")),
        lambda t: pa.array([(datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=int(v))).isoformat(" ") for v in t]),
    ],
)
def test_time_order_whatever_the_time_is(make):
    times = np.random.default_rng(0).integers(0, 300, 1000)
    split = split_rows(1000, time=make(times))
    part_of(split, 1000)
    assert times[split.train].max() < times[split.val].min() and times[split.val].max() < times[split.test].min()
    assert all(abs(count - share) < 15 for count, share in zip(split.counts.values(), (800, 100, 100), strict=True))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), min_size=3, max_size=60))
@settings(max_examples=150, deadline=None)
def test_time_order_with_groups(pairs):
    groups, times = np.array(pairs).T
    try:
        split = split_rows(len(pairs), time=pa.array(times), group=pa.array(groups))
    except SchemaError as error:
        assert "distinct times" in str(error)
        return
    part = part_of(split, len(pairs))
    assert min(split.counts.values()) >= 1
    newest = np.array([times[groups == g].max() for g in groups])
    assert newest[part == 0].max() < newest[part == 1].min() and newest[part == 1].max() < newest[part == 2].min()
    for g in set(groups.tolist()):
        assert len(set(part[groups == g])) == 1


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (pa.array([1, None, 3, 4]), "row 1"),
        (pa.array(["2024-01-01", "soon", "2024-01-02"]), "row 1.*'soon'"),
        (pa.array([1.0, float("nan"), 2.0]), "row 1"),
        (pa.array([1, 1, 2, 2]), "2 distinct times"),
        (pa.array([[1], [2], [3]]), "no time"),
    ],
)
def test_times_that_cannot_be_ordered(times, words):
    with pytest.raises(SchemaError, match=words):
        split_rows(len(times), time=times)


def test_split_column():
    words = ["train"] * 50 + [" Validation "] * 3 + ["DEV", "val", "valid"] + ["Test"] * 5
    split = split_rows(61, split=pa.array(words).dictionary_encode())
    assert split.counts == {"train": 50, "val": 6, "test": 5}
    assert split.test.tolist() == list(range(56, 61)) and "by column" in split.how


def test_split_column_without_val_sets_a_tenth_apart():
    rng = np.random.default_rng(0)
    words = pa.array(["train"] * 400 + ["test"] * 100)
    target = rng.integers(0, 4, 500)
    split = split_rows(500, split=words, key=pa.array(range(500)), target=pa.array(target))
    assert split.test.tolist() == list(range(400, 500)) and 36 <= len(split.val) <= 44 and "10% of its training rows" in split.how
    times = rng.permutation(500)
    split = split_rows(500, split=words, time=pa.array(times))
    assert len(split.val) == 40 and times[split.train].max() < times[split.val].min()
    groups = rng.integers(0, 30, 500)
    part = part_of(split_rows(500, split=words, group=pa.array(groups)), 500)
    for g in range(30):
        assert len(set(part[:400][groups[:400] == g])) == 1


def test_split_column_without_test_says_so():
    split = split_rows(10, split=pa.array(["train"] * 8 + ["val"] * 2))
    assert len(split.test) == 0 and "no test rows" in split.how


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "testing", "val"], r"row 1, column 'fold': 'testing' is no split"),
        (["train", None, "val"], r"row 1, column 'fold': the split is null"),
        ([None, None], r"row 0, column 'fold'"),
        (["test", "val"], "0 training rows"),
        (["train", "test"], "1 training rows; at least 2"),
        ([1, 2], "'?1'? is no split"),
    ],
)
def test_split_columns_that_are_refused(words, message):
    with pytest.raises(SchemaError, match=message):
        split_rows(len(words), split=pa.array(words), names={"split": "fold"})
