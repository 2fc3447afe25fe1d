"""Weights laid out in advance: the same sums, the same names, and never stale."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unisono.compress.pack import SMALLEST, Packed, can_pack, lay_out, pack_linears
from unisono.nn.share import Linear

pytestmark = pytest.mark.skipif(not can_pack(), reason="this machine's library lays out no weights")


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Linear(64, 96), nn.Linear(96, 64), Linear(64, 4), nn.Linear(64, 64, bias=False)).eval()


def test_large_maps_are_packed_and_answer_the_same(net: nn.Sequential) -> None:
    plain, x = copy.deepcopy(net), torch.randn(7, 64)
    assert pack_linears(net) == 3
    assert lay_out(net) > 0
    assert [type(m) is Packed for m in net] == [True, True, False, True]
    assert net[2].weight.numel() < SMALLEST
    assert list(net.state_dict()) == list(plain.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(net[1](net[0](x)), plain[1](plain[0](x)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net[3](x), plain[3](x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net[0](x.view(7, 1, 64)), plain[0](x).view(7, 1, 96), rtol=1e-4, atol=1e-5)
        assert net[0](x[:0]).shape == (0, 96)


def test_changed_weights_are_laid_out_again(net: nn.Sequential) -> None:
    pack_linears(net)
    x = torch.randn(5, 64)
    with torch.inference_mode():
        before = net[0](x)
    net.load_state_dict({k: 2 * v for k, v in net.state_dict().items()})
    with torch.inference_mode():
        torch.testing.assert_close(net[0](x), 2 * before, rtol=1e-4, atol=1e-5)
    net.double()
    with torch.inference_mode():
        assert net[0](x.double()).dtype == torch.float64
    net.float()
    with torch.inference_mode():
        torch.testing.assert_close(net[0](x), 2 * before, rtol=1e-4, atol=1e-5)


def test_gradients_are_taken_as_ever(net: nn.Sequential) -> None:
    pack_linears(net)
    net[0](torch.randn(5, 64)).sum().backward()
    assert net[0].weight.grad is not None


def test_a_shared_map_stays_shared_and_a_copy_is_its_own(net: nn.Sequential) -> None:
    both = nn.ModuleDict({"a": nn.Sequential(net[0]), "b": nn.Sequential(net[0])})
    assert pack_linears(both) == 1
    assert both["a"][0] is both["b"][0]  # type: ignore[index]
    lay_out(both)
    other = copy.deepcopy(both)
    assert other["a"][0]._packed is None  # type: ignore[index]
    with torch.inference_mode():
        x = torch.randn(3, 64)
        torch.testing.assert_close(other["a"](x), both["a"](x), rtol=0, atol=0)
