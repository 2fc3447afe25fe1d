"""From pictures to a grid of token values: a small residual convolutional network, or one linear map of patches.

Early convolutions make transformers on pictures train faster and generalise from fewer examples than a linear patch embedding
(Xiao et al. 2021, arXiv:2106.14881).

Letters: N pictures, C channels, H and W height and width, h and w grid height and width, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from unisono.core.errors import ConfigError


def halvings(size: tuple[int, int], grid: int) -> int:
    """How often a picture is halved until neither side has more than ``grid`` cells."""
    side, k = max(size), 0
    while -(-side // 2**k) > grid:
        k += 1
    return k


def _groups(channels: int) -> int:
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)


class Residual(nn.Module):
    """``x + conv(relu(conv(relu(norm(x)))))``: a pre-activation block (He et al. 2016, arXiv:1603.05027) with one group norm.

    The second convolution begins near zero, so that a norm between the two, which costs as much as a convolution, is not needed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.normal_(self.conv2.weight, std=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        y: Tensor = fn.relu(self.conv1(fn.relu(self.norm(x))), inplace=True)
        change: Tensor = self.conv2(y)
        return x + change


class ConvStem(nn.Module):
    """Stages of a strided convolution (5 x 5, then 3 x 3) and residual blocks; channels double by halvings, up to four times the first.

    From the third halving on, the last one is an average over squares of 2 x 2 tokens, which costs no accuracy and saves a stage.

    Args:
        channels: C.
        width: D.
        halvings: how often the picture is halved; at least two stages are built.
        base: channels of the first stage.
        depth: residual blocks a stage.
    """

    def __init__(self, channels: int, width: int, *, halvings: int, base: int = 32, depth: int = 1) -> None:
        super().__init__()
        pool = halvings > 2
        halvings -= pool
        strides = [1] * (2 - min(halvings, 2)) + [2] * halvings
        layers: list[nn.Module] = []
        before = channels
        for i, stride in enumerate(strides):
            after = base * min(2**i, 4)
            if i:
                layers += [nn.GroupNorm(_groups(before), before), nn.ReLU()]
            kernel = 3 if i else 5
            layers.append(nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=i == 0))
            layers += [Residual(after) for _ in range(depth)]
            before = after
        layers += [nn.GroupNorm(_groups(before), before), nn.ReLU(), nn.Conv2d(before, width, 1)]
        if pool:
            layers.append(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False))
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised -> (N, D, h, w)."""
        out: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return out


class LinearStem(nn.Module):
    """One linear map of each square patch (Dosovitskiy et al. 2021, arXiv:2010.11929); the right and lower rim is filled with zeros.

    Args:
        channels: C.
        width: D.
        halvings: the patch has ``2 ** halvings`` pixels a side.
    """

    def __init__(self, channels: int, width: int, *, halvings: int) -> None:
        super().__init__()
        self.side = 2**halvings
        self.linear = nn.Conv2d(channels, width, self.side, stride=self.side)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised -> (N, D, h, w)."""
        rest = [-n % self.side for n in x.shape[-2:]]
        out: Tensor = self.linear(fn.pad(x, (0, rest[1], 0, rest[0])))
        return out


class ScalesStem(nn.Module):
    """Cross-scale embedding: at one stride, convolutions with kernels of 1, 2, 4 and 8 strides, their outputs side by side.

    ``y = [W_1 * x, W_2 * x, W_4 * x, W_8 * x]`` with D/2, D/4, D/8 and the rest of the channels: larger kernels get fewer. All are
    centred on the same patch; beyond the rim lie zeros. Source: arXiv:2108.00154, section 3.1.

    Args:
        channels: C.
        width: D, 8 or more.
        halvings: the stride is ``2 ** halvings`` pixels.

    Raises:
        ConfigError: the width is below 8.
    """

    def __init__(self, channels: int, width: int, *, halvings: int) -> None:
        super().__init__()
        if width < 8:
            raise ConfigError(f"the cross-scale embedding deals its channels out to four kernels; a width of {width} is too few, take 8")
        self.side = 2**halvings
        shares = [width // 2, width // 4, width // 8]
        shares.append(width - sum(shares))
        self.convs = nn.ModuleList(nn.Conv2d(channels, d, self.side * 2**k, stride=self.side) for k, d in enumerate(shares))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised -> (N, D, h, w)."""
        down, across = (-n % self.side for n in x.shape[-2:])
        scales = []
        for k, conv in enumerate(self.convs):
            more = self.side * (2**k - 1)
            near, far = more // 2, more - more // 2
            scales.append(conv(fn.pad(x, (near, far + across, near, far + down))))
        return torch.cat(scales, 1)
