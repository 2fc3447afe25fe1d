"""Grid places of tokens with one, two or three axes, side by side.

Letters: T tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


def aligned(place: Places) -> Places:
    """Places (T, 3) moved to the last axes: a picture's (row, column) is a clip's (-, row, column), so a still is a clip of one frame.

    An absent axis is -1, and comes first.
    """
    here = place >= 0
    order = np.argsort(here, axis=1, kind="stable")
    moved: Places = np.take_along_axis(np.where(here, place, -1), order, 1)
    return moved
