"""Weight functions against the equations in loops, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unisono.core.errors import ShapeError
from unisono.nn.affine import Affine, Standard, affine_of, centred, chained, parted, scaled_before, scaled_behind, summed, write_affine
from unisono.nn.norm import LayerNorm, RMSNorm
from unisono.nn.share import Linear

D = torch.float64


def make(outputs: int, inputs: int, seed: int, bias: bool = True) -> Affine:
    draw = torch.Generator().manual_seed(seed)
    return Affine(torch.randn(outputs, inputs, dtype=D, generator=draw), torch.randn(outputs, dtype=D, generator=draw) if bias else None)


def loop(linear: Affine, x: Tensor) -> Tensor:
    """``W x + b`` entry by entry."""
    out = torch.zeros(len(x), len(linear.weight), dtype=D)
    for t in range(len(x)):
        for o in range(len(linear.weight)):
            total = 0.0 if linear.bias is None else float(linear.bias[o])
            out[t, o] = total + sum(float(linear.weight[o, i]) * float(x[t, i]) for i in range(x.shape[1]))
    return out


def vector(size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=D, generator=torch.Generator().manual_seed(seed))


X = torch.randn(5, 4, dtype=D, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shift", [True, False])
def test_a_scale_before_and_behind(bias: bool, shift: bool) -> None:
    linear = make(3, 4, 0, bias)
    s, t = vector(4, 1), vector(4, 2) if shift else None
    torch.testing.assert_close(scaled_before(linear, s, t)(X), loop(linear, X * s + (0 if t is None else t)), rtol=0, atol=1e-12)
    s, t = vector(3, 3), vector(3, 4) if shift else None
    torch.testing.assert_close(scaled_behind(linear, s, t)(X), s * loop(linear, X) + (0 if t is None else t), rtol=0, atol=1e-12)
    torch.testing.assert_close(scaled_behind(linear, 0.5, None)(X), 0.5 * loop(linear, X), rtol=0, atol=1e-12)
    assert (scaled_before(linear, vector(4, 1), None).bias is None) == (not bias)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_chain_and_a_sum(first: bool, second: bool) -> None:
    one, two = make(6, 4, 0, first), make(3, 6, 1, second)
    torch.testing.assert_close(chained(two, one)(X), loop(two, loop(one, X)), rtol=0, atol=1e-12)
    other = make(6, 4, 2, second)
    torch.testing.assert_close(summed([one, other, one])(X), 2 * loop(one, X) + loop(other, X), rtol=0, atol=1e-12)


def test_a_centred_map_gives_no_mean() -> None:
    linear = make(5, 4, 0)
    out = loop(linear, X)
    torch.testing.assert_close(centred(linear)(X), out - out.mean(1, keepdim=True), rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="5"):
        scaled_before(make(3, 4, 0), vector(5, 0), None)
    with pytest.raises(ShapeError, match="4"):
        scaled_behind(make(3, 4, 0), None, vector(4, 0))
    with pytest.raises(ShapeError, match="cannot follow"):
        chained(make(3, 4, 0), make(3, 4, 1))
    with pytest.raises(ShapeError, match="cannot be summed"):
        summed([make(3, 4, 0), make(4, 4, 1)])


def test_a_bias_is_added_and_taken_away() -> None:
    linear = Linear(4, 3, bias=False).double()
    write_affine(linear, scaled_before(affine_of(linear), None, vector(4, 0)))
    assert linear.bias is not None
    assert "bias" in dict(linear.named_parameters())
    write_affine(linear, Affine(linear.weight.detach(), None))
    assert linear.bias is None


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shift", [True, False])
def test_what_is_left_of_a_norm(scale: bool, shift: bool) -> None:
    s, t = vector(4, 1) if scale else None, vector(4, 2) if shift else None
    for centre in (True, False):
        c = X - X.mean(1, keepdim=True) if centre else X
        expected = c / ((c * c).mean(1, keepdim=True) + 1e-5).sqrt() * (1 if s is None else s) + (0 if t is None else t)
        norm = Standard(width=4, eps=1e-5, centre=centre, scale=s, shift=t).double()
        torch.testing.assert_close(norm(X), expected, rtol=0, atol=1e-12)
        assert list(norm.state_dict()) == [name for name, there in (("scale", scale), ("shift", shift)) if there]


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_a_norm_taken_apart_is_the_norm(kind: type[LayerNorm | RMSNorm]) -> None:
    norm = kind(width=4).double()
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(vector(4, 5))
    parts = parted(norm)
    assert parts is not None
    again = Standard(width=4, eps=parts.eps, centre=parts.centre, scale=parts.scale, shift=parts.shift)
    torch.testing.assert_close(again(X), norm(X), rtol=0, atol=1e-12)
    assert norm.fixed() is None


def test_a_layer_norm_of_what_has_no_mean_is_an_rms_norm() -> None:
    c = X - X.mean(1, keepdim=True)
    torch.testing.assert_close(
        Standard(width=4, eps=1e-5, centre=False)(c), Standard(width=4, eps=1e-5, centre=True).double()(c), rtol=0, atol=1e-12
    )
