"""MatFormer (arXiv:2310.07707; recipe ``matformer``).

Claim: one training holds many sizes of a model. Exact (``tests/systems/test_matformer.py``): a slice equals the masked full model; a drawn
size gives no gradient beyond its slice; every mix of sizes over layers is a model. Waiting: speculative decoding, for generation.

Handwritten digits through two layers. Ours is trained once, a random size a step, for as many steps as each of the four
independent models of the baseline.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.loops import Model, Split, accuracy, classify, digit_split, predicted, trunk_of
from unisono.nn.nested import choose_units

WIDTH, DEPTH, STEPS, RATES = 32, 2, 150, (8e-3,)
SHARES = (0.125, 0.25, 0.5, 1.0)
INNER = 2 * WIDTH
SIZES = [round(s * INNER) for s in SHARES]


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """The least difference to an independent model of the same size, and that of agreement with the full model."""
    result: dict[str, tuple[float | None, str]] = {}
    for metric, sizes in (("accuracy", SIZES), ("agreement", SIZES[:-1])):
        pairs = [(found.mean(f"{metric}_{m}", "ours"), found.mean(f"{metric}_{m}", "baseline")) for m in sizes]
        less = [a - b for a, b in pairs if a is not None and b is not None]
        result[f"least_{metric}_gain"] = (min(less) if len(less) == len(sizes) else None, "share")
    return result


def _independent(seed: int, data: Split) -> dict[str, tuple[float, str]]:
    found: dict[str, tuple[float, str]] = {}
    predictions = {}
    for m in SIZES:
        changes: dict[str, Any] = {"steps": {"mix": {"repeat": DEPTH}}, "defaults": {"ffn": {"type": "mlp", "expansion": m / WIDTH}}}
        changes["defaults"]["ffn"]["dropout"] = 0.1
        model, _ = classify(lambda c=changes: _model("base", c), data, steps=STEPS, rates=RATES, seed=seed)  # type: ignore[misc]
        found[f"accuracy_{m}"] = (accuracy(model, data), "share")
        predictions[m] = predicted(model, data.x["test"])
    for m in SIZES[:-1]:
        found[f"agreement_{m}"] = (float((predictions[m] == predictions[INNER]).float().mean()), "share")
    return found


def _model(recipe: str, changes: dict[str, Any]) -> Model:
    return Model(trunk_of(recipe, WIDTH, changes), [(16, 4)], [10], WIDTH)


def _nested(seed: int, data: Split) -> dict[str, tuple[float, str]]:
    found: dict[str, tuple[float, str]] = {}
    model, _ = classify(lambda: _model("matformer", {"steps": {"mix": {"repeat": DEPTH}}}), data, steps=STEPS, rates=RATES, seed=seed)
    whole = predicted(model, data.x["test"])
    for m in SIZES:
        choose_units(model, m)
        found[f"accuracy_{m}"] = (accuracy(model, data), "share")
        if m < INNER:
            found[f"agreement_{m}"] = (float((predicted(model, data.x["test"]) == whole).float().mean()), "share")
    between = []
    for few, many in pairwise(SIZES):
        choose_units(model, [few, many])
        mixed = accuracy(model, data)
        ends = sorted((found[f"accuracy_{few}"][0], found[f"accuracy_{many}"][0]))
        between.append(max(ends[0] - mixed, mixed - ends[1], 0.0))
    found["mixed_outside"] = (max(between), "share")
    return found


@row(
    "systems/matformer",
    goals=[
        Goal("least_accuracy_gain", must=-0.015, aim=0.0),
        Goal("least_agreement_gain", must=0.0),
        Goal("mixed_outside", arm="ours", must=0.005, aim=0.0, better="lower"),
    ],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def matformer(*, arm: str, seed: int) -> Measured:
    """Accuracy on handwritten digits of every size of one nested model against models of that size, and who agrees with the whole."""
    data = digit_split(seed)
    return _nested(seed, data) if arm == "ours" else _independent(seed, data)
