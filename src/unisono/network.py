"""The network that a recipe and a schema describe together: tokenisers, trunk, heads.

Letters: B samples, T tokens, D width, K scores of a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unisono.core.registry import Count, check
from unisono.core.schema import Schema
from unisono.modalities.groups import Group, group_columns
from unisono.nn.trunk import build_trunk
from unisono.ops.segment import segment_mean
from unisono.recipe import Recipe, build_objective
from unisono.table.batching import Batch
from unisono.tasks.base import Task, tasks

import os
ADD = bool(os.environ.get('ADD'))
SHARED = bool(os.environ.get('SHARED'))

@dataclass(frozen=True)
class Output:
    """What the network says of a batch.

    Attributes:
        pooled: (B, D) one vector a row.
        scores: target name -> (B, K) raw scores.
    """

    pooled: Tensor
    scores: dict[str, Tensor]
    alone: dict[str, Tensor] | None = None
    rows: Tensor | None = None


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
        self.groups: Sequence[Group] = group_columns(schema.columns, recipe["tokens"])
        self.tokenisers = nn.ModuleList(g.tokeniser.module(g.columns, width) for g in self.groups)
        self.column = nn.Embedding(len(schema.columns), width)
        nn.init.normal_(self.column.weight, std=0.02)
        self.trunk = build_trunk(
            recipe["trunk"],
            recipe["defaults"],
            width=width,
            num_modalities=len(schema.modalities),
            where=f"recipe {recipe.name}",
        )
        self.target_names = tuple(t.name for t in schema.targets)
        self.tasks: dict[str, Task] = {t.name: build_task(recipe, t.task) for t in schema.targets}
        self.heads = nn.ModuleList(self.tasks[t.name].head(width, t.statistics) for t in schema.targets)
        self.outputs = [head_outputs(head) for head in self.heads]
        self.num_sources = len(schema.sources)
        self.alone = build_objective(recipe).alone if self.num_sources > 1 else 0.0
        self.own = nn.ModuleList(
            nn.ModuleList(self.tasks[t.name].head(width, t.statistics) for t in schema.targets)
            for _ in range(self.num_sources if self.alone and not SHARED else 0)
        )
        wide = [(g.name, g.tokeniser.wide(g.columns, sum(self.outputs))) for g in self.groups]
        self.wide_names = tuple(name for name, part in wide if part is not None)
        self.wide = nn.ModuleList(part for _, part in wide if part is not None)

    def tokens(self, batch: Batch) -> Tensor:
        """The batch's token values (T, D) in physical order."""
        parts = [module(batch.packed[g.name]) for g, module in zip(self.groups, self.tokenisers, strict=True)]
        values = torch.cat([p.float() for p in parts])[batch.order]
        column: Tensor = self.column(batch.plan.meta.column)
        return values + column

    def forward(self, batch: Batch) -> Output:
        """From packed cells to scores."""
        values = self.tokens(batch)
        pooled = self.trunk(values, batch.plan)
        scores = {name: head(pooled).float() for name, head in zip(self.target_names, self.heads, strict=True)}
        if self.wide:
            parts = [part(batch.packed[name], len(pooled)) for name, part in zip(self.wide_names, self.wide, strict=True)]
            straight = torch.split(torch.stack([p.float() for p in parts]).sum(0), self.outputs, 1)
            scores = {name: deep + direct for (name, deep), direct in zip(scores.items(), straight, strict=True)}
        alone, rows = None, None
        if self.alone and (self.training or ADD):
            alone, rows = self.by_source(values, batch)
            if ADD:
                scores = {n: v.index_add(0, rows, alone[n]) for n, v in scores.items()}
        return Output(pooled.float(), scores, alone, rows)

    def by_source(self, values: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Scores of each row's sources alone, from the mean of their tokens, and the row of each."""
        meta = batch.plan.meta
        key, back = torch.unique(meta.source * batch.plan.num_samples + meta.sample, return_inverse=True)
        mean = nn.functional.layer_norm(segment_mean(values, back, len(key)), (self.width,))
        sizes = torch.bincount(key // batch.plan.num_samples, minlength=self.num_sources).tolist()
        parts = mean.split(sizes)
        if SHARED:
            return {name: head(mean).float() for name, head in zip(self.target_names, self.heads, strict=True)}, key % batch.plan.num_samples
        scores = {
            name: torch.cat([own[k](part) for own, part in zip(self.own, parts, strict=True)]).float() for k, name in enumerate(self.target_names)
        }
        return scores, key % batch.plan.num_samples


def head_outputs(head: nn.Module) -> int:
    """How many scores K a head has: what it says of one pooled vector."""
    width = next(p for p in head.parameters() if p.ndim > 1).shape[1]
    with torch.no_grad():
        return int(head(torch.zeros(1, width)).shape[1])


def build_task(recipe: Recipe, word: str) -> Task:
    """The task for a target, with the settings that the recipe's ``tasks`` gives it."""
    return tasks.build(recipe.settings.get("tasks", {}).get(word, word), where=f"recipe {recipe.name}: tasks.{word}")
