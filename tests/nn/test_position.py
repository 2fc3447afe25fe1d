"""Places as vectors."""

from __future__ import annotations

import math

import pytest
import torch

from unisono.nn.position import Position, fourier_features


def test_features_equal_the_formula_in_loops() -> None:
    at, waves = torch.tensor([[3.0, -2.5], [0.25, 7.0]]), torch.tensor([4.0, 9.0, 100.0])
    found = fourier_features(at, waves)
    for t in range(2):
        expected = []
        for a in range(2):
            angles = [2 * math.pi * float(at[t, a]) / float(w) for w in waves]
            expected += [math.sin(x) for x in angles] + [math.cos(x) for x in angles]
        assert found[t].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_absent_axis_adds_nothing() -> None:
    position = Position(2, 8)
    whole, half = torch.tensor([[3, -1]]), torch.tensor([[3.0, float("nan")]])
    torch.testing.assert_close(position(whole), position(half))
    assert (position(torch.tensor([[-1, -1]])) == 0).all()


def test_a_vector_is_one_axis_and_gain_scales() -> None:
    torch.manual_seed(0)
    plain = Position(1, 32, frequencies=16)
    torch.manual_seed(0)
    quiet = Position(1, 32, frequencies=16, gain=0.3)
    x = torch.arange(9)
    torch.testing.assert_close(quiet(x), 0.3 * plain(x))
    torch.testing.assert_close(plain(x[:, None]), plain(x))


def test_neighbours_and_far_places_differ() -> None:
    found = fourier_features(torch.arange(256)[:, None], Position(1, 4).waves)
    distance = torch.cdist(found, found) + 9 * torch.eye(256)
    assert distance.min() > 0.5
