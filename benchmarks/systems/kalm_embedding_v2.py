"""KaLM-Embedding-V2 (arXiv:2506.20923; recipe ``kalm-embedding-v2``).

Claim: a query should count the more the worse it is answered. Exact (``tests/systems/test_kalm_embedding_v2.py``): without focus value
and gradient are those of InfoNCE; the weight is a power of what the true answer's probability lacks, and has no gradient. Waiting: mixes
of mined hard negatives as further negatives, and the average of several checkpoints, for merging of weights.

Scenes by picture and caption; the baseline is plain contrast at the same settings.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned, both_ways, gains, scenes


@row(
    "systems/kalm_embedding_v2",
    goals=[Goal("gain", must=-0.01), Goal("r@1", arm="ours"), Goal("r@1", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def kalm_embedding_v2(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes."""
    return {"r@1": (both_ways(aligned("kalm-embedding-v2" if arm == "ours" else "align", scenes(seed), seed)), "share")}
