"""A layer: (norm, mixer, scope, sharing, feed-forward, residual rule).

Letters: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.relation import Relation
from unisono.core.tokens import concatenate
from unisono.nn.ffn import NoFeedForward
from unisono.nn.mixer import Mixer, NoMixer
from unisono.nn.part import Flow, Known, Part
from unisono.nn.residual import Residual
from unisono.nn.scope import Scoping
from unisono.nn.step import Step, Walk


@dataclass(frozen=True)
class LayerPlan:
    """What a layer needs of a batch.

    Attributes:
        relation: who mixes with whom.
        asked: (T',) tokens that are a query, or None when all are; the others leave the layer unchanged.
        norms: of the mixer's norms, the first over the keys of a tap as well.
        mixer: of the mixer.
        ffn_norms: of the feed-forward's norms, over the asked tokens.
        ffn: of the feed-forward, over the asked tokens.
        residuals: of the two residual rules.
    """

    relation: Relation
    asked: Tensor | None
    norms: tuple[Any, ...]
    mixer: Any
    ffn_norms: tuple[Any, ...]
    ffn: Any
    residuals: tuple[Any, Any]


class Layer(Step):
    """One layer: ``x`` joined by ``mixer(norm(x))``, then by ``ffn(norm(x))``, as the residual rule says.

    A token that is no query leaves the layer unchanged, feed-forward included. A query without keys gets exactly zero from the mixer.

    Args:
        mixer: mixes tokens within the scope.
        ffn: transforms each token.
        norms: of the mixer, one or more as the residual rule needs.
        ffn_norms: of the feed-forward.
        residuals: the rule, once for each of the two branches.
        scope: who mixes with whom.
        keys: the tap whose tokens are seen instead of the layer's own, or None.
    """

    def __init__(
        self, *, mixer: Mixer, ffn: Part, norms: Sequence[Part], ffn_norms: Sequence[Part], residuals: Sequence[Residual],
        scope: Scoping, keys: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mixer, self.ffn = mixer, ffn
        self.norms, self.ffn_norms = nn.ModuleList(norms), nn.ModuleList(ffn_norms)
        self.residuals = nn.ModuleList(residuals)
        self.scope, self.keys = scope, keys

    def plan(self, walk: Walk) -> LayerPlan:
        """Relation, sets of weights, and whatever the parts need."""
        known, scope = walk.known, (self.scope.text, self.keys)
        seen = known
        if self.keys is not None:
            other = walk.tap(self.keys).meta
            seen = known.once(("keys", self.keys), lambda: Known(concatenate([known.meta, other])))
        own = None if self.keys is None else len(known.meta)
        relation = seen.once(("scope", self.scope.text), lambda: self.scope.relate(seen.meta, own))
        asked = seen.once(("asked", self.scope.text), lambda: _asked(relation, own))
        few = known if asked is None else known.once(("few", scope), lambda: Known(known.meta.select(asked)))
        rule = self.residuals[0]
        assert isinstance(rule, Residual)
        return LayerPlan(
            relation=relation,
            asked=asked,
            norms=tuple((seen if k == 0 else known).part(_part(n)) for k, n in enumerate(self.norms)),
            mixer=self.mixer.plan(seen, relation, scope),
            ffn_norms=tuple(few.part(_part(n)) for n in self.ffn_norms),
            ffn=few.part(self.ffn),
            residuals=(known.part(rule), few.part(_part(self.residuals[1]))),
        )

    def forward(self, x_TD: Tensor, plan: LayerPlan, flow: Flow) -> Tensor:
        """Transform (T, D)."""
        rule, second = self.residuals
        assert isinstance(rule, Residual) and isinstance(second, Residual)
        if rule.parallel:
            return self._parallel(x_TD, plan, flow, rule)
        y_TD = x_TD
        if not isinstance(self.mixer, NoMixer):
            last = self.norms[-1]
            need = plan.norms[-1]
            y_TD = rule.join(x_TD, lambda normed: self._mixed(x_TD, plan, flow, normed), lambda v: last(v, need), plan.residuals[0])
        if isinstance(self.ffn, NoFeedForward):
            return y_TD if plan.asked is None else torch.where(_column(plan, len(x_TD)), y_TD, x_TD)
        part = y_TD if plan.asked is None else y_TD[plan.asked]
        joined = second.join(
            part, lambda normed: self._transformed(part, plan, flow, normed), lambda v: self._last(v, plan), plan.residuals[1]
        )
        return joined if plan.asked is None else x_TD.index_copy(0, plan.asked, joined)

    def _parallel(self, x_TD: Tensor, plan: LayerPlan, flow: Flow, rule: Residual) -> Tensor:
        normed = self.norms[0](x_TD, plan.norms[0])
        change = self._mixed(x_TD, plan, flow, True) + self.ffn(normed, plan.ffn, flow)
        y_TD = x_TD + rule.scaled(change, plan.residuals[0])
        return y_TD if plan.asked is None else torch.where(_column(plan, len(x_TD)), y_TD, x_TD)

    def _mixed(self, x_TD: Tensor, plan: LayerPlan, flow: Flow, normed: bool) -> Tensor:
        """What the mixer gives each token; exactly zero where it sees nothing."""
        t = len(x_TD)
        x = x_TD if self.keys is None else torch.cat([x_TD, flow.taps[self.keys].to(x_TD.dtype)])
        mixed = self.mixer(self.norms[0](x, plan.norms[0]) if normed else x, plan.relation, plan.mixer)[:t]
        if plan.relation.keyed is None:
            return mixed  # type: ignore[no-any-return]
        return torch.where(plan.relation.keyed[:t].unsqueeze(1), mixed, torch.zeros((), dtype=mixed.dtype, device=mixed.device))

    def _transformed(self, x_TD: Tensor, plan: LayerPlan, flow: Flow, normed: bool) -> Tensor:
        result: Tensor = self.ffn(self.ffn_norms[0](x_TD, plan.ffn_norms[0]) if normed else x_TD, plan.ffn, flow)
        return result

    def _last(self, x_TD: Tensor, plan: LayerPlan) -> Tensor:
        result: Tensor = self.ffn_norms[-1](x_TD, plan.ffn_norms[-1])
        return result


def _part(module: nn.Module) -> Part:
    assert isinstance(module, Part)
    return module


def _asked(relation: Relation, own: int | None) -> Tensor | None:
    """The tokens that are a query; None when all are."""
    if relation.queries is None:
        return None
    queries = relation.queries if own is None else relation.queries[:own]
    return None if bool(queries.all()) else torch.nonzero(queries).squeeze(1)


def _column(plan: LayerPlan, tokens: int) -> Tensor:
    assert plan.relation.queries is not None
    return plan.relation.queries[:tokens].unsqueeze(1)
