"""What each source says by itself in training: the means it reads, its gradient, and that predictions do not depend on it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

import unisono
from tests.tokens import meta_of
from unisono.nn.alone import OwnHeads


def test_it_is_a_head_a_source_on_the_normalised_mean_of_its_tokens() -> None:
    torch.manual_seed(0)
    meta = meta_of([[2, 1], [0, 0], [0, 2]], shuffle=1)
    heads = {name: [torch.nn.Linear(6, k).double() for _ in range(2)] for name, k in (("a", 3), ("b", 1))}
    values = torch.randn(5, 6, dtype=torch.float64)
    found = OwnHeads(heads)(values, meta)
    expected = {}
    for row, s in ((0, 0), (0, 1), (2, 1)):
        mine = [values[t] for t in range(5) if (meta.sample[t], meta.source[t]) == (row, s)]
        mean = sum(mine) / len(mine)
        centred = mean - mean.mean()
        expected[row, s] = centred / (centred.square().mean() + 1e-5).sqrt()
    assert found.row.tolist() == [0, 0, 2] and found.weight.tolist() == [0.5, 0.5, 1.0]
    for name, each in heads.items():
        wanted = torch.stack([each[s](x) for (_, s), x in expected.items()])
        torch.testing.assert_close(found.scores[name], wanted.float())


def test_rows_without_any_token_say_nothing() -> None:
    meta = meta_of([[0, 0]] * 3)
    found = OwnHeads({"a": [torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)]})(torch.zeros(0, 4), meta)
    assert found.row.shape == (0,) and found.scores["a"].shape == (0, 2)


TABLE = pa.table(
    {
        "words": [f"{('red', 'blue')[k % 2]} thing number {k}" for k in range(80)],
        "size": np.random.default_rng(0).normal(size=80),
        "kind": [("x", "y")[k % 2] for k in range(80)],
    }
)


def fit(columns: list[str], *settings: str) -> tuple[int, np.ndarray]:
    chosen = ["train.steps=3", "width=16", "defaults.mixer=attention(heads=2)", *settings]
    found = unisono.fit(
        TABLE.select([*columns, "kind"]), "kind", columns={"words": "text"} if "words" in columns else {}, settings=chosen, progress=False
    )
    return found.metrics["training"]["parameters"], found.predict(TABLE.select(columns)).column("kind.probability.x").to_numpy()


def test_one_source_needs_none_and_several_are_taught_alone() -> None:
    """With one source the setting changes no bit; with two it changes what is learned."""
    one, without = fit(["size"]), fit(["size"], "objective=supervised(alone=0)")
    assert one[0] == without[0] and np.array_equal(one[1], without[1])
    both, without = fit(["words", "size"]), fit(["words", "size"], "objective=supervised(alone=0)")
    assert both[0] == without[0] + 2 * (16 * 2 + 2)
    assert not np.array_equal(both[1], without[1])
