"""Objectives over what a trunk gives: a loss, and the few weights that it needs between the states and itself.

An objective is a module whose ``forward`` takes states and targets and gives a scalar: a pure function with a thin module around it.

Letters: D width of the states.
"""

from __future__ import annotations

from torch import nn

from unisono.core.registry import Registry


class Objective(nn.Module):
    """A loss over representations, in float32 or better; what a row lacks adds exactly nothing and gets no gradient."""


objectives: Registry[Objective] = Registry("objective", Objective, package="unisono.objectives", runtime=("width", "sources", "kinds"))
