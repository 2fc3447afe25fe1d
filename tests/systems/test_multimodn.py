"""``multimodn``: a state handed from source to source, read after each (arXiv:2309.14118)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.contracts.test_network import Model, make
from tests.contracts.tokenising import blank
from tests.examples import ROWS
from unisono.model.learner import Supervised
from unisono.nn.part import Flow
from unisono.nn.read import Read
from unisono.nn.trunk import Trunk
from unisono.table.batching import Batch

WORDS = ("number", "text", "vector", "series")
SOURCES = ("table", "text", "vector", "series")


@pytest.fixture(scope="module")
def model() -> Model:
    return make("multimodn", WORDS)


def states(model: Model, batch: Batch) -> list[torch.Tensor]:
    """The state (B, D) after the insertion and after each source's step."""
    x, found, inserted = model.network.tokens(batch), [], batch.plan.last.column < 0
    for step, needs in zip(model.network.trunk.steps, batch.plan.steps, strict=True):
        if not isinstance(step, Read):
            x = step(x, needs, Flow())
            found += [x[inserted]] if len(x) == len(inserted) else []
    return found


@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_a_missing_cell_leaves_the_state_as_it_was_to_the_bit(model: Model, number: int) -> None:
    rows = [1, 4, 7]
    cells = {n: blank(c, rows) if n == WORDS[number] else c for n, c in model.cells.items()}
    with torch.no_grad():
        found = states(model, model.batch(cells))
    assert len(found) == len(SOURCES) + 1
    before, after = found[number], found[number + 1]
    kept = torch.tensor([r in rows for r in range(ROWS)])
    assert torch.equal(before[kept], after[kept])
    assert not bool((before[~kept] == after[~kept]).all(1).any())


@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_it_equals_running_without_that_module(model: Model, number: int) -> None:
    cells = {n: blank(c, range(ROWS)) if n == WORDS[number] else c for n, c in model.cells.items()}
    batch, trunk = model.batch(cells), model.network.trunk
    steps = [s for k, s in enumerate(trunk.steps) if k not in (3 + 2 * number, 4 + 2 * number)]
    names = [n for k, n in enumerate(trunk.names) if k not in (3 + 2 * number, 4 + 2 * number)]
    without = Trunk(steps=steps, names=names, frame=trunk.frame)
    with torch.no_grad():
        values = model.network.tokens(batch)
        fewer = without.run(values, without.plan(batch.plan.meta)).flow.reads
        whole = trunk.run(values, batch.plan).flow.reads
    assert set(whole) - set(fewer) == {trunk.names[4 + 2 * number]}
    assert all(torch.equal(read, whole[name]) for name, read in fewer.items())


def test_every_step_has_a_prediction_for_every_task_from_the_sources_so_far(model: Model) -> None:
    with torch.no_grad():
        output = model.network(model.batch())
        assert len(output.earlier) == len(SOURCES)
        for number, said in enumerate(output.earlier):
            assert {n: s.shape[0] for n, s in said.items()} == dict.fromkeys(model.network.target_names, ROWS)
            later = [WORDS[k] for k in range(number, len(SOURCES))]
            fewer = model.network(model.batch({n: blank(c, range(ROWS // 2)) if n in later else c for n, c in model.cells.items()}))
            for name, scores in said.items():
                some = ROWS // 2 if number == 0 else 0  # a row without any cell has no state
                torch.testing.assert_close(fewer.earlier[number][name][some:], scores[some:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_last_reads_and_a_share_of_the_mean_of_the_earlier_ones(model: Model, weight: float) -> None:
    network, schema = model.network, model.schema
    codes = {"kind": [r % 3 for r in range(ROWS)], "flag": [r % 2 for r in range(ROWS)]}
    kept = [t for t in schema.targets if t.name in codes]
    schema = type(schema)(schema.columns, tuple(kept))
    batch = model.batch()
    present = torch.ones(ROWS, dtype=torch.bool)
    batch.targets.update({n: (torch.tensor(codes[n], dtype=torch.float32 if n == "flag" else torch.int64), present) for n in codes})
    learner = Supervised(network, schema, None, np.zeros(0, np.int64), {}, str, torch.device("cpu"), False, weight)  # type: ignore[arg-type]
    with torch.no_grad():
        loss, output = learner.loss(batch), network(batch)
    expected = 0.0
    for target in kept:
        task = network.tasks[target.name]

        def mean(scores: dict[str, torch.Tensor], task=task, target=target) -> float:
            return float(task.loss(scores[target.name], *batch.targets[target.name], target.statistics).sum())

        unit = max(task.constant_loss(target.statistics), 1e-6)
        expected += (mean(output.scores) + weight * np.mean([mean(e) for e in output.earlier])) / unit / len(kept)
    assert float(loss.total_sum) == pytest.approx(expected, rel=1e-5)
