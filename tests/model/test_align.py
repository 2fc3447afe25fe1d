"""One space without labels: what it finds, what it is made of, and what is refused."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

import unisono
from tests.model.aligned import SMALL, codes, fit, fitted
from unisono.core.errors import ConfigError, SchemaError, UserError
from unisono.model.narrow import narrowed
from unisono.model.options import FitOptions
from unisono.model.prepare import split_table
from unisono.model.stream import Predictor
from unisono.table.cache import TableCache
from unisono.table.read import open_table
from unisono.train.protocols import Interrupted

Vectors = NDArray[np.float32]


def vectors(table: pa.Table, name: str = "embedding") -> Vectors:
    column = table.column(name).combine_chunks()
    return np.stack(
        [np.full(column.type.list_size, np.nan, np.float32) if v is None else np.array(v, np.float32) for v in column.to_pylist()]
    )


def test_every_source_finds_every_other_on_rows_that_training_never_saw() -> None:
    found = fitted().metrics["retrieval"]
    assert [(f["from"], f["to"]) for f in found] == list(itertools.permutations(["note", "left", "right"], 2))
    assert all(0.9 * 48 * 0.75 < f["n"] <= 48 for f in found)
    assert min(f["r@1"] for f in found) > 0.6
    assert all(ci is None or ci[0] <= f[k] <= ci[1] for f in found for k, ci in f["ci95"].items())


def test_all_vectors_are_unit_vectors_of_one_space_and_a_row_is_the_mean_of_its_sources() -> None:
    model, table = fitted(), codes(20, seed=3, missing=0.3)
    assert model.aligned
    made = model.embed(table)
    parts = [vectors(made, f"embedding.{s}") for s in ("note", "left", "right")]
    for name, part in zip(("note", "left", "right"), parts, strict=True):
        absent = np.array([c is None for c in table.column(name).to_pylist()])
        assert np.array_equal(np.isnan(part[:, 0]), absent)
        assert np.allclose(np.linalg.norm(part[~absent], axis=1), 1, atol=1e-5)
    total = np.nansum(np.stack(parts), 0)
    there = ~np.isnan(vectors(made)[:, 0])
    expected = total[there] / np.linalg.norm(total[there], axis=1, keepdims=True)
    assert np.allclose(vectors(made)[there], expected, atol=1e-5)


def test_a_query_of_one_source_is_what_the_row_says_of_that_source() -> None:
    model, table = fitted(), codes(12, seed=4)
    whole = model.embed(table)
    alone = model.embed(table.select(["key", "note"]))
    assert np.allclose(vectors(alone), vectors(whole, "embedding.note"), atol=1e-5)
    assert np.allclose(vectors(alone, "embedding.note"), vectors(alone), atol=1e-6)


def test_a_target_may_be_learned_beside() -> None:
    model = fit(target="kind")
    assert model.aligned
    assert model.metrics["test"]["targets"]["kind"]["accuracy"] > 0.9
    assert min(f["r@1"] for f in model.metrics["retrieval"]) > 0.4
    assert {"supervised", "align"} == {str(w).split("(")[0] for w in model._need().recipe["objective"]}


def test_a_saved_model_and_its_report(tmp_path: Path) -> None:
    model = fit(out=tmp_path / "m")
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["retrieval"] == model.metrics["retrieval"]
    report = (tmp_path / "m" / "report.html").read_text()
    assert "One space for" in report
    assert "--align" in report
    loaded = unisono.load(tmp_path / "m")
    assert loaded.embed(codes(5, seed=5)).equals(model.embed(codes(5, seed=5)))
    with pytest.raises(UserError, match="predicts nothing"):
        loaded.predict(codes(5))


def test_resuming_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unisono.model.learner import Supervised

    options: dict[str, Any] = {
        "settings": ("train.steps=6", "train.checkpoint_seconds=0"), "objective": "align(negatives=memory(keep=96), extra=[uniformity])",
    }  # fmt: skip
    fit(out=tmp_path / "whole", **options)
    loss, calls = Supervised.loss, itertools.count()

    def stopping(self: Any, batch: Any) -> Any:
        if next(calls) == 4:
            raise Interrupted("stopped by the test")
        return loss(self, batch)

    monkeypatch.setattr(Supervised, "loss", stopping)
    with pytest.raises(Interrupted):
        fit(out=tmp_path / "parts", **options)
    monkeypatch.setattr(Supervised, "loss", loss)
    fit(out=tmp_path / "parts", resume=True, **options)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize(
    "objective", ["align", "align(what=tokens, how=late, loss=sigmoid)", "supervised & align(extra=[cycle]) & align(loss=soft)"]
)
def test_gradients_by_parts_are_those_of_the_whole_batch(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from unisono.train.step import Stepper

    seen: list[dict[str, torch.Tensor]] = []

    def watch(self: Stepper, batch: Any, count: float, lr: float, step: int) -> float:
        named = self.learner.module.named_parameters()
        seen.append({name: p.grad.double() / count for name, p in named if p.grad is not None})
        raise Interrupted("seen")

    monkeypatch.setattr(Stepper, "_update", watch)
    target = {"target": "kind"} if "supervised" in objective else {}
    still = ("defaults.mixer=attention(heads=2)", "defaults.ffn=mlp(1)", "tokens.vector=projection(dropout=0)", "train.batch=40")
    for extra in ((), ("train.max_tokens=60",)):
        with pytest.raises(Interrupted):
            fit(codes(60), objective=objective, settings=(*still, *extra), **target)
    whole, parts = seen
    assert whole.keys() == parts.keys()
    scale = max(float(g.abs().max()) for g in whole.values())
    assert max(float((whole[n] - parts[n]).abs().max()) for n in whole) < 1e-6 * max(scale, 1.0)


def test_one_source_one_row_and_equal_rows_are_refused() -> None:
    table = codes(60)
    with pytest.raises(SchemaError, match="only 'note'"):
        fit(table, drop=["left", "right"])
    with pytest.raises(SchemaError, match="at least two"):
        fit(pa.concat_tables([table.filter(pa.compute.equal(table["split"], "val")), table.slice(0, 1)]))
    alike = table.set_column(table.column_names.index("left"), "left", pa.array([table["left"][0].as_py()] * 60))
    with pytest.raises(SchemaError, match="all rows are alike in 'left'"):
        fit(alike)
    one = table.append_column("thing", pa.array(["same"] * 60))
    with pytest.raises(SchemaError, match="all training rows are one item"):
        fit(one, item="thing")
    apart = {n: [v if (k % 3) == i else None for k, v in enumerate(table[n].to_pylist())] for i, n in enumerate(("note", "left", "right"))}
    with pytest.raises(SchemaError, match="no training row has two"):
        fit(pa.table({**apart, "split": table["split"], "key": table["key"]}))


def test_a_model_for_some_columns_keeps_their_place_in_the_space() -> None:
    model = fitted()
    small = narrowed(model.network, model._need().recipe, model.schema, ["note", "right"])
    table = codes(8, seed=6)
    whole = model.embed(table)
    made = Predictor(*small).embed(table.select(["key", "note", "right"]))
    for source in ("note", "right"):
        assert np.allclose(vectors(made, f"embedding.{source}"), vectors(whole, f"embedding.{source}"), atol=1e-5)


def test_sources_that_meet_too_early_are_refused() -> None:
    with pytest.raises(ConfigError, match="lets sources meet before they are embedded"):
        fit(codes(60), recipe="early-fusion", settings=("steps.mix.scope=sample",))


def test_without_targets_and_space_there_is_nothing_to_learn() -> None:
    with pytest.raises(UserError, match="--align"):
        unisono.fit(codes(60))


def test_rows_of_one_item_and_equal_cells_belong_together() -> None:
    from unisono.nn.space import Side
    from unisono.objectives.align import related

    def side(*content: int) -> Side:
        rows = torch.arange(len(content))
        return Side(torch.zeros(len(content), 2), rows, torch.zeros_like(rows), content=torch.tensor(content))

    item = torch.tensor([0, 1, 2, 2])
    found = related(side(7, 7, 8, 9), side(1, 2, 3, 4), item)
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    assert torch.equal(found, expected)
    assert torch.equal(related(side(1, 2, 3, 4), side(7, 7, 8, 9), item), expected.T)


def test_rows_of_one_of_many_items_stay_on_one_side_and_training_sees_all_of_few() -> None:
    table = codes(240).drop_columns(["split"])
    for count, apart in ((120, True), (4, False)):
        given = table.append_column("thing", pa.array([f"t{k % count}" for k in range(240)]))
        settings, columns = (*SMALL, "train.steps=1"), {"left": "vector", "right": "vector", "note": "text"}
        options = FitOptions(targets={}, item="thing", columns=columns, drop=("kind",), key="key", settings=settings, align=True)
        with tempfile.TemporaryDirectory() as folder:
            split = split_table(TableCache.write(open_table(given), Path(folder)), options)
        train, test = ({k % count for k in part.tolist()} for part in (split.train, split.test))
        assert len(test) > 0
        assert not (train & test) if apart else len(train) == count


def test_every_item_of_a_list_is_a_vector_of_its_own() -> None:
    table = codes(60)
    twice = [[note, f"it is {note}"] for note in table["note"].to_pylist()]
    model = fit(table.set_column(1, "note", pa.array(twice)), settings=("train.steps=4",))
    network = model.network
    assert network.alignments is not None
    alone = model.embed(pa.table({"note": [[n[0]] for n in twice[:6]]}))
    other = model.embed(pa.table({"note": [[n[1]] for n in twice[:6]]}))
    both = vectors(alone) + vectors(other)
    together = vectors(model.embed(pa.table({"note": twice[:6]})))
    assert np.allclose(together, both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-5)
