"""LexVLA (arXiv:2407.17827; recipe ``lexvla``).

Claim: cells as few non-negative weights over one vocabulary find each other as well as dense vectors, and can be explained word by word.
Exact (``tests/systems/test_lexvla.py``): a score is the sum over words of products of weights that are not negative. Waiting: a
vocabulary of real words from a frozen language model, by which top words can be named.

Scenes by picture and caption; the baseline is plain contrast at the same settings.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned, both_ways, gains, scenes


@row(
    "systems/lexvla",
    goals=[Goal("gain", must=-0.01), Goal("r@1", arm="ours"), Goal("r@1", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def lexvla(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes."""
    return {"r@1": (both_ways(aligned("lexvla" if arm == "ours" else "align", scenes(seed), seed)), "share")}
