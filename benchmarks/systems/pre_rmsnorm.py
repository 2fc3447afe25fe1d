"""Pre-RMSNorm and Pre-CRMSNorm (arXiv:2305.14858; recipes ``pre-rmsnorm`` and ``pre-crmsnorm``, conversions in ``unisono.compress``).

Claim: a pre-norm transformer with layer norms is one with RMS norms, or one that carries a value less of each token. Exact
(``tests/systems/test_pre_rmsnorm.py``): converted trunks agree to 1e-11 in float64 in training and evaluation, in both forms; training goes
on as it would have for 50 steps when the means are taken off in every pass; other residual rules, other norms and a missing last norm are
refused, and dropout behind the attention's last map where training is to go on.

A digit transformer is trained with layer norms and converted; times are of a forward pass over 500 digits, the arms taking turns.
"""

from __future__ import annotations

import copy
import time

import torch

from benchmarks import Goal, Measured, row
from benchmarks.systems.norming import Classifier, accuracy, batch_meta, cell_meta, digits, fit, grid, patches
from unisono.compress.fold import fold
from unisono.compress.rms import compressed
from unisono.nn.trunk import Trunk


@row(
    "systems/pre-rmsnorm",
    goals=[
        Goal("rms_difference", must=1e-5, better="lower"),
        Goal("compressed_difference", must=1e-5, better="lower"),
        Goal("accuracy_change", must=0.0, better="lower"),
        Goal("rms_time"),
        Goal("compressed_time"),
    ],
    seeds=(0, 1, 2),
)
def pre_rmsnorm(*, arm: str, seed: int) -> Measured:
    """How far converted digit transformers are from the original, relative to the largest score, and their time as a share of its."""
    data = digits(seed)
    torch.manual_seed(seed)
    model = Classifier("layer", 4, cell_meta(0, grid(4, 4)), 10, {})
    fit(model, patches(data.x)[data.train], data.y[data.train], steps=200, batch=64, lr=3e-3, seed=seed)
    x, y = patches(data.x[data.test]), data.y[data.test]
    trunks = {"layer": model.trunk, "rms": copy.deepcopy(model.trunk), "compressed": compressed(model.trunk)}
    for word in ("affine", "rms"):
        fold(trunks["rms"], word)
    found: dict[str, tuple[float, str]] = {}
    scores, accuracies = {}, []
    for name, trunk in trunks.items():
        model.trunk, model.made = trunk, {}
        with torch.no_grad():
            scores[name] = model(x)
        accuracies.append(accuracy(model, x, y))
    for name in ("rms", "compressed"):
        found[f"{name}_difference"] = (float((scores[name] - scores["layer"]).abs().max() / scores["layer"].abs().max()), "share")
    found["accuracy_change"] = (max(accuracies) - min(accuracies), "share")
    times = _times(model, trunks, x)
    return {**found, **{f"{name}_time": (times[name] / times["layer"], "share") for name in ("rms", "compressed")}}


@torch.no_grad()
def _times(model: Classifier, trunks: dict[str, Trunk], x: torch.Tensor) -> dict[str, float]:
    """The median time of each trunk's pass, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in trunks}
    for _ in range(15):
        for name, trunk in trunks.items():
            model.trunk = trunk
            model.made = {len(x): trunk.plan(batch_meta(model.sample, len(x)))}
            begin = time.perf_counter()
            model(x)
            times[name].append(time.perf_counter() - begin)
    return {name: sorted(found)[len(found) // 2] for name, found in times.items()}
