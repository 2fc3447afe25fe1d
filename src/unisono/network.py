"""The network that a recipe and a schema describe together: tokenisers, trunk, heads.

Letters: B samples, T tokens, D width, K scores of a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unisono.compress.fold import FOLDS, Note, fold
from unisono.compress.pack import pack_linears
from unisono.core.errors import ConfigError, nearest
from unisono.core.names import Names
from unisono.core.registry import Count, check
from unisono.core.schema import MODALITIES, Schema
from unisono.core.tokens import Meta
from unisono.modalities.groups import Group, group_columns
from unisono.nn.alone import Alone, OwnHeads
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame
from unisono.nn.space import Side
from unisono.nn.trunk import Result
from unisono.objectives.align import Alignments
from unisono.objectives.base import objectives
from unisono.objectives.matching import Matching
from unisono.recipe import Recipe, build_objective
from unisono.table.batching import Batch
from unisono.tasks.base import Task, tasks

#: The tap whose tokens make the shared space, where a trunk saves one.
SPACE = "space"
#: The words for half precision and for laying out weights in advance, and everything that ``Network.fold`` can do, in order.
HALF, PACK = "half", "pack"
WORDS = (*FOLDS, HALF, PACK)
#: Those that change nothing but the order of sums.
LOSSLESS = (*FOLDS, PACK)


@dataclass(frozen=True)
class Output:
    """What the network says of a batch.

    Attributes:
        pooled: (B, D) one vector a row; the mean over targets where each has its own.
        scores: target name -> (B, K) raw scores.
        extra: terms that the trunk adds to the loss, a scalar; None for none.
        earlier: what the reads before the last say, in their order: target name -> (B, K) of each; without the wide part.
        alone: what single sources say, in training; None where the objective does not ask.
        shown: what each source shows in each shared space, the model's own first; empty without an alignment.
        tapped: the tokens that make the space and what is known of them, for pairs; None where no pairs are matched.
    """

    pooled: Tensor
    scores: dict[str, Tensor]
    extra: Tensor | None = None
    earlier: tuple[dict[str, Tensor], ...] = ()
    alone: Alone | None = None
    shown: tuple[dict[str, Side], ...] = ()
    tapped: tuple[Tensor, Meta] | None = None


class Network(nn.Module):
    """Tokenisers, trunk and heads of one model, and the wide part beside them: ``scores = head(trunk(tokens)) + wide(cells)``.

    Args:
        recipe: the resolved recipe.
        schema: columns and targets with fitted statistics.
    """

    def __init__(self, *, recipe: Recipe, schema: Schema) -> None:
        super().__init__()
        width = check(recipe["width"], Count, f"recipe {recipe.name}: width")
        self.width = width
        check_needs(recipe, schema)
        self.groups: Sequence[Group] = group_columns(schema.columns, recipe["tokens"])
        self.tokenisers = nn.ModuleList(g.tokeniser.module(g.columns, width) for g in self.groups)
        self.column = nn.Embedding(len(schema.columns), width)
        nn.init.normal_(self.column.weight, std=0.02)
        self.trunk = build_trunk(
            recipe["trunk"],
            recipe["defaults"],
            width=width,
            num_modalities=len(schema.modalities),
            frame=Frame(names_of(schema), num_edge_values=edge_values(schema)),
            where=f"recipe {recipe.name}",
        )
        self.target_names = tuple(t.name for t in schema.targets)
        self.tasks: dict[str, Task] = {t.name: build_task(recipe, t.task) for t in schema.targets}
        self.heads = nn.ModuleList(self.tasks[t.name].head(width, t.statistics) for t in schema.targets)
        self.outputs = [head_outputs(head) for head in self.heads]
        objective = build_objective(recipe)
        asked = objective.supervised is not None and objective.supervised.alone > 0
        own = schema.sources if asked and len(schema.sources) > 1 else ()
        self.alone = OwnHeads({t.name: [self.tasks[t.name].head(width, t.statistics) for _ in own] for t in schema.targets})
        wide = [(g.name, g.tokeniser.wide(g.columns, sum(self.outputs)) if self.outputs else None) for g in self.groups]
        self.wide_names = tuple(name for name, part in wide if part is not None)
        self.wide = nn.ModuleList(part for _, part in wide if part is not None)
        self.alignments: Alignments | None = None
        if objective.align:
            where = f"recipe {recipe.name}: objective"
            kinds = {c.source: c.modality for c in schema.columns if c.source == c.name}
            self.alignments = Alignments(objective.align, width=width, sources=schema.sources, where=where, kinds=kinds)
        self.matching: Matching | None = None
        if objective.matching is not None:
            built = objectives.build(objective.matching, where=f"recipe {recipe.name}: objective", width=width)
            self.matching = built if isinstance(built, Matching) else None
            if not self.trunk.after(SPACE):
                raise ConfigError(
                    f"recipe {recipe.name}: matching judges pairs by layers in which sources meet: put a step {{save: {SPACE}}} before them"
                )
        self.folds: tuple[str, ...] = ()

    @property
    def aligned(self) -> bool:
        """Whether sources share a space."""
        return self.alignments is not None

    def fold(self, word: str) -> list[Note]:
        """Do one fold of ``FOLDS``, take the trunk to bfloat16 (``half``), or ``pack`` the linear maps, in place; ``folds`` remembers it.

        Raises:
            ConfigError: there is no such fold.
        """
        self.eval()
        if word == PACK:
            count = pack_linears(self)
            notes = [Note(word, "network", count > 0, f"{count} linear maps are laid out in advance, at every load again")]
        elif word == HALF:
            self.trunk.to(torch.bfloat16)
            notes = [Note(word, "trunk", True, "weights and tokens in bfloat16, read-outs and heads in float32")]
        else:
            notes = fold(self.trunk, word)
        self.folds += (word,)
        return notes

    def tokens(self, batch: Batch) -> Tensor:
        """The batch's token values (T, D) in physical order."""
        parts = [module(batch.packed[g.name]) for g, module in zip(self.groups, self.tokenisers, strict=True)]
        values = torch.cat([p.float() for p in parts])[batch.order]
        column: Tensor = self.column(batch.plan.meta.column)
        return values + column

    def forward(self, batch: Batch) -> Output:
        """From packed cells to scores."""
        values = self.tokens(batch)
        result = self.trunk.run(values.to(torch.bfloat16) if HALF in self.folds else values, batch.plan)
        each = self.of_targets(result.pooled, batch)
        pooled = torch.stack(each).mean(0) if len(result.pooled) > len(batch.rows) else result.pooled
        scores = self.said(each)
        earlier = tuple(self.said(self.of_targets(read, batch)) for read in list(result.flow.reads.values())[:-1])
        if self.wide:
            parts = [part(batch.packed[name], len(pooled)) for name, part in zip(self.wide_names, self.wide, strict=True)]
            straight = torch.split(torch.stack([p.float() for p in parts]).sum(0), self.outputs, 1)
            scores = {name: deep + direct for (name, deep), direct in zip(scores.items(), straight, strict=True)}
        extra = result.flow.extra
        alone = self.alone(values, batch.plan.meta) if self.training and self.alone.sources else None
        added = torch.stack([e.float() for e in extra]).sum() if extra else None
        if self.alignments is None:
            return Output(pooled.float(), scores, added, earlier, alone)
        values, meta = spaced(result, batch)
        tapped = (values, meta) if self.matching is not None and self.training else None
        return Output(pooled.float(), scores, added, earlier, alone, self.alignments.show(values.float(), meta), tapped)

    @torch.no_grad()
    def centre(self, batch: Batch) -> None:
        """Set the centres of shared spaces by a batch, before training."""
        if self.alignments is not None:
            values, meta = spaced(self.trunk.run(self.tokens(batch), batch.plan), batch)
            self.alignments.centre(values.float(), meta)

    def of_targets(self, pooled: Tensor, batch: Batch) -> list[Tensor]:
        """What a read gave each target, (B, D) each: after a fork by task its own part, else the same for all."""
        rows = len(batch.rows)
        return [pooled] * len(self.heads) if len(pooled) == rows else list(pooled.view(len(self.heads), rows, -1))

    def said(self, each: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the heads say of it, target name -> (B, K)."""
        return {name: head(own).float() for name, head, own in zip(self.target_names, self.heads, each, strict=True)}


def spaced(result: Result, batch: Batch) -> tuple[Tensor, Meta]:
    """The tokens that make a shared space: those that the trunk saves as ``space``, or those that leave it."""
    taps = result.flow.taps
    return (taps[SPACE], result.flow.metas[SPACE]) if SPACE in taps else (result.tokens, batch.plan.last)


def check_needs(recipe: Recipe, schema: Schema) -> None:
    """Make sure that the table has what the recipe is about.

    Raises:
        ConfigError: a modality that the recipe needs is missing.
    """
    needs = recipe.settings.get("needs") or []
    for word in [needs] if isinstance(needs, str) else needs:
        if word not in MODALITIES:
            raise ConfigError(f"recipe {recipe.name}: needs: {word!r} is no modality{nearest(str(word), MODALITIES)}")
        if word not in schema.modalities:
            has = ", ".join(schema.modalities)
            raise ConfigError(f"recipe {recipe.name}: it needs a column of the modality {word}, but the table has {has}; take another")


def freeze(network: Network, names: Sequence[str]) -> None:
    """Keep parts of a network as they are.

    Args:
        network: its parameters are changed to need no gradient.
        names: of its parts.

    Raises:
        ConfigError: there is no such part, or nothing is left to train.
    """
    parts = dict(network.named_children())
    for name in names:
        if name not in parts:
            raise ConfigError(f"train.freeze: the network has no part {name!r}{nearest(name, parts)}")
        parts[name].requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError(f"train.freeze: {', '.join(names)} leave nothing to be trained")


def names_of(schema: Schema) -> Names:
    """The names a recipe may use for a schema's tokens."""
    return Names(schema.modalities, tuple(c.name for c in schema.columns), schema.sources, tuple(t.name for t in schema.targets))


def edge_values(schema: Schema) -> int:
    """The most numbers that an edge of any graph column carries."""
    return max((len(c.statistics.get("edge_mean", ())) for c in schema.columns if c.modality == "graph"), default=0)


def head_outputs(head: nn.Module) -> int:
    """How many scores K a head has: what it says of one pooled vector."""
    width = next(p for p in head.parameters() if p.ndim > 1).shape[1]
    with torch.no_grad():
        return int(head(torch.zeros(1, width)).shape[1])


def build_task(recipe: Recipe, word: str) -> Task:
    """The task for a target, with the settings that the recipe's ``tasks`` gives it."""
    return tasks.build(recipe.settings.get("tasks", {}).get(word, word), where=f"recipe {recipe.name}: tasks.{word}")
