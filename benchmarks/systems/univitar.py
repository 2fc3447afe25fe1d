"""Pictures at their own size and aspect ratio (arXiv:2504.01792; recipe ``univitar``).

Claim: patches packed as they are keep what squashing to a square loses. Exact (``tests/systems/test_univitar.py``): packed pictures equal
pictures one by one; scores of rotary attention depend on relative offsets alone; a still is a clip of one frame, from its pixels to the
end. Waiting: distillation from a frozen teacher; one patch embedding for columns of two modalities; batches that alternate.

A disc or a square, round or stretched twofold up or across, in one of three shades: eighteen captions. Pictures have the ratios 1, 3/2
and 2/3 in training, and
2 and 1/2 in the test, all of about as many pixels. Picture and caption are matched by the pairwise sigmoid loss; recall is of the right
caption among all. The baseline squashes pictures to 24 x 24 and has learned positions. ``curriculum`` trains on squares for the first
half and on every ratio then, with as many steps as ``ours``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import Goal, Measured, Values, row
from benchmarks.systems.grids import GridModel, parameters, shape_masks, train
from unisono.modalities.pixels import resize

WIDTH, PATCH, SQUARE, STEPS, BATCH = 32, 4, (24, 24), 250, 64
#: Ratio of height to width -> sides in pixels.
SEEN = ((24, 24), (28, 20), (20, 28))
UNSEEN = ((32, 16), (16, 32))
STRETCH = ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0))
KINDS, SHADES = 2, 3
CAPTIONS = KINDS * len(STRETCH) * SHADES
NATIVE = {"norm": "rms", "mixer": "attention(heads=4, rotary=2, qk_norm=true)", "ffn": "gated(2)", "scope": "cell"}
SQUASHED = {**NATIVE, "mixer": "attention(heads=4, qk_norm=true)"}


def pictures(rng: np.random.Generator, count: int, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures (N, H, W, 1) of one size, and their captions; what is round or stretched is so in pixels, whatever the picture's ratio."""
    kind, stretch, shade = (rng.integers(0, n, count) for n in (KINDS, len(STRETCH), SHADES))
    pixels = rng.uniform(0.3, 0.48, count)[:, None] * min(size) * np.array(STRETCH)[stretch]
    radius = pixels / np.array(size)
    centre = 0.5 + (rng.random((count, 2)) - 0.5) * (1 - 2 * radius)
    mask = shape_masks(kind, centre, radius, size)
    x = mask * (1.0 + shade[:, None, None]) - 0.5 + 0.1 * rng.normal(size=mask.shape)
    return x.astype(np.float32)[..., None], (kind * len(STRETCH) + stretch) * SHADES + shade


class Patches(nn.Module):
    """Patches of 4 x 4 pixels; squashed to a square first where there is a table of positions."""

    def __init__(self, *, table: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH), nn.LayerNorm(WIDTH)
        self.table = nn.Parameter(torch.randn(SQUARE[0] // PATCH, SQUARE[1] // PATCH, WIDTH) * 0.3) if table else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, 1) -> (N, h, w, D)."""
        if self.table is not None:
            x = torch.from_numpy(resize(x.numpy(), SQUARE))
        tokens: Tensor = self.norm(self.stem(x.movedim(-1, 1)).movedim(1, -1))
        return tokens if self.table is None else tokens + self.table


class Matcher(nn.Module):
    """Pictures and captions in one space, with the scale and offset of the sigmoid loss (arXiv:2303.15343)."""

    def __init__(self, eye: GridModel) -> None:
        super().__init__()
        self.eye, self.captions = eye, nn.Embedding(CAPTIONS, WIDTH)
        self.scale, self.offset = nn.Parameter(torch.tensor(2.3)), nn.Parameter(torch.tensor(-3.0))

    def forward(self, x: Tensor) -> Tensor:
        """The logit of each picture with each caption, (N, 18)."""
        seen, said = nn.functional.normalize(self.eye(x), dim=1), nn.functional.normalize(self.captions.weight, dim=1)
        return seen @ said.T * self.scale.exp() + self.offset


def sigmoid_loss(model: Matcher, x: Any, wanted: Tensor) -> Tensor:
    """Every pair of a picture and a caption is a yes or a no."""
    right = nn.functional.one_hot(wanted, CAPTIONS).float()
    return nn.functional.binary_cross_entropy_with_logits(model(torch.from_numpy(x)), right, reduction="sum") / len(wanted)


def ratio(found: Values) -> dict[str, tuple[float | None, str]]:
    """Our drop as a share of the baseline's, and what the curriculum gains."""
    ours, base = found.mean("drop", "ours"), found.mean("drop", "baseline")
    first, last = found.mean("unseen", "curriculum"), found.mean("unseen", "ours")
    gain = None if first is None or last is None else first - last
    return {"drop_ratio": (None if ours is None or not base else ours / base, "of the baseline's drop"), "curriculum_gain": (gain, "share")}


@row(
    "systems/univitar",
    goals=[Goal("drop_ratio", must=0.5, better="lower"), Goal("curriculum_gain", must=0.0)],
    arms=("ours", "baseline", "curriculum"),
    seeds=(0, 1, 2),
    derive=ratio,
)
def univitar(*, arm: str, seed: int) -> Measured:
    """Recall of captions at aspect ratios that were not trained on: pictures as they are against pictures squashed to a square."""
    torch.manual_seed(seed)
    squash, step = arm == "baseline", iter(range(STEPS))
    steps: list[Any] = [{"repeat": 2}, {"read": "mean"}]
    eye = GridModel(
        steps=steps, defaults=SQUASHED if squash else NATIVE, channels=1, outputs=WIDTH, width=WIDTH, position=False,
        embed=Patches(table=squash),
    )  # fmt: skip
    model = Matcher(eye)

    def draw(rng: np.random.Generator, n: int) -> Any:
        early = arm == "curriculum" and next(step) < STEPS // 2
        return pictures(rng, n, SQUARE if early else SEEN[rng.integers(len(SEEN))])

    train(model, draw, seed=seed, steps=STEPS, batch=BATCH, lr=5e-3, loss=sigmoid_loss)
    rng, shares = np.random.default_rng(9_000_000 + seed), {}
    for size in (*SEEN, *UNSEEN):
        x, wanted = pictures(rng, 400, size)
        with torch.no_grad():
            shares[size] = float((model(torch.from_numpy(x)).argmax(1).numpy() == wanted).mean())
    seen, unseen = (float(np.mean([shares[s] for s in sizes])) for sizes in (SEEN, UNSEEN))
    found = {"seen": seen, "unseen": unseen, "drop": seen - unseen}
    return {**{k: (v, "share") for k, v in found.items()}, "parameters": (parameters(model), "numbers")}
