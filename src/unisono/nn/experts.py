"""Experts: many feed-forwards of which each token uses a few, chosen by a router or by declaration.

Letters: T tokens, D width, E experts, G groups (samples, after a fork by task samples of a task), N pairs of a token and its expert.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, NonNegative, Positive, Traits
from unisono.core.tokens import Meta
from unisono.nn.part import Flow, Frame, Known, Part
from unisono.nn.share import Linear, Make, SharePerTask, Sharing, sharings
from unisono.ops.segment import segment_sum

Route = Literal["token", "choice", "soft"]
BALANCE = 0.01


class Load(Protocol):
    """Experts by number; a loader may fetch each when it is asked for and let it go afterwards."""

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Routing:
    """Who goes where.

    Attributes:
        expert: (N,) ascending.
        token: (N,) ascending within an expert.
        gate: (N,) the factor of what the expert gives.
        counts: number of tokens of each expert.
    """

    expert: Tensor
    token: Tensor
    gate: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, chosen_TE: Tensor, gate_TE: Tensor) -> Routing:
        """The chosen pairs, sorted once by expert."""
        expert, token = chosen_TE.T.nonzero(as_tuple=True)
        return cls(expert, token, gate_TE[token, expert], tuple(chosen_TE.sum(0).tolist()))


def run_experts(x_TD: Tensor, routing: Routing, experts: Load, flow: Flow | None = None) -> Tensor:
    """``y_t = sum_e g_te E_e(x_t)`` over the chosen experts, expert by expert (arXiv:2210.14793, section 3.3).

    All tokens of an expert go through it at once, so that each expert is asked for at most once, one at a time, and one that nobody chose
    never: memory does not grow with the number of experts.

    Args:
        x_TD: tokens.
        routing: who goes where.
        experts: gives the expert of a number.
        flow: handed to the experts.

    Returns:
        (T, D), zero for tokens without an expert.
    """
    pieces = torch.split(routing.token, list(routing.counts))
    done = [_one(experts, e, x_TD[token], flow) for e, token in enumerate(pieces) if len(token)]
    if not done:
        return torch.zeros_like(x_TD)
    y_ND = torch.cat(done)
    return segment_sum(routing.gate.to(y_ND.dtype).unsqueeze(1) * y_ND, routing.token, len(x_TD))


def _one(experts: Load, number: int, x_ND: Tensor, flow: Flow | None) -> Tensor:
    """What one expert gives; it is let go of on the way out."""
    result: Tensor = experts[number](x_ND, None, flow)
    return result


def best(score_TE: Tensor, group_T: Tensor, most_G: Tensor) -> Tensor:
    """Which of each expert's tokens are among its best so many of their group, (T, E) bool.

    Args:
        score_TE: higher is better.
        group_T: group of each token.
        most_G: how many an expert takes of each group.
    """
    by_score = torch.argsort(score_TE, dim=0, descending=True, stable=True)
    by_group = torch.argsort(group_T[by_score], dim=0, stable=True)
    order_TE = torch.gather(by_score, 0, by_group)
    sizes = torch.bincount(group_T, minlength=len(most_G))
    start = torch.cumsum(sizes, 0) - sizes
    group = group_T[order_TE[:, :1]]
    rank = torch.arange(len(group_T), device=group_T.device).unsqueeze(1) - start[group]
    return torch.zeros_like(score_TE, dtype=torch.bool).scatter(0, order_TE, (rank < most_G[group]).expand_as(order_TE))


def balance_loss(prob_TE: Tensor, chosen_TE: Tensor) -> Tensor:
    """``E sum_e f_e p_e``, 1 when balanced: f the share of choices that fell on an expert, p its mean probability (arXiv:2101.03961)."""
    share = chosen_TE.to(prob_TE.dtype).sum(0) / chosen_TE.sum().clamp_min(1)
    return prob_TE.shape[1] * (share * prob_TE.mean(0)).sum()


class Router(Linear):
    """A bias-free linear map to one logit an expert, computed in float32 also where the rest is half as precise."""

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """(T, D) to (T, E)."""
        exact = torch.promote_types(x_TD.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            return nn.functional.linear(x_TD.to(exact), self.weight.to(exact))


@dataclass(frozen=True)
class ExpertsPlan:
    """What experts need of a batch.

    Attributes:
        router: of the router.
        group: (T,) group of each token, or None where nobody has a limit.
        most: (G,) how many tokens an expert takes of each group, or None.
    """

    router: Any
    group: Tensor | None = None
    most: Tensor | None = None


class Experts(Part):
    """``y = sum_e g_e(x) E_e(x)`` with ``p = softmax(W x)`` and ``g_e = p_e`` for the chosen experts, 0 for the others.

    Args:
        parts: the experts.
        router: gives (T, E) logits.
        top: experts of a token; on average, where experts choose.
        route: who chooses.
        capacity: factor of the even share of tokens that an expert takes of a group; None for any number.
        balance: weight of the balance loss.
    """

    def __init__(
        self, *, parts: Sequence[Part], router: Part, top: int, route: Route, capacity: float | None = None, balance: float = 0.0
    ) -> None:
        super().__init__()
        self.parts, self.router = nn.ModuleList(parts), router
        self.top, self.route, self.capacity, self.balance = top, route, capacity, balance

    def plan_key(self) -> Hashable:
        """What the router needs, and the groups where there is a limit."""
        return ("experts", len(self.parts), self.top, self.capacity, self.router.plan_key())

    def plan(self, meta: Meta) -> ExpertsPlan:
        """Groups and their limits."""
        router = Known(meta).part(self.router)
        if self.capacity is None:
            return ExpertsPlan(router)
        group = torch.unique(meta.groups, return_inverse=True)[1]
        even = torch.bincount(group).double() * (self.capacity * self.top / len(self.parts))
        # what is a whole number but for rounding is that number
        return ExpertsPlan(router, group, (even - 1e-9).ceil().clamp_min(1).long())

    def choose(self, x_TD: Tensor, plan: ExpertsPlan, flow: Flow | None = None) -> Routing:
        """Route tokens.

        A capacity counts within a sample, so that batch-mates never compete; where tokens choose it holds in training alone, and the
        expert leaves out those that wanted it least.
        """
        prob_TE = torch.softmax(self.router(x_TD, plan.router), -1)
        if self.route == "choice":
            assert plan.group is not None and plan.most is not None
            return Routing.of(best(prob_TE.detach(), plan.group, plan.most), prob_TE)
        chosen_TE = torch.ones_like(prob_TE, dtype=torch.bool)
        if self.route == "token":
            top = torch.topk(prob_TE.detach(), self.top, -1).indices
            chosen_TE = torch.zeros_like(chosen_TE).scatter(1, top, True)
        if self.training and self.balance and flow is not None and len(x_TD):
            flow.extra.append(self.balance * balance_loss(prob_TE, chosen_TE))
        if self.training and plan.group is not None and plan.most is not None:
            chosen_TE = chosen_TE & best(prob_TE.detach().masked_fill(~chosen_TE, -1.0), plan.group, plan.most)
        return Routing.of(chosen_TE, prob_TE)

    def forward(self, x_TD: Tensor, plan: ExpertsPlan, flow: Flow | None = None) -> Tensor:
        """Transform (T, D)."""
        return run_experts(x_TD, self.choose(x_TD, plan, flow), self.parts, flow)


@sharings.register(
    "experts",
    source="arXiv:1701.06538",
    traits=Traits(exempt={"gradient": "an expert that no token of a batch is sent to is left untouched"}),
)
class ShareAmongExperts(Sharing):
    """A mixture of experts: each token's feed-forward is a weighted sum of a few of many, which a router chooses.

    ``y = sum_e g_e(x) E_e(x)``, ``p = softmax(W x)`` in float32 and ``g_e = p_e`` for the chosen experts. Every expert runs at most once a
    batch, on all of its tokens.

    Args:
        num: E.
        top: experts of a token, or, where experts choose, the mean number of them; 2 unless given. ``soft`` takes none.
        route: ``token``: each token takes its most probable experts; ``choice``: each expert takes its most probable tokens of each sample
            (arXiv:2202.09368), in evaluation too, which is no rule for causal scopes; ``soft``: every token takes all (arXiv:1312.4314).
        capacity: tokens that an expert takes of a sample at most, as a factor of the even share ``top T / E``, rounded up; ``token``
            obeys it in training alone and otherwise drops nothing.
        balance: weight of ``E sum_e f_e p_e`` in the loss, which is least when experts are used evenly (arXiv:2101.03961); for ``token``,
            0.01 unless given.
        by: ``task`` for a router of its own for each target behind a ``fork`` by task (arXiv:2210.14793).

    Raises:
        ConfigError: more experts a token than there are, or a setting that the route does not know.
    """

    roles = ("ffn",)

    def __init__(
        self, *, num: Count = 8, top: Count | None = None, route: Route = "token", capacity: Positive | None = None,
        balance: NonNegative | None = None, by: Literal["task"] | None = None,
    ) -> None:  # fmt: skip
        if top is not None and top > num:
            raise ConfigError(f"experts: top={top} of {num} experts; choose at most {num}")
        if route == "soft" and not (top is None and capacity is None):
            raise ConfigError("experts: with route=soft every token takes every expert; leave 'top' and 'capacity' out")
        if route != "token" and balance is not None:
            raise ConfigError(f"experts: with route={route} nothing has to be balanced; leave 'balance' out")
        self.num, self.top = num, num if route == "soft" else min(2, num) if top is None else top
        self.route: Route = route
        self.capacity = 1.0 if route == "choice" and capacity is None else capacity
        self.balance = 0.0 if route != "token" else BALANCE if balance is None else balance
        self.by = by

    def wrap(self, make: Make, frame: Frame, name: str = "") -> Part:
        """Experts and their router."""
        parts = [make() for _ in range(self.num)]
        if parts[0].plan_key() is not None:
            raise ConfigError("experts: this feed-forward has to know the tokens' places, which are scattered among experts; take another")

        def route() -> Router:
            router = Router(frame.width, self.num, bias=False)
            nn.init.normal_(router.weight, std=frame.width**-0.5)
            return router

        return Experts(
            parts=parts,
            router=SharePerTask().wrap(route, frame) if self.by == "task" else route(),
            top=self.top,
            route=self.route,
            capacity=self.capacity,
            balance=self.balance,
        )
