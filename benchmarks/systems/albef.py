"""ALBEF (arXiv:2107.07651; recipe ``albef``).

Claim: sources should be brought together in one space before they meet, and the layers where they meet learn from pairs that are hard to
tell. Exact (``tests/systems/test_albef.py``): the contrast before fusion is the plain one; a pair that does not match is read as a row
whose source was exchanged; the space does not see where sources meet. Waiting: soft targets from a momentum copy, masked words, and
matching of captions that are partly shuffled, for momentum and masked terms.

Scenes by picture and caption; the baseline is plain contrast at the same settings.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned, both_ways, gains, scenes


@row(
    "systems/albef",
    goals=[Goal("gain", must=-0.01), Goal("r@1", arm="ours"), Goal("r@1", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def albef(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes."""
    return {"r@1": (both_ways(aligned("albef" if arm == "ours" else "align", scenes(seed), seed)), "share")}
