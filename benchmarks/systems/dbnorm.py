"""Dual bank normalisation (arXiv:2310.11612; recipe ``dbnorm``).

Claim: normalising similarities by a bank of queries and a bank of items takes hubs their pull. Exact (``tests/systems/test_dbnorm.py``):
scores rank as the product of two softmaxes in loops; banks to which all items are alike keep every ranking; without the gallery's factor it
is the inverted softmax; each query is scored by itself; the dynamic kind leaves queries alone that find what no query of the bank finds.

A thousand made-up pairs in 32 channels, all queries and a tenth of the items leaning to one side, banks of a thousand and validation of a
thousand other pairs. Each arm has the best of three temperatures on validation pairs; ``single`` is the inverted softmax.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.hubs import chosen, fitted, with_hubs
from unisono.retrieve.hubness import Correction, DBNorm

BETAS = {"dual": ((20.0, 20.0), (20.0, 5.0), (40.0, 5.0)), "dynamic": ((20.0, 20.0), (20.0, 5.0), (40.0, 5.0))}
BETAS["single"] = ((10.0, 0.0), (20.0, 0.0), (40.0, 0.0))


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """What each arm gains over none, with hubs and without, and by how much skewness falls."""
    result: dict[str, tuple[float | None, str]] = {}
    for arm in BETAS:
        for hubs, name in ((True, "gain"), (False, "clean")):
            a, b = found.mean("r@1", arm, hubs=hubs), found.mean("r@1", "none", hubs=hubs)
            result[f"{arm}_{name}"] = (None if a is None or b is None else a - b, "share")
        a, b = found.mean("skewness", arm, hubs=True), found.mean("skewness", "none", hubs=True)
        result[f"{arm}_skewness_fall"] = (None if a is None or b is None else 1 - a / b, "share")
    return result


@row(
    "systems/dbnorm",
    goals=[
        Goal("dual_gain", must=0.10), Goal("dual_skewness_fall", must=0.5), Goal("dual_clean", must=-0.05),
        Goal("dynamic_gain", must=0.10), Goal("dynamic_skewness_fall"), Goal("dynamic_clean", must=-0.05),
        Goal("single_gain"), Goal("single_skewness_fall"), Goal("single_clean"),
    ],
    arms=("none", *BETAS),
    seeds=(0, 1, 2),
    over={"hubs": (True, False)},
    derive=gains,
)  # fmt: skip
def dbnorm(*, arm: str, seed: int, hubs: bool) -> Measured:
    """Recall at 1 and skewness of 10-occurrence on made-up pairs with and without hubs, corrected by banks of other pairs."""
    pairs = with_hubs(seed, share=0.1 if hubs else 0.0)
    banks, val, test = (pairs.part(1000 * k, 1000 * (k + 1)) for k in range(3))
    made = None
    if arm != "none":
        settings: dict[str, Correction] = {
            f"{a:g}, {b:g}": DBNorm(query_beta=a, gallery_beta=b, dynamic=arm == "dynamic") for a, b in BETAS[arm]
        }
        made = fitted(chosen(settings, banks, val), banks, test)
    found = test.measured(made)
    return {"r@1": (found["r@1"], "share"), "skewness": (found["skewness"], "skewness")}
