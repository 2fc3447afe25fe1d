"""A stream without mean over channels: every part that writes to it gives its share without one (arXiv:2305.14858).

A layer norm takes the mean off before it does anything else, so where every part reads the stream through a layer norm nothing but the
norms sees the mean. Once no part writes one, a layer norm of the stream is an RMS norm of it, with the same eps.

Letters: T tokens, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unisono.compress.branch import Branch, branches, kind_of, norms_of, walk
from unisono.nn.affine import Standard, affine_of, centred, parted, write_affine
from unisono.nn.fork import ForkByTask, Within
from unisono.nn.insert import Bottleneck
from unisono.nn.layer import Layer
from unisono.nn.norm import LayerNorm, Norm
from unisono.nn.part import Flow, Part
from unisono.nn.read import Read
from unisono.nn.resample import Expand, Merge, Pool
from unisono.nn.residual import Parallel, Pre
from unisono.nn.share import Linear, PerSet
from unisono.nn.step import Step, Walk
from unisono.nn.tap import AddBridge, Save
from unisono.nn.trunk import Trunk
from unisono.ops.segment import segment_mean


class Centre(Step):
    """``x - mean(x)`` over the channels of each token, on entering a trunk."""

    def plan(self, walk: Walk) -> None:
        """Nothing."""
        return

    def forward(self, x_TD: Tensor, plan: Any, flow: Flow) -> Tensor:
        """Take the mean off (T, D)."""
        return x_TD - x_TD.mean(1, keepdim=True)


def centre_stream(trunk: Trunk) -> tuple[str | None, int]:
    """Turn layer norms into RMS norms, in place.

    Returns:
        Why it cannot be done (empty: there is no layer norm), or None and how many norms were turned.
    """
    steps, everything = list(walk(trunk)), branches(trunk)
    reason = hindrance(trunk)
    if reason is not None:
        return reason, 0
    writers = {id(m): m for b in everything for bundle in b.writes or () for m in bundle.parts}
    for linear in writers.values():
        assert isinstance(linear, Linear)
        write_affine(linear, centred(affine_of(linear)))
    for _, step in steps:
        _centre(step)
    count = sum(_turn_norms(step) for _, step in steps)
    trunk.steps.insert(0, Centre())
    trunk.names = ("centre", *trunk.names)
    return None, count


def hindrance(trunk: Trunk) -> str | None:
    """Why layer norms are no RMS norms, with the place; empty where there is none, None where nothing hinders."""
    if not any(isinstance(m, LayerNorm) or (isinstance(m, Standard) and m.centre) for m in trunk.modules()):
        return ""
    for name, step in walk(trunk):
        reason = _hinders(step)
        if reason is not None:
            return f"{name}: {reason}"
    for b in branches(trunk):
        reason = _branch_hinders(b)
        if reason is not None:
            return f"{b.place}: {reason}"
    return None


def _hinders(step: Step) -> str | None:
    """Why a step's tokens would have a mean, or be read otherwise than through a layer norm."""
    if type(step) in {Save, AddBridge, Within, ForkByTask, Bottleneck, Merge, Centre}:
        return None
    if type(step) is Pool:
        return None if step.pool is segment_mean else "a maximum over tokens has a mean again"
    if isinstance(step, Expand):
        return "its map reads the stream without a norm"
    if isinstance(step, Read):
        return None if _is_centred(step.norm) else f"{kind_of(step.norm)} looks at the mean"
    if type(step) is not Layer:
        return f"{kind_of(step)} may look at the mean"
    for norms in (step.norms, step.ffn_norms):
        for norm in norms:
            if not _is_centred(norm):
                return f"{kind_of(norm)} looks at the mean, or is shared in a way of its own"
    return None


def _branch_hinders(b: Branch) -> str | None:
    """Why a branch would give the stream a mean."""
    if type(b.rule) not in {Pre, Parallel}:
        return f"the residual rule {kind_of(b.rule)} may put a mean into the stream"
    if b.rule.scale is not None:
        return "the branch is scaled channel by channel; fold the scale first"
    return "its last map is not known" if b.writes is None else None


def _is_centred(part: nn.Module) -> bool:
    bundle = norms_of(part)
    return bundle is not None and all(type(n) is LayerNorm or (isinstance(n, Standard) and n.centre) for n in bundle.parts)


def _centre(step: Step) -> None:
    """What a step itself writes, without its mean."""
    if isinstance(step, Bottleneck):
        step.values.sub_(step.values.mean(1, keepdim=True))
    elif isinstance(step, Merge):
        step.maps.sub_(step.maps.mean(2, keepdim=True))


def _turn_norms(step: Step) -> int:
    if isinstance(step, Read):
        step.norm = _turned(step.norm)
        return 1
    if not isinstance(step, Layer):
        return 0
    for norms in (step.norms, step.ffn_norms):
        for k, norm in enumerate(norms):
            norms[k] = _turned(norm)
    return len(step.norms) + len(step.ffn_norms)


def _turned(part: nn.Module) -> Part:
    """A layer norm, or one for each set, as an RMS norm."""
    if isinstance(part, PerSet):
        return PerSet([_turned(p) for p in part.parts], part.by, part.key)
    assert isinstance(part, Norm)
    if isinstance(part, Standard):
        new = Standard(width=part.shape[0], eps=part.eps, centre=False, scale=part.scale, shift=part.shift)
        return new.to(part.one)
    found = parted(part)
    assert found is not None
    return Standard(width=len(found.scale), eps=found.eps, centre=False, scale=found.scale, shift=found.shift).to(found.scale)
