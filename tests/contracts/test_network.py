"""What holds for whole networks: every recipe over all fourteen modalities at once, with any cell missing."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.contracts.parts import shake
from tests.contracts.tokenising import _take, blank, same
from tests.examples import ROWS, canonical, column_of
from unisono.core.draw import Draw
from unisono.core.schema import MODALITIES, SCALARS, Column, Schema, Target
from unisono.modalities.base import Cells, Context, modalities
from unisono.modalities.groups import choose_tokeniser
from unisono.model.aligning import Aligner
from unisono.model.contents import Contents
from unisono.network import Network, Output, build_task
from unisono.nn.share import sharings
from unisono.recipe import Recipe, load_recipe, recipe_names
from unisono.table.batching import Assembler, Batch, SourceDropout

TASKS = {"kind": "category", "flag": "boolean", "amount": "number", "tags": "labels"}
SMALL = ["width=16", "defaults.mixer=attention(heads=2)", "defaults.ffn=mlp(1)"]
TARGETS = {
    "kind": np.array([("a", "b", "c")[k % 3] for k in range(ROWS)], object),
    "flag": np.array([("no", "yes")[k % 2] for k in range(ROWS)], object),
    "amount": np.arange(ROWS) * 1.5,
    "tags": None,
}


@dataclass
class Model:
    """A network with the decoded cells of its example table."""

    recipe: Recipe
    schema: Schema
    network: Network
    cells: dict[str, Cells]

    def assembler(self, dropout: float = 0.0) -> Assembler:
        return Assembler(self.schema, self.network.groups, self.network.trunk, SourceDropout(dropout))

    def batch(self, cells: dict[str, Cells] | None = None, only: list[str] | None = None, draw: Draw | None = None, n: int = ROWS) -> Batch:
        return self.assembler(0.5).assemble(np.arange(n), self.cells if cells is None else cells, {}, draw, only)

    def answer(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            output = self.network(batch)
        return torch.cat([output.pooled, *output.scores.values()], 1)


def make(name: str, words: tuple[str, ...] = MODALITIES, seed: int = 0) -> Model:
    """Fit a recipe's tokenisers on the example columns and build its network."""
    recipe = load_recipe(name, SMALL)
    columns: list[Column] = []
    cells: dict[str, Cells] = {}
    for index, word in enumerate(words):
        column = column_of(word, index)
        tokeniser = choose_tokeniser(column, recipe["tokens"])
        modality = modalities.build(word)
        raw = modality.decode_many(canonical(word), column, Context()).cells
        column = replace(column, statistics=tokeniser.fit(column, [raw]))
        cells[word] = modality.decode_many(canonical(word), column, Context(None, tokeniser.wants(column))).cells
        columns.append(column)
    targets = []
    for target, word in TASKS.items():
        task = build_task(recipe, word)
        values = TARGETS[target]
        if values is None:
            values = np.empty(ROWS, object)
            values[:] = [["x"], ["x", "y"], ["z"]] * (ROWS // 3)
        targets.append(Target(target, word, statistics=task.fit(values)))
    schema = Schema(tuple(columns), tuple(targets))
    torch.manual_seed(seed)
    network = Network(recipe=recipe, schema=schema).eval()
    shake(network)
    return Model(recipe, schema, network, cells)


_made = cache(make)


def distinct_recipes() -> list[str]:
    """The recipes that differ in more than name and claim."""
    found = {json.dumps({**load_recipe(n).settings, "claim": "", "source": ""}, sort_keys=True): n for n in reversed(recipe_names())}
    return sorted(found.values())


@pytest.fixture(params=distinct_recipes())
def model(request: pytest.FixtureRequest) -> Model:
    return _made(request.param)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_batch_mates_never_interact(model: Model) -> None:
    whole = model.answer(model.batch())
    for row in range(ROWS):
        close(model.answer(model.batch({n: _take(c, [row]) for n, c in model.cells.items()}, n=1))[0], whole[row])
    order = [5, 0, 9]
    close(model.answer(model.batch({n: _take(c, order) for n, c in model.cells.items()}, n=3)), whole[order])


@pytest.mark.parametrize("word", MODALITIES)
def test_a_missing_source_equals_an_absent_one(model: Model, word: str) -> None:
    """Cells that are null, a source that is not looked at, and cells that are missing in only some rows all agree."""
    source = model.schema.columns[MODALITIES.index(word)].source
    members = [c.name for c in model.schema.columns if c.source == source]
    nulls = model.answer(model.batch({n: blank(c, range(ROWS)) if n in members else c for n, c in model.cells.items()}))
    others = [s for s in model.schema.sources if s != source]
    assert torch.equal(model.answer(model.batch(only=others)), nulls)
    some = [0, 3, 7]
    part = model.answer(model.batch({n: blank(c, some) if n in members else c for n, c in model.cells.items()}))
    close(part[some], nulls[some])
    rest = [k for k in range(ROWS) if k not in some]
    close(part[rest], model.answer(model.batch())[rest])


def test_a_row_without_any_cell_has_the_learned_answer(model: Model) -> None:
    nothing = model.answer(model.batch({n: blank(c, range(ROWS)) for n, c in model.cells.items()}))
    assert bool(torch.isfinite(nothing).all())
    close(nothing, nothing[:1].expand_as(nothing))
    one = model.answer(model.batch({n: blank(c, [2]) for n, c in model.cells.items()}))
    close(one[2], nothing[0])


def test_the_order_of_tokens_does_not_matter(model: Model) -> None:
    batch = model.batch()
    shuffle = torch.randperm(len(batch.order), generator=torch.Generator().manual_seed(0))
    moved = replace(batch, order=batch.order[shuffle], plan=model.network.trunk.plan(batch.plan.meta.select(shuffle)))
    close(model.answer(moved), model.answer(batch))


def test_rebuilt_from_json_and_weights_gives_the_same_bits(model: Model, tmp_path: object) -> None:
    read = json.loads(
        json.dumps([[c.to_json() for c in model.schema.columns], [t.to_json() for t in model.schema.targets]], allow_nan=False)
    )
    schema = Schema(tuple(Column(**c) for c in read[0]), tuple(Target(**t) for t in read[1]))
    torch.manual_seed(50)
    again = Network(recipe=Recipe("again", json.loads(json.dumps(dict(model.recipe.settings)))), schema=schema).eval()
    again.load_state_dict(model.network.state_dict())
    other = replace(model, schema=schema, network=again)
    assert torch.equal(other.answer(other.batch()), model.answer(model.batch()))


def test_every_parameter_gets_gradient(model: Model) -> None:
    network = copy.deepcopy(model.network).train()
    shake(network)
    for epoch in range(12):
        output = network(model.batch(draw=Draw(1, epoch, np.arange(ROWS))))
        nothing = network(model.batch({n: blank(c, range(3)) for n, c in model.cells.items()}))
        said = [
            s for o in (output, nothing) for scores in (o.scores, *o.earlier, o.alone.scores if o.alone else {}) for s in scores.values()
        ]
        (sum((s * torch.randn_like(s)).sum() for s in said) + aligned(network, output)).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert [name for name in without if not explained(model, name)] == []


def aligned(network: Network, output: Output) -> torch.Tensor:
    """The loss of the shared space, of rows that have nothing in common, and of its pairs; zero where there is none."""
    if network.alignments is None:
        return torch.zeros(())
    rows = np.arange(ROWS)
    aligner = Aligner(network, Contents(rows, dict.fromkeys(network.alignments.sources, rows), {}))
    shown = [{name: replace(side, place=torch.zeros_like(side.place)) for name, side in space.items()} for space in output.shown]
    loss = aligner.loss(shown, rows)[0]
    return loss if network.matching is None else loss + aligner.matching(replace(output, shown=tuple(shown)), rows)


def explained(model: Model, name: str) -> bool:
    """Whether a sharing says that it leaves sets of weights untouched, and these are of inserted tokens, of which there are none."""
    words = re.findall(r"\w+", json.dumps(model.recipe.settings["defaults"]["sharing"]))
    says = any("gradient" in sharings.get(word).traits.exempt for word in words if word in sharings.entries)
    found = re.match(r"(.*)\.parts\.(\d+)\.", name)
    if found is None or not says or any("insert" in step for step in model.recipe["trunk"]):
        return False
    sets: Any = model.network.get_submodule(found[1])
    by_name = getattr(sets, "names", None)
    return int(found[2]) == len(sets.parts) - 1 if by_name is None else by_name[int(found[2])] == "inserted"


def test_a_batch_depends_on_seed_epoch_and_row_alone(model: Model) -> None:
    whole = model.batch(draw=Draw(3, 2, np.arange(ROWS)))
    again = model.batch(draw=Draw(3, 2, np.arange(ROWS)))
    assert same(vars(whole)["packed"], vars(again)["packed"])
    rows = np.array([8, 1, 4])
    part = model.assembler(0.5).assemble(rows, {n: _take(c, rows.tolist()) for n, c in model.cells.items()}, {}, Draw(3, 2, rows))
    close(model.answer(part), model.answer(whole)[rows])
    other = model.answer(model.batch(draw=Draw(3, 3, np.arange(ROWS))))
    assert not torch.equal(other, model.answer(whole))


def test_assembling_leaves_cells_unmodified(model: Model) -> None:
    before = copy.deepcopy(model.cells)
    model.batch(draw=Draw(3, 2, np.arange(ROWS)))
    model.batch(only=["image"])
    assert same(model.cells, before)


def test_same_seed_same_network() -> None:
    first, second = make("early-fusion", ("number", "text"), seed=4), make("early-fusion", ("number", "text"), seed=4)
    assert same(dict(first.network.state_dict()), dict(second.network.state_dict()))


def test_scalars_are_one_source_and_media_their_own() -> None:
    schema = _made("early-fusion").schema
    assert schema.sources == ("table", *(m for m in MODALITIES if m not in SCALARS))
