"""``metaformer-fgvc``: fields beside a picture as tokens, cyclic ones by sine and cosine (arXiv:2203.02751)."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
import torch

from tests.examples import column_of
from unisono.core.errors import ConfigError
from unisono.core.schema import Schema
from unisono.modalities.base import tokenisers
from unisono.modalities.datetime import CALENDAR, calendar_features
from unisono.network import check_needs
from unisono.recipe import load_recipe


def tokens(values: list[float], spec: str = "cyclic(360)") -> torch.Tensor:
    column = column_of("number")
    tokeniser = tokenisers.build(spec)
    torch.manual_seed(0)
    module = tokeniser.module([column], 8).eval()
    with torch.no_grad():
        found: torch.Tensor = module(tokeniser.pack([column], {"number": np.array(values)}, None))
    return found


@pytest.mark.parametrize(("period", "low"), [(360.0, -180.0), (24.0, 0.0), (365.0, 0.0), (7.0, -3.0), (0.5, 0.25)])
def test_ends_of_a_period_are_the_same_to_the_bit(period: float, low: float) -> None:
    found = tokens([low, low + period, low + 3 * period, low + period / 2], f"cyclic({period})")
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_neighbours_across_the_seam_are_near() -> None:
    found = tokens([179.9, -179.9, 0.0])
    assert float((found[0] - found[1]).norm()) < 0.02 * float((found[0] - found[2]).norm())


def test_features_are_the_waves_of_the_equation_and_missing_cells_no_token() -> None:
    column, tokeniser = column_of("number"), tokenisers.build("cyclic(24, harmonics=3)")
    hours = np.array([1.0, 25.0, np.nan, 7.5])
    packed = tokeniser.pack([column], {"number": hours}, None)
    assert packed.sample.tolist() == [0, 1, 3]
    for k in (1, 2, 3):
        angle = 2 * np.pi * k * hours[[0, 3]] / 24
        waves = packed.inputs["waves"][[0, 3], 0].numpy()
        np.testing.assert_allclose(waves[:, k - 1], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(waves[:, 3 + k - 1], np.cos(angle), atol=1e-6)


def test_the_first_day_of_a_year_is_the_one_after_its_last() -> None:
    year = [0, 1, 7, 8]  # sines and cosines of the year's two waves, in the order of the angles
    assert CALENDAR == 14
    days = [dt.datetime(y, 1, 1, tzinfo=dt.UTC).timestamp() for y in (2021, 2022)]
    features = calendar_features(np.array([*days, days[0] + 180 * 86400.0]))
    assert np.array_equal(features[0, year], features[1, year])
    assert not np.array_equal(features[0, year], features[2, year])


def test_a_table_without_pictures_is_refused() -> None:
    schema = Schema((column_of("number"),), ())
    with pytest.raises(ConfigError, match="needs a column of the modality image, but the table has number; take another"):
        check_needs(load_recipe("metaformer-fgvc"), schema)
    check_needs(load_recipe("base"), schema)
    with pytest.raises(ConfigError, match="'imag' is no modality; did you mean 'image'"):
        check_needs(load_recipe("base", {"needs": ["imag"]}), schema)
