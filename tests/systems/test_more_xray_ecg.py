"""MoRE (arXiv:2410.16239): a text anchors every other source."""

from __future__ import annotations

import pytest

from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of

KINDS = {"scan": "image", "curve": "series", "report": "text"}


def test_the_loss_is_that_of_the_anchors_pairs_whichever_way_the_others_are_called() -> None:
    made, shown = alignments_of("more-xray-ecg", tuple(KINDS), KINDS), sides(tuple(KINDS))
    t = temperature(terms_of(made)[0])
    pairs = [contrast(shown["report"].vectors, shown[other].vectors, t) for other in ("scan", "curve")]
    assert loss_of(made, shown) == pytest.approx(sum(pairs) / 2, abs=1e-6)
    swapped = {"scan": shown["curve"], "curve": shown["scan"], "report": shown["report"]}
    assert loss_of(made, swapped) == pytest.approx(sum(pairs) / 2, abs=1e-6)
