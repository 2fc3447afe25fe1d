"""VATT (arXiv:2104.11178; recipe ``vatt``).

Claim: one transformer serves raw tokens of all modalities, and of several positives it is enough if one is near. Exact
(``tests/systems/test_vatt.py``): with one positive it is plain contrast; several positives are one; the trunk has one transformer's
parameters however many modalities there are. Waiting: dropping of tokens in training, and spaces one behind the other, for a resampling
word of its own.

Scenes by picture and caption; the baseline is plain contrast at the same settings.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned, both_ways, gains, scenes


@row(
    "systems/vatt",
    goals=[Goal("gain", must=-0.01), Goal("r@1", arm="ours"), Goal("r@1", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def vatt(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes."""
    return {"r@1": (both_ways(aligned("vatt" if arm == "ours" else "align", scenes(seed), seed)), "share")}
