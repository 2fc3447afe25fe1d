"""m2-mix (arXiv:2203.03897; recipe ``m2-mix``).

Claim: mixes of two modalities on the sphere as hard negatives fill the gap between them. Exact (``tests/systems/test_m2_mix.py``): mixes
are unit vectors at their share of the angle; without weight the loss is the plain contrast. Waiting: fine-tuning of a model aligned
before, for starts from given weights.

Scenes by picture and caption; the baseline is plain contrast at the same settings.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.spaces import aligned, both_ways, scenes


def gains(found: Values) -> dict[str, tuple[float | None, str]]:
    """Differences of means."""
    made: dict[str, tuple[float | None, str]] = {}
    for metric in ("r@1", "gap", "uniformity"):
        ours, plain = found.mean(metric, "ours"), found.mean(metric, "baseline")
        made[f"{metric} gain"] = (None if ours is None or plain is None else ours - plain, "")
    return made


@row(
    "systems/m2_mix",
    goals=[
        Goal("r@1 gain", must=-0.005),
        Goal("gap gain", must=0.0, better="lower"),
        Goal("uniformity gain", must=0.0, better="lower"),
        Goal("r@1", arm="ours"),
        Goal("r@1", arm="baseline"),
    ],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def m2_mix(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes, the gap between both, and how evenly the space is filled."""
    model = aligned("m2-mix" if arm == "ours" else "align", scenes(seed), seed)
    space = model.metrics["space"]
    return {"r@1": (both_ways(model), "share"), "gap": (space["modality_gap"], ""), "uniformity": (space["uniformity"], "")}
