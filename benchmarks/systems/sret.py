"""Sliced recursive transformer, one block in several loops (arXiv:2111.05297; recipe ``sret``).

Claim: applying a block twice beats once at equal weights, and slicing makes it cheaper. Exact (``tests/systems/test_sret.py``): one loop is
the base network; one group is global attention; dealing out and back is the identity; weights do not grow with loops but for the norms,
which are each loop's own and stand for the paper's small projections between loops.

Pictures of handwritten digits as 64 tokens, one a pixel; one loop, two of global attention, or one in four groups and one global.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.common import differences
from unisono.core.relation import Blocks
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.layer import LayerPlan

WIDTH, STEPS, BATCH, LR = 32, 300, 64, 4e-3
SHARED = {"mixer": "depth", "ffn": "depth"}
ARMS = {"ours": ["sample", "sample"], "baseline": ["sample"], "sliced": ["sliced(4)", "sample"]}


def pixels(count: int) -> Meta:
    """A token for each of 8 x 8 places."""
    t = 64 * count
    number = torch.arange(t)
    zero = torch.zeros_like(number)
    place = torch.stack([number % 64 // 8, number % 8, zero - 1], 1)
    nan = torch.full((t, 3), torch.nan)
    return Meta(number // 64, zero, zero, zero, zero, zero, place, nan, nan[:, 0], count, 1)


@row(
    "systems/sret",
    goals=[Goal("accuracy_gain", must=0.005), Goal("sliced_gain", must=-0.01, aim=0.0), Goal("saved_products", must=0.3)],
    arms=tuple(ARMS),
    seeds=(0, 1, 2),
    derive=lambda found: saved(found),
)
def sret(*, arm: str, seed: int) -> Measured:
    """Accuracy on digits at equal weights (norms aside), and products of queries with keys in the attention of a picture."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.data / 8 - 1, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    test, train = order[:600], order[600:]
    torch.manual_seed(seed)
    step = {"repeat": len(ARMS[arm]), "scope": ARMS[arm], "sharing": SHARED}
    trunk = build_trunk([step, {"read": "mean"}], {"mixer": "attention(heads=4)", "ffn": "mlp(2)"}, width=WIDTH)
    parts = nn.ModuleDict({"value": nn.Linear(1, WIDTH), "place": nn.Embedding(64, WIDTH), "trunk": trunk, "head": nn.Linear(WIDTH, 10)})

    def scores(part: torch.Tensor, plan: object) -> torch.Tensor:
        tokens = parts["value"](x[part].unsqueeze(-1)) + parts["place"].weight
        found: torch.Tensor = parts["head"](trunk(tokens.reshape(-1, WIDTH), plan))
        return found

    plan = trunk.plan(pixels(BATCH))
    optimiser = torch.optim.AdamW(parts.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        picked = train[torch.randint(len(train), (BATCH,))]
        optimiser.zero_grad()
        nn.functional.cross_entropy(scores(picked, plan), y[picked]).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        right = [scores(part, trunk.plan(pixels(len(part)))).argmax(1) == y[part] for part in test.split(200)]
    weights = sum(p.numel() for n, p in trunk.named_parameters() if "norm" not in n)
    products = [needs.relation for needs in plan.steps if isinstance(needs, LayerPlan)]
    count = sum(r.blocks * r.queries * r.keys for relation in products if isinstance(relation, Blocks) for r in relation.runs)
    accuracy = float(torch.cat(right).float().mean())
    return {"accuracy": (accuracy, "share"), "weights": (weights, "numbers"), "products": (count / BATCH, "products")}


def saved(found: Values) -> dict[str, tuple[float | None, str]]:
    """What two loops gain, what slicing costs, and the products that it saves."""
    whole, sliced = found.mean("products", "ours"), found.mean("products", "sliced")
    return {
        **differences("accuracy")(found),
        "sliced_gain": differences("accuracy", ours="sliced", baseline="ours")(found)["accuracy_gain"],
        "saved_products": (None if whole is None or sliced is None else 1 - sliced / whole, "share"),
    }
