"""The main job end to end on tables with planted answers: fit, predict, evaluate, embed."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unisono
from tests.contracts.tokenising import same
from tests.model.tables import COLUMNS, INPUTS, SMALL, fit, fitted, weather
from unisono.core.errors import SchemaError, TableError, UserError
from unisono.train.protocols import Interrupted

SOURCES = ("table", "note", "curve")


def test_planted_answers_are_found_from_all_sources_and_from_each() -> None:
    model = fitted()
    assert model.schema.sources == SOURCES
    report = model.evaluate(weather(160, seed=7))
    assert report["rows"] == 160
    assert report["targets"]["kind"]["accuracy"] > 0.95
    assert set(report["targets"]["kind"]) >= {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "ece"}
    alone = {tuple(m["present"]): m["targets"]["kind"]["accuracy"] for m in report["missing"]}
    for source in SOURCES:
        assert alone[(source,)] > 0.75
    assert model.metrics["headline"] == "test"
    assert model.metrics["test"]["targets"]["kind"]["accuracy"] > 0.95
    assert model.metrics["rows"] == {"train": 150, "val": 30, "test": 60}


def test_missing_lists_every_proper_subset_of_few_sources_in_table_order() -> None:
    report = fitted().evaluate(weather(40, seed=2))
    subsets = [list(c) for k in (1, 2) for c in itertools.combinations(SOURCES, k)]
    found = [m["present"] for m in report["missing"]]
    assert sorted(found) == sorted(subsets)
    assert json.loads(json.dumps(report)) == report


def test_missing_of_one_source_is_empty() -> None:
    table = weather().select(["number", "colour", "kind", "split", "key"])
    model = unisono.fit(table, "kind", settings=SMALL, split="split", key="key", progress=False)
    assert model.evaluate(table)["missing"] == []


def test_missing_of_many_sources_lists_each_alone_and_each_left_out() -> None:
    rng = np.random.default_rng(0)
    n = 60
    kind = np.arange(n) % 2
    views = {f"view{k}": pa.array((rng.normal(size=(n, 4)) + kind[:, None]).tolist()) for k in range(6)}
    table = pa.table({**views, "kind": [("a", "b")[k] for k in kind]})
    columns = dict.fromkeys(views, "vector")
    model = unisono.fit(table, "kind", columns=columns, settings=(*SMALL, "train.steps=4"), progress=False)
    found = [m["present"] for m in model.evaluate(table)["missing"]]
    names = list(views)
    assert sorted(found) == sorted([[n] for n in names] + [[m for m in names if m != n] for n in names])


def test_prediction_columns_and_row_order() -> None:
    table = weather(50, seed=3)
    found = fitted().predict(table)
    assert found.column_names == ["key", "kind", "kind.probability", "kind.probability.bright", "kind.probability.dull"]
    assert found.column("key").to_pylist() == table.column("key").to_pylist()
    p = np.stack([found.column(f"kind.probability.{c}").to_numpy() for c in ("bright", "dull")], 1)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    chosen = [{"bright": 0, "dull": 1}[k] for k in found.column("kind").to_pylist()]
    np.testing.assert_allclose(found.column("kind.probability").to_numpy(), p[np.arange(50), chosen])
    order = np.random.default_rng(0).permutation(50)
    moved = fitted().predict(table.take(pa.array(order)))
    assert moved.column("key").to_pylist() == table.column("key").take(pa.array(order)).to_pylist()
    np.testing.assert_allclose(moved.column("kind.probability").to_numpy(), found.column("kind.probability").to_numpy()[order], atol=1e-5)


def test_without_a_key_rows_are_numbered() -> None:
    table = weather(20).drop_columns(["key"])
    found = fitted().predict(table)
    assert found.column_names[0] == "row"
    assert found.column("row").to_pylist() == list(range(20))


def test_embedding_columns_are_null_where_a_source_is_missing() -> None:
    table = weather(40, seed=5)
    found = fitted().embed(table)
    assert found.column_names == ["key", "embedding", *(f"embedding.{s}" for s in SOURCES)]
    for source, column in (("note", "note"), ("curve", "curve")):
        kind = found.schema.field(f"embedding.{source}").type
        assert pa.types.is_fixed_size_list(kind)
        assert kind.value_type == pa.float32()
        assert found.column(f"embedding.{source}").is_null().to_pylist() == table.column(column).is_null().to_pylist()
    assert found.column("embedding.table").null_count == 0
    alone = fitted().embed(table.drop_columns(["number", "colour", "curve"]))
    for a, b in zip(alone.column("embedding").to_pylist(), found.column("embedding.note").to_pylist(), strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", INPUTS)
def test_a_missing_column_equals_one_of_nulls_and_is_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    table = weather(30, seed=4)
    place = table.column_names.index(name)
    nulls = table.set_column(place, name, pa.nulls(30, table.column(name).type))
    logger = logging.getLogger("unisono")
    logger.propagate = True
    with caplog.at_level(logging.WARNING, "unisono"):
        without = fitted().predict(table.drop_columns([name]))
    assert name in caplog.text
    assert without.equals(fitted().predict(nulls))


def test_an_extra_column_changes_nothing_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    table = weather(20)
    logger = logging.getLogger("unisono")
    logger.propagate = True
    with caplog.at_level(logging.WARNING, "unisono"):
        more = fitted().predict(table.append_column("stray", pa.array(range(20))))
    assert "stray" in caplog.text
    assert more.equals(fitted().predict(table))


def test_a_table_without_any_of_the_columns_is_refused() -> None:
    with pytest.raises(TableError, match="none of the model's columns"):
        fitted().predict(pa.table({"other": [1, 2]}))


def test_an_unseen_category_is_read_and_nulls_alike_rows_of_nothing_too() -> None:
    table = weather(6)
    strange = table.set_column(table.column_names.index("colour"), "colour", pa.array(["mauve", None, "red", "", "RED", "green"]))
    found = fitted().predict(strange)
    assert found.num_rows == 6
    nothing = pa.table({n: pa.nulls(3, table.column(n).type) for n in INPUTS})
    p = fitted().predict(nothing).column("kind.probability").to_pylist()
    assert p[0] == p[1] == p[2]
    assert np.isfinite(p).all()


def test_several_targets_at_once_with_missing_ones() -> None:
    table = weather()
    rng = np.random.default_rng(1)
    for name in ("kind", "amount", "tags", "flag"):
        hidden = pa.array([None if rng.random() < 0.3 else v for v in table.column(name).to_pylist()], table.column(name).type)
        table = table.set_column(table.column_names.index(name), name, hidden)
    model = fit(table, ["kind", "amount", "tags", "flag"], settings=("train.steps=90",))
    assert [t.task for t in model.schema.targets] == ["category", "number", "labels", "boolean"]
    metrics = model.evaluate(weather(120, seed=9), missing=False)["targets"]
    assert metrics["kind"]["accuracy"] > 0.9
    assert metrics["flag"]["accuracy"] > 0.9
    assert metrics["amount"]["r2"] > 0.7
    assert metrics["tags"]["map"] > 0.9
    found = model.predict(weather(12, seed=9))
    assert {"kind", "amount", "tags", "flag", "flag.probability", "tags.probability.dry"} <= set(found.column_names)
    assert "amount.probability" not in found.column_names
    assert pa.types.is_list(found.schema.field("tags").type)
    assert pa.types.is_boolean(found.schema.field("flag").type)


def test_a_target_of_one_class_is_refused() -> None:
    with pytest.raises(SchemaError, match="target"):
        fit(weather().set_column(5, "kind", pa.array(["dull"] * 240)))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "recipe.yaml")}


def test_changing_held_out_rows_changes_no_byte_of_the_model(tmp_path: Path) -> None:
    table = weather()
    rng = np.random.default_rng(3)
    test = np.array(table.column("split").to_pylist()) == "test"
    changed = table
    for name in INPUTS:
        values = table.column(name).to_pylist()
        other = [values[k] if not test[k] else values[rng.integers(len(values))] for k in range(len(values))]
        if name == "colour":
            other = ["a colour of its own" if t and k % 3 == 0 else v for k, (v, t) in enumerate(zip(other, test, strict=True))]
        changed = changed.set_column(changed.column_names.index(name), name, pa.array(other, table.column(name).type))
    kinds = [("dull" if v == "bright" else "bright") if t else v for v, t in zip(table.column("kind").to_pylist(), test, strict=True)]
    changed = changed.set_column(changed.column_names.index("kind"), "kind", pa.array(kinds))
    for name, rows in (("a", table), ("b", changed)):
        fit(rows, out=tmp_path / name, settings=("train.steps=12",))
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    schemas = [json.loads((tmp_path / f / "schema.json").read_text()) for f in "ab"]
    assert schemas[0] == schemas[1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(out=tmp_path / name, seed=seed, settings=("train.steps=12",))
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert _bytes(tmp_path / "a") != _bytes(tmp_path / "c")


def test_a_number_of_steps_repeats_a_run_without_one(tmp_path: Path) -> None:
    epochs = tuple(s for s in SMALL if not s.startswith("train.steps"))
    options: dict[str, Any] = {"split": "split", "key": "key", "drop": ["amount", "tags", "flag"], "columns": COLUMNS, "progress": False}
    unisono.fit(weather(), "kind", settings=(*epochs, "train.epochs=6"), out=tmp_path / "a", **options)
    steps = json.loads((tmp_path / "a" / "metrics.json").read_text())["training"]["steps"]
    unisono.fit(weather(), "kind", settings=(*epochs, f"train.steps={steps}"), out=tmp_path / "b", **options)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_resuming_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unisono.model.learner import Supervised

    settings = ("train.steps=10", "train.checkpoint_seconds=0")
    fit(out=tmp_path / "whole", settings=settings)
    loss, calls = Supervised.loss, itertools.count()

    def stopping(self: Any, batch: Any) -> Any:
        if next(calls) == 6:
            raise Interrupted("stopped by the test")
        return loss(self, batch)

    monkeypatch.setattr(Supervised, "loss", stopping)
    with pytest.raises(Interrupted):
        fit(out=tmp_path / "parts", settings=settings)
    monkeypatch.setattr(Supervised, "loss", loss)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    half = unisono.load(tmp_path / "parts")
    assert half.predict(weather(5)).num_rows == 5
    fit(out=tmp_path / "parts", settings=settings, resume=True)
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "parts")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        fit(out=tmp_path)
    with pytest.raises(UserError, match="replaces a model folder only"):
        fit(out=tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_files_give_what_tables_in_memory_give(tmp_path: Path) -> None:
    table = weather(60, seed=6)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=17)
    assert fitted().predict(str(tmp_path / "t.parquet")).equals(fitted().predict(table))


def test_inputs_are_left_as_they_are() -> None:
    table = weather(60)
    frame = table.to_pandas()
    kept = frame.copy(deep=True)
    found = fitted().predict(frame)
    assert found.num_rows == 60
    assert same(frame["number"].to_numpy(), kept["number"].to_numpy())
    assert frame.columns.equals(kept.columns)


def test_fitting_twice_starts_afresh() -> None:
    model = unisono.Model(target="kind", settings=(*SMALL, "train.steps=10"), columns=COLUMNS, options={"split": "split", "key": "key"})
    table = weather().drop_columns(["amount", "tags", "flag"])
    first = model.fit(table).predict(table)
    assert model.fit(table).predict(table).equals(first)


def test_nothing_global_changes() -> None:
    import random

    import torch

    random.seed(3)
    np.random.seed(3)
    state = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_num_threads(), torch.get_default_dtype())  # type: ignore[index]
    generator = torch.get_rng_state()
    fit(settings=("train.steps=3",))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_num_threads(), torch.get_default_dtype()) == state  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_filter_chooses_the_rows_that_are_measured() -> None:
    table = weather()
    report = fitted().evaluate(table, where="split = test and colour in (red, green)", missing=False)
    split, colour = (table.column(n).to_pylist() for n in ("split", "colour"))
    assert report["rows"] == sum(s == "test" and c != "blue" for s, c in zip(split, colour, strict=True))
    with pytest.raises(SchemaError, match="no row satisfies"):
        fitted().evaluate(table, where="split = nowhere")


@pytest.mark.parametrize("roles", [{"split": "split", "key": "key"}, {"group": "place"}, {"time": "at", "key": "key"}], ids=str)
def test_columns_that_the_fit_used_are_not_reported_as_unused(roles: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    table = weather(80).select(["key", "number", "colour", "kind", "split"])
    table = table.append_column("place", pa.array([f"p{j // 4}" for j in range(80)])).append_column("at", pa.array(np.arange(80) * 1.5))
    used = table.select(["number", "colour", "kind", *roles.values()])
    model = unisono.fit(used, "kind", settings=(*SMALL, "train.steps=2"), progress=False, **roles)
    with caplog.at_level(logging.WARNING, "unisono"):
        caplog.clear()
        model.predict(table)
    (said,) = [r.getMessage().split("not used: ")[1] for r in caplog.records if "not used: " in r.getMessage()]
    assert said.split(", ") == [n for n in ("key", "split", "place", "at") if n not in roles.values()]


def test_the_columns_of_a_fit_are_remembered_in_the_folder(tmp_path: Path) -> None:
    fit(settings=("train.steps=2",), out=tmp_path / "m")
    loaded = unisono.load(tmp_path / "m")
    assert loaded.schema.roles == {"split": "split", "key": "key"}
    content = json.loads((tmp_path / "m" / "schema.json").read_text())
    del content["roles"]
    (tmp_path / "m" / "schema.json").write_text(json.dumps(content))
    assert unisono.load(tmp_path / "m").schema.roles == {}


def test_a_target_named_row_needs_a_key() -> None:
    table = weather(60)
    renamed = table.rename_columns(["row" if n == "kind" else n for n in table.column_names])
    with pytest.raises(UserError, match=r"'row'.*--key.*rename"):
        fit(renamed, "row", settings=("train.steps=2",), key=None)
    model = fit(renamed, "row", settings=("train.steps=2",))
    assert model.predict(renamed).column_names[:2] == ["key", "row"]
    with pytest.raises(SchemaError, match=r"key column 'key'"):
        model.predict(renamed.drop(["key"]))
