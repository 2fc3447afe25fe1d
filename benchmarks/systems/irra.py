"""IRRA (arXiv:2303.12501; recipe ``irra``).

Claim: several correct matches should share the probability that a search gives. Exact (``tests/systems/test_irra.py``): no gradient is
left where they do, while one-hot contrast has some; with one match each both have their least value at the same scores. Waiting: masked
words told from the picture, and several captions a scene, for masked terms.

Scenes by picture and caption; the baseline is plain contrast at the same settings.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned, both_ways, gains, scenes


@row(
    "systems/irra",
    goals=[Goal("gain", must=0.01), Goal("r@1", arm="ours"), Goal("r@1", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def irra(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes."""
    return {"r@1": (both_ways(aligned("irra" if arm == "ours" else "align", scenes(seed), seed)), "share")}
