"""FILIP (arXiv:2111.07783; recipe ``filip``).

Claim: comparing token with token binds attributes to things better than comparing one vector with one. Exact
(``tests/systems/test_filip.py``): one token a side gives the plain contrast; the order of tokens does not matter. Waiting: search by late
interaction for the gallery, for indexes of tokens; the place of a word in a picture, for explaining.

Scenes by picture and caption, in which no two hold the same set of shapes and colours; the baseline is plain contrast. Recall is by the
cosine of the cells' mean vectors, which is what an index holds.
"""

from __future__ import annotations

from benchmarks import Goal, Measured, row
from benchmarks.systems.spaces import aligned, both_ways, gains, scenes


@row(
    "systems/filip",
    goals=[Goal("gain", must=0.03), Goal("r@1", arm="ours"), Goal("r@1", arm="baseline")],
    arms=("ours", "baseline"),
    seeds=(0, 1, 2),
    derive=gains,
)
def filip(*, arm: str, seed: int) -> Measured:
    """Recall at 1 between pictures and captions of 400 scenes."""
    return {"r@1": (both_ways(aligned("filip" if arm == "ours" else "align", scenes(seed), seed)), "share")}
