"""Skills: feed-forward blocks that are used together as a recipe declares, without a router.

Letters: T tokens, D width, S skills.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError, nearest
from unisono.core.names import Names
from unisono.core.registry import Traits
from unisono.core.schema import MODALITIES
from unisono.core.tokens import Meta
from unisono.nn.part import Flow, Frame, Known, Part
from unisono.nn.share import Make, Sharing, sharings

By = Literal["modality", "source", "column", "task"]
CROSS = "cross"


@dataclass(frozen=True)
class SkillsPlan:
    """Who uses which block.

    Attributes:
        tokens: for each block the tokens that use it; None for all of them.
        active: (T, 1) number of blocks that a token uses, or None where it is 1 for all.
        parts: what each block needs.
    """

    tokens: tuple[Tensor | None, ...]
    active: Tensor | None
    parts: tuple[Any, ...]


def _sizes(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class Skills(Part):
    """``y = mean over the active skills s of E_s(x)``; a block that no token uses is not run.

    Args:
        parts: the block of each skill, by name.
        labels: for each label the skills that are active.
        by: which field of the metadata labels tokens; a negative one is the last label.
        cross: whether the skill ``cross`` is active as well for samples of more than one modality.
    """

    def __init__(self, *, parts: Mapping[str, Part], labels: Mapping[str, Sequence[str]], by: By, cross: bool) -> None:
        super().__init__()
        self.names, self.labels = tuple(parts), {name: tuple(skills) for name, skills in labels.items()}
        self.parts = nn.ModuleList(parts.values())
        self.by, self.cross = by, cross

    def plan_key(self) -> Hashable:
        """The declaration, and what the blocks need."""
        first = self.parts[0]
        assert isinstance(first, Part)
        return ("skills", self.by, self.cross, tuple(self.labels.items()), first.plan_key())

    def active(self, meta: Meta) -> Tensor:
        """Which blocks each token uses, (T, S) bool."""
        table = torch.tensor([[name in skills for name in self.names] for skills in self.labels.values()])
        found = table[_label(meta, self.by).clamp(-1, len(table) - 1)]
        if self.cross:
            own = meta.modality < meta.num_modalities
            has = torch.zeros(meta.num_samples, meta.num_modalities, dtype=torch.bool)
            has[meta.sample[own], meta.modality[own]] = True
            found[:, self.names.index(CROSS)] = (has.sum(1) > 1)[meta.sample]
        return found

    def plan(self, meta: Meta) -> SkillsPlan:
        """The tokens of each block, and what it needs of them."""
        active = self.active(meta)
        tokens: list[Tensor | None] = []
        needs: list[Any] = []
        for mine, part in zip(active.T, self.parts, strict=True):
            assert isinstance(part, Part)
            index = None if len(meta) and bool(mine.all()) else mine.nonzero().squeeze(1)
            tokens.append(index)
            needs.append(None if part.plan_key() is None else Known(meta if index is None else meta.select(index)).part(part))
        counts = active.sum(1, keepdim=True)
        return SkillsPlan(tuple(tokens), None if bool((counts == 1).all()) else counts, tuple(needs))

    def forward(self, x_TD: Tensor, plan: SkillsPlan, flow: Flow | None = None) -> Tensor:
        """Transform (T, D)."""
        total: Tensor | None = None
        for part, index, need in zip(self.parts, plan.tokens, plan.parts, strict=True):
            if index is None:
                y_TD = part(x_TD, need, flow)
                total = y_TD if total is None else total + y_TD
            elif len(index):
                y_ND = part(x_TD[index], need, flow)
                total = (y_ND.new_zeros(x_TD.shape) if total is None else total).index_add(0, index, y_ND)
        if total is None:
            return torch.zeros_like(x_TD)
        return total if plan.active is None else total / plan.active

    def sizes(self) -> dict[str, tuple[int, int]]:
        """For each label the number of weights that its tokens use, and of all."""
        size = {name: _sizes(part) for name, part in zip(self.names, self.parts, strict=True)}
        return {label: (sum(size[s] for s in skills), sum(size.values())) for label, skills in self.labels.items()}

    def extra_repr(self) -> str:
        """The skills of each label, and how many of the weights they are."""
        return "\n".join(
            f"{label}: {' + '.join(self.labels[label])}, {active:,} of {total:,} weights" for label, (active, total) in self.sizes().items()
        )


def _label(meta: Meta, by: By) -> Tensor:
    """(T,) number of each token's label."""
    if by == "task":
        return torch.zeros_like(meta.sample) if meta.task is None else meta.task
    found: Tensor = getattr(meta, by)
    return found


def _known(names: Names, by: By) -> tuple[str, ...]:
    found: dict[str, Callable[[], tuple[str, ...]]] = {
        "modality": lambda: names.modalities, "source": lambda: names.sources, "column": lambda: names.columns, "task": lambda: names.tasks,
    }  # fmt: skip
    return found[by]()


@sharings.register(
    "skills",
    source="arXiv:2205.06126",
    traits=Traits(exempt={"gradient": "the block of a skill that no token has, inserted ones among them, is left untouched"}),
)
class ShareSkills(Sharing):
    """A feed-forward block for each skill; a token uses the blocks that are declared for it, and their outputs are averaged.

    Args:
        active: name of a modality, source, column or target -> its skills, any words; one that is not listed has a single skill of its
            own name. Tokens that no name covers, inserted ones for example, are listed as ``inserted``.
        by: what the names are of. Targets have tokens of their own behind a ``fork`` by task alone; before it those of the first.
        cross: whether the skill ``cross`` is active besides for samples that have more than one modality.

    Raises:
        ConfigError: a name is not known, or has no skill.
    """

    roles = ("ffn",)

    def __init__(self, *, active: Mapping[str, Sequence[str]] | None = None, by: By = "modality", cross: bool = False) -> None:
        self.declared = {name: tuple(dict.fromkeys(skills)) for name, skills in (active or {}).items()}
        self.by: By = by
        self.cross = cross
        for name, skills in self.declared.items():
            if not skills:
                raise ConfigError(f"skills.active.{name}: at least one skill is needed")
            if cross and CROSS in skills:
                raise ConfigError(f"skills.active.{name}: with cross=true the skill 'cross' is active by itself; leave it out")

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """A block for each skill that any token may have."""
        names = _known(frame.names, self.by)
        if not names and self.by == "modality":
            names = tuple(f"modality{k}" for k in range(frame.num_modalities - 1))
        valid = {*names, "inserted", *(MODALITIES if self.by == "modality" else ())}
        for given in self.declared:
            if given not in valid:
                raise ConfigError(f"skills.active: no {self.by} is called {given!r}{nearest(given, sorted(valid))}")
        labels = {label: self.declared.get(label, (label,)) for label in (*names, "inserted")}
        skills = dict.fromkeys([s for own in labels.values() for s in own] + ([CROSS] if self.cross else []))
        return Skills(parts={s: make() for s in skills}, labels=labels, by=self.by, cross=self.cross)
