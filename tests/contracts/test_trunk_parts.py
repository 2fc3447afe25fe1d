"""What holds for every registered norm, mixer, feed-forward, sharing, scope, insert and read, and for every recipe's trunk."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch

from tests.contracts.parts import ROLES, SENTENCES, WIDTH, Part, batch, build, parts, shake
from tests.tokens import FRAME, rich_meta
from unisono.contracts.holds import CONTRACTS
from unisono.nn.scope import Partition, relate

EVERY = pytest.mark.parametrize("part", parts(), ids=lambda p: p.label)


@EVERY
@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda c: c.__name__)
def test_it_holds(contract: Callable[[Part], None], part: Part) -> None:
    contract(part)


@EVERY
def test_plans_survive_pickling(part: Part) -> None:
    trunk, (values, meta) = part.build(), batch(part)
    plan = trunk.plan(meta)
    moved = pickle.loads(pickle.dumps(plan))
    assert torch.equal(trunk(values, moved), trunk(values, plan))


@pytest.mark.parametrize("word", sorted(ROLES["scope"].entries))
def test_a_scope_relates_tokens_of_one_sample_only(word: str) -> None:
    meta = rich_meta(shuffle=5)
    pairs = relate(SENTENCES.get(word, word), meta, FRAME).pairs()
    assert not bool((pairs & (meta.sample[:, None] != meta.sample[None, :])).any())


@pytest.mark.parametrize("word", sorted(n for n, e in ROLES["scope"].entries.items() if issubclass(e.target, Partition)))
def test_a_partition_is_symmetric_and_holds_everyone(word: str) -> None:
    meta, sentence = rich_meta(shuffle=5), SENTENCES.get(word, word)
    pairs = relate(sentence, meta, FRAME).pairs()
    assert bool(pairs.diagonal().all())
    assert torch.equal(pairs, pairs.T)
    assert torch.equal(relate(f"{sentence} & {sentence}", meta, FRAME).pairs(), pairs)
    assert torch.equal(relate(f"sample & {sentence}", meta, FRAME).pairs(), pairs)


@pytest.mark.parametrize("word", sorted(ROLES["mixer"].entries))
def test_who_is_no_query_stays_and_who_sees_nothing_gets_nothing_from_the_mixer(word: str) -> None:
    steps = [{"mixer": SENTENCES.get(word, word), "scope": "cross(title <- photo)", "ffn": "none"}, {"read": "mean"}]
    trunk = build(steps, {}).double().eval()
    shake(trunk)
    meta = rich_meta()
    values = torch.randn(len(meta), WIDTH, dtype=torch.float64)
    out = trunk.run(values, trunk.plan(meta)).tokens
    asks = meta.column == 1
    sees = asks & (meta.sample == 0)
    assert bool((asks & ~sees).any())
    assert torch.equal(out[~sees], values[~sees])
    assert word == "none" or not bool((out[sees] == values[sees]).all(1).any())
