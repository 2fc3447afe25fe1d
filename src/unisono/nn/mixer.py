"""Mixers: how tokens that may see each other exchange what they know."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Index, Probability, Registry, Traits
from unisono.core.relation import Blocks, Edges, Relation
from unisono.nn.bias import Bias, BiasPlan
from unisono.nn.dropout import Dropout
from unisono.nn.ffn import SubNorm, silent
from unisono.nn.part import Frame, Known, Part
from unisono.nn.rotary import Rotary, rotate
from unisono.nn.share import Linear, Linears, Sharing
from unisono.ops.attention import attend, attend_edges
from unisono.ops.permute import permute

# T tokens, N places in block order, D width, H heads, K width of a head, E edges


class Mixer(nn.Module):
    """Mixes tokens within a relation: ``forward((T, D), relation, plan) -> (T, D)``; what a token that sees no key gets is not used.

    ``plan(known, relation)`` works out on the host what ``forward`` needs besides the relation.
    """

    def __init__(self) -> None:
        super().__init__()

    def plan(self, known: Known, relation: Relation, scope: Hashable) -> Any:
        """Nothing, unless a mixer says otherwise.

        Args:
            known: the batch's tokens.
            relation: who sees whom.
            scope: equal for equal relations.
        """
        return None

    def forward(self, x_TD: Tensor, relation: Relation, plan: Any) -> Tensor:
        """Mix (T, D)."""
        raise NotImplementedError

    def linears(self) -> Linears | None:
        """The linear maps at its ends; None where they are of another kind, or the input goes elsewhere too."""
        return None


mixers: Registry[Mixer] = Registry("mixer", Mixer, package="unisono.nn", runtime=("width", "sharing", "frame"))


class AttentionPlan(NamedTuple):
    """What attention needs of a batch: of its projections, its turned axes, its biases and its inner norm."""

    project: Any
    out: Any
    angles: Any
    bias: BiasPlan | None
    sub_norm: Any = None


@mixers.register("attention", source="arXiv:1706.03762")
class Attention(Mixer):
    """Multi-head softmax attention: ``concat_h(softmax(Q_h K_h' / sqrt(K) + bias) V_h) W_o`` within each block, or along edges.

    Args:
        width: D, a multiple of ``heads``.
        sharing: how the projections are shared over tokens.
        frame: the model around it.
        heads: H.
        dropout: probability of dropping an output unit in training.
        kv_heads: heads of keys and values, each serving H / kv_heads queries (arXiv:2305.13245); 0 for H.
        rotary: turns queries and keys by their place on up to so many axes (arXiv:2104.09864); 0 for not.
        qk_norm: whether queries and keys are normalised in each head (arXiv:2302.05442).
        bias: of the scores, from relative places.
    """

    def __init__(
        self, *, width: int, sharing: Sharing, frame: Frame, heads: Count = 4, dropout: Probability = 0.0, kv_heads: Index = 0,
        rotary: Index = 0, qk_norm: bool = False, bias: Bias | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        few = kv_heads or heads
        if width % heads:
            raise ConfigError(f"attention: the width {width} is no multiple of {heads} heads")
        if heads % few:
            raise ConfigError(f"attention: {heads} heads of queries are no multiple of {few} heads of keys")
        self.heads, self.few, self.size = heads, few, width // heads
        self.rotary = Rotary(axes=rotary, size=self.size) if rotary else None
        self.project = sharing.wrap(lambda: Linear(width, (heads + 2 * few) * self.size), frame, "mixer.project")
        self.out = sharing.wrap(lambda: silent(Linear(width, width)), frame, "mixer.out")
        self.sub_norm = self.inner_norm(width, sharing, frame)
        self.scales = nn.Parameter(torch.ones(2, self.size)) if qk_norm else None
        self.bias = None if bias is None else bias.made(heads)
        self.dropout = Dropout(dropout)

    def inner_norm(self, width: int, sharing: Sharing, frame: Frame) -> Part | None:
        """What normalises the heads' output ahead of ``W_o``; nothing."""
        return None

    def plan(self, known: Known, relation: Relation, scope: Hashable) -> AttentionPlan:
        """Projections by set, angles by place, biases by relative place."""
        angles = None if self.rotary is None else known.once(self.rotary.key, lambda: self.rotary.plan(known.meta))  # type: ignore[union-attr]
        bias = None
        if self.bias is not None and isinstance(relation, Blocks):
            bias = known.once(("bias", scope, self.bias.plan_key()), lambda: self.bias.plan(known.meta, relation))  # type: ignore[union-attr]
        inner = None if self.sub_norm is None else known.part(self.sub_norm)
        return AttentionPlan(known.part(self.project), known.part(self.out), angles, bias, inner)

    def forward(self, x_TD: Tensor, relation: Relation, plan: AttentionPlan) -> Tensor:
        """Mix (T, D) within the relation."""
        plain = plan.project is None and plan.out is None and plan.angles is None and self.sub_norm is None
        if plain and isinstance(relation, Blocks) and relation.query is not None and relation.inverse is not None:
            # the narrowest place to reorder: tokens before they are projected, and after
            x_TD = permute(x_TD, relation.query, relation.inverse)
            return permute(self._mixed(x_TD, replace(relation, query=None), plan), relation.inverse, relation.query)
        return self._mixed(x_TD, relation, plan)

    def _mixed(self, x_TD: Tensor, relation: Relation, plan: AttentionPlan) -> Tensor:
        qkv = self.project(x_TD, plan.project).view(len(x_TD), self.heads + 2 * self.few, self.size)
        if plan.angles is not None or self.scales is not None:
            qkv = self._prepared(qkv, plan)
        mixed = self._along(qkv, relation) if isinstance(relation, Edges) else gather_back(self._within(qkv, relation, plan), relation)
        if self.sub_norm is not None:
            mixed = self.sub_norm(mixed, plan.sub_norm)
        result: Tensor = self.dropout(self.out(mixed, plan.out))
        return result

    def linears(self) -> Linears:
        """The projections."""
        return Linears((self.project,), self.out)

    def _prepared(self, qkv: Tensor, plan: AttentionPlan) -> Tensor:
        """Queries and keys normalised and turned."""
        asks, v = torch.split(qkv, [self.heads + self.few, self.few], 1)
        if self.scales is not None:
            scale = self.scales.to(asks.dtype).repeat_interleave(torch.tensor([self.heads, self.few], device=asks.device), 0)
            asks = nn.functional.rms_norm(asks, (self.size,), None, 1e-6) * scale
        if plan.angles is not None:
            asks = rotate(asks, plan.angles)
        return torch.cat([asks, v], 1)

    def _within(self, qkv: Tensor, relation: Blocks, plan: AttentionPlan) -> Tensor:
        h, f = self.heads, self.few
        if relation.key is None:
            if relation.query is not None:
                whole = relation.inverse is not None
                qkv = permute(qkv, relation.query, relation.inverse) if whole else qkv[relation.query]  # type: ignore[arg-type]
            q, k, v = torch.split(qkv, [h, f, f], 1)
        else:
            q = qkv[:, :h][relation.query_index().to(qkv.device)]
            k, v = torch.split(qkv[:, h:][relation.key], [f, f], 1)
        bias = None if self.bias is None or plan.bias is None else self.bias.tables(plan.bias)
        return attend(q, k, v, relation.calls, bias)

    def _along(self, qkv: Tensor, relation: Edges) -> Tensor:
        q, k, v = torch.split(qkv, [self.heads, self.few, self.few], 1)
        if self.few != self.heads:
            k, v = (x.repeat_interleave(self.heads // self.few, 1) for x in (k, v))
        return attend_edges(q, k, v, relation.query, relation.key)


@mixers.register("edge_attention", source="arXiv:2012.09699")
class EdgeAttention(Attention):
    """Attention along edges whose values weigh the product of every channel: ``sum_k q_ik k_jk (1 + W e_ij)_k / sqrt(K)``.

    Where edges carry nothing, or the scope has no edges, it is plain attention.

    Args:
        width: D, a multiple of ``heads``.
        sharing: how the projections are shared over tokens.
        frame: knows how many numbers an edge carries.
        heads: H.
        dropout: probability of dropping an output unit in training.
    """

    def __init__(self, *, width: int, sharing: Sharing, frame: Frame, heads: Count = 4, dropout: Probability = 0.0) -> None:
        super().__init__(width=width, sharing=sharing, frame=frame, heads=heads, dropout=dropout)
        self.edge = nn.Linear(frame.num_edge_values, width, bias=False) if frame.num_edge_values else None

    def _along(self, qkv: Tensor, relation: Edges) -> Tensor:
        if self.edge is None or relation.values is None:
            return super()._along(qkv, relation)
        q, k, v = torch.split(qkv, [self.heads, self.heads, self.heads], 1)
        weigh = 1.0 + self.edge(relation.values.to(qkv.dtype)).view(-1, self.heads, self.size)
        return attend_edges(q, k, v, relation.query, relation.key, weigh)


@mixers.register("subnorm_attention", source="arXiv:2210.06423")
class SubNormAttention(Attention):
    """Attention with a layer norm between the heads and the last map: ``norm(concat_h(softmax(Q_h K_h' / sqrt(K) + bias) V_h)) W_o``.

    Args:
        width: D, a multiple of ``heads``.
        sharing: how the projections, and the norm, are shared over tokens.
        frame: the model around it.
        heads: H.
        dropout: probability of dropping an output unit in training.
        rotary: turns queries and keys by their place on up to so many axes; 0 for not.
        bias: of the scores, from relative places.
    """

    def __init__(
        self, *, width: int, sharing: Sharing, frame: Frame, heads: Count = 4, dropout: Probability = 0.0, rotary: Index = 0,
        bias: Bias | None = None,
    ) -> None:  # fmt: skip
        super().__init__(width=width, sharing=sharing, frame=frame, heads=heads, dropout=dropout, rotary=rotary, bias=bias)

    def inner_norm(self, width: int, sharing: Sharing, frame: Frame) -> Part:
        """A layer norm."""
        return sharing.wrap(lambda: SubNorm(width=width), frame, "mixer.sub_norm")


@mixers.register("none", traits=Traits(exempt={"source": "no mixer at all"}))
class NoMixer(Mixer):
    """``y = 0``: a layer that is only a feed-forward."""

    def forward(self, x_TD: Tensor, relation: Relation, plan: Any) -> Tensor:
        """Zeros (T, D)."""
        return torch.zeros_like(x_TD)


def gather_back(mixed_ND: Tensor, blocks: Blocks) -> Tensor:
    """Bring block-ordered outputs (Nq, D) to the tokens (T, D): averaged for a token in several blocks, zero for one in none."""
    if blocks.share is not None:
        mixed_ND = mixed_ND * blocks.share.unsqueeze(1).to(mixed_ND.dtype)
    if blocks.query is None:
        return mixed_ND
    if blocks.inverse is not None:
        return permute(mixed_ND, blocks.inverse, blocks.query)
    base = mixed_ND.new_zeros(blocks.num_tokens, mixed_ND.shape[1])
    if blocks.share is None:
        return torch.index_copy(base, 0, blocks.query, mixed_ND)
    return base.index_add(0, blocks.query, mixed_ND)
