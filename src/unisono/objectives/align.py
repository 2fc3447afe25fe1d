"""Alignment: a sentence that says who predicts whom, from what, how alike they are, by which loss, against which negatives, what else.

Letters: B rows, N and M vectors of the two sides, E width of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.registry import NonNegative
from unisono.core.tokens import Meta
from unisono.core.words import as_word
from unisono.nn.space import Shown, Side, Space, spaces
from unisono.objectives.alike import Likeness, alikes
from unisono.objectives.base import Objective, objectives
from unisono.objectives.negatives import Negatives, Sides
from unisono.objectives.negatives import negatives as registry_of_negatives
from unisono.objectives.pairing import Ask, Who, whos
from unisono.objectives.separation import Scored, Separation, TotalCorrelation, separations
from unisono.objectives.terms import Scene, Term, nothing


def related(a: Side, b: Side, item_B: Tensor) -> Tensor:
    """Which vectors of two sides belong together, (N, M) bool: a row of a's content and one of b's content are one item.

    Equal cells are one thing: i and j belong together if some rows r and q of the batch have one item, r has what i is, and q what j is.

    Args:
        a: N vectors.
        b: M vectors.
        item_B: (B,) int64, equal for rows that are one item.
    """
    found = (item_B[a.row][:, None] == item_B[b.row][None, :]).float()
    for side, first in ((a, True), (b, False)):
        content = side.content
        if content is None or len(torch.unique(content)) == len(content):
            continue
        equal = (content[:, None] == content[None, :]).float()
        found = equal @ found if first else found @ equal
    return found > 0


def concatenated(sides: Sequence[Side]) -> tuple[Side, Tensor]:
    """All sources as one side, and the number of the source that each vector is of."""
    begin, owners = 0, []
    for side in sides:
        if side.owner is not None:
            owners.append(side.owner + begin)
        begin += len(side)
    tokens = [s.tokens for s in sides if s.tokens is not None]
    source = torch.cat([torch.full_like(s.row, k) for k, s in enumerate(sides)])
    merged = Side(
        torch.cat([s.vectors for s in sides]),
        torch.cat([s.row for s in sides]),
        torch.cat([s.place for s in sides]),
        torch.cat(tokens) if tokens else None,
        torch.cat(owners) if owners else None,
    )
    return merged, source


@objectives.register("align", source="arXiv:2103.00020")
class Align(Objective):
    """One space for all sources: ``L = mean over asks (q, t) of 1/2 [loss(s(q, t)) + loss(s(t, q))] + sum_k w_k term_k``.

    Rows that lack a side of an ask take no part in it; equal cells and rows of one item belong together and are never negatives.

    Args:
        width: of the trunk.
        sources: names of the sources.
        who: who predicts whom: ``pairs``, ``anchor(SOURCE)``, ``rest``, ``all``.
        what: what is compared: ``global`` vectors, ``tokens``, ``lexical`` weights.
        how: how alike two are: ``cosine``, ``late``, ``product``, ``transport``.
        loss: ``softmax``, ``multiple``, ``sigmoid``, ``soft``, ``margin``, ``total_correlation``.
        negatives: ``batch``, ``memory``, ``mined``, ``mixed``.
        extra: further terms: ``intra``, ``cycle``, ``uniformity``, ``alignment``, ``sparse``.
        weight: of this sentence in the whole loss.
    """

    def __init__(
        self, *, width: int, sources: Sequence[str], who: Who | None = None, what: Space | None = None, how: Likeness | None = None,
        loss: Separation | None = None, negatives: Negatives | None = None, extra: tuple[Term, ...] = (), weight: NonNegative = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sources, self.weight = tuple(sources), weight
        self.who = who or whos.build("pairs")
        self.what = what or spaces.build("global", width=width, sources=self.sources)
        self.how = how or alikes.build("cosine")
        self.loss = loss or separations.build("softmax")
        self.extra = extra
        self.asks = self.who.asks(self.sources) if len(self.sources) > 1 else []
        self.negatives = negatives or registry_of_negatives.build("batch")
        self.negatives.prepare(self.what.size, self.directions())
        self._check()

    def directions(self) -> tuple[str, ...]:
        """A name for each direction of scores."""
        return tuple(f"{'+'.join(x)} > {'+'.join(y)}" for a in self.asks for x, y in ((a.query, a.target), (a.target, a.query)))

    def _check(self) -> None:
        """Refuse combinations that make no sense.

        Raises:
            ConfigError: with those that do.
        """
        if self.what.word not in self.how.compares:
            valid = [n for n, e in alikes.entries.items() if self.what.word in e.target.compares]  # type: ignore[attr-defined]
            raise ConfigError(f"align: how: {self.how.word} does not compare what={self.what.word}; with it go {', '.join(valid)}")
        total, product = isinstance(self.loss, TotalCorrelation), self.how.word == "product"
        if total and not (product and self.who.word == "all" and self.negatives.word == "batch"):
            raise ConfigError("align: loss: total_correlation goes with who=all, how=product, negatives=batch: it makes tuples of its own")
        if product and not total and self.who.word != "rest":
            raise ConfigError("align: how: product goes with who=rest, or with who=all and loss=total_correlation")
        if self.who.joins and len(self.sources) > 2 and self.what.word == "tokens" and self.how.word != "cosine":
            raise ConfigError(
                f"align: who: {self.who.word} takes sources together, which have no tokens; with how={self.how.word} go pairs, anchor"
            )
        if self.who.word == "all" and not total and self.negatives.word != "batch" and self.negatives.word != "mined":
            raise ConfigError(f"align: negatives: {self.negatives.word} does not go with who=all; with it go batch, mined")
        if self.negatives.makes and self.how.word not in {"cosine", "product"}:
            raise ConfigError(f"align: negatives: {self.negatives.word} goes with how=cosine or product, not with {self.how.word}")

    @property
    def needs_pairs(self) -> bool:
        """Whether nothing is left to learn from a single source."""
        return not any(term.alone for term in self.extra)

    def forward(self, shown: Shown, item_B: Tensor) -> Tensor:
        """The loss of a batch; zero, with a graph, where nothing in it belongs together.

        Args:
            shown: what the batch shows of each source, contents filled in.
            item_B: (B,) int64, equal for rows that are one item.
        """
        found: list[Tensor] = []
        met: list[Sides] = []
        if isinstance(self.loss, TotalCorrelation):
            found += self._tuples(self.loss, shown, len(item_B))
        else:
            for k, ask in enumerate(self.asks):
                found += self._asked(ask, k, shown, item_B, met)
        if self.training:
            for sides in met:
                self.negatives.remember(sides)
        total = torch.stack(found).mean() if found else nothing(shown)
        scene = Scene(shown, len(item_B), lambda a, b: related(a, b, item_B), self.loss)
        for term in self.extra:
            total = total + term.weight * term.of(scene)
        return total

    def _tuples(self, loss: TotalCorrelation, shown: Shown, rows: int) -> list[Tensor]:
        parts = [side.of_rows(rows) for side in shown.values()]
        full = torch.nonzero(torch.stack([has for _, has in parts]).all(0)).squeeze(1)
        if len(full) < 2:
            return []
        contents = [first_content(side, rows)[full] for side in shown.values()]
        return [loss.of_tuples([vectors[full] for vectors, _ in parts], contents)]

    def _asked(self, ask: Ask, number: int, shown: Shown, item_B: Tensor, met: list[Sides]) -> list[Tensor]:
        """Both directions of one ask; none where nothing belongs together."""
        names, rows = self.directions()[2 * number : 2 * number + 2], len(item_B)
        if ask.query == ask.target:
            a, source = concatenated([shown[s] for s in ask.query])
            scores, _ = self.how.scores(a, a)
            mine = torch.cat([torch.cat([related(shown[x], shown[y], item_B) for y in ask.query], 1) for x in ask.query])
            allowed = ~torch.eye(len(a), dtype=torch.bool, device=scores.device)
            directions: list[Any] = [
                (scores, mine & (source[:, None] != source[None, :]), allowed, Sides(a, a, item_B, names[0], self.training))
            ]
        else:
            a, b = self.side(ask.query, shown, rows), self.side(ask.target, shown, rows)
            ab, ba = self.how.scores(a, b)
            mine = related(a, b, item_B)
            directions = [
                (ab, mine, None, Sides(a, b, item_B, names[0], self.training)),
                (ba, mine.T, None, Sides(b, a, item_B, names[1], self.training)),
            ]
        if not bool(mine.any()):
            return []
        losses = []
        for scores, positive, allowed, sides in directions:
            losses.append(self.loss(self.negatives(Scored(scores, positive, allowed), sides)))
            met.append(sides)
        return [torch.stack(losses).mean()]

    def side(self, sources: Sequence[str], shown: Shown, rows: int) -> Side:
        """One source as it is shown, or several taken together."""
        if len(sources) == 1:
            return shown[sources[0]]
        return self.how.together([shown[s] for s in sources], rows)


def first_content(side: Side, rows: int) -> Tensor:
    """(B,) the content of each row's first item; rows without any, or unknown contents, have one of their own."""
    own = -1 - torch.arange(rows, device=side.row.device)
    if side.content is None:
        return own
    first = side.place == 0
    return own.index_put((side.row[first],), side.content[first])


@dataclass(frozen=True)
class Identity:
    """What is known of a batch's cells and rows, so that equal ones are never told apart.

    Attributes:
        item: (B,) int64, equal for rows that are one item.
        content: source -> (B, I) int64, a number for what each item of a row's list cell holds.
    """

    item: Tensor
    content: Mapping[str, Tensor]

    def to(self, device: torch.device | None) -> Identity:
        """The same on another device."""
        if device is None or device.type == "cpu":
            return self
        return Identity(self.item.to(device), {name: numbers.to(device) for name, numbers in self.content.items()})

    def told(self, shown: Shown) -> dict[str, Side]:
        """The sides with their contents."""
        return {name: replace(side, content=self.content[name][side.row, side.place]) for name, side in shown.items()}


class Alignments(nn.Module):
    """Every ``align(...)`` sentence of a recipe; sentences of the same ``what`` share a space, the first one's is the model's.

    Args:
        specs: the sentences.
        width: of the trunk.
        sources: their names, in the order of ``Meta.source``.
        where: the place to name in an error.
        kinds: source -> its modality.
    """

    def __init__(
        self, specs: Sequence[Any], *, width: int, sources: Sequence[str], where: str, kinds: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        made: dict[str, Space] = {}
        self.of: list[int] = []
        self.terms = nn.ModuleList()
        for spec in specs:
            word = as_word(spec, where)
            term = objectives.build(word, where=where, width=width, sources=tuple(sources), kinds=dict(kinds or {}))
            if not isinstance(term, Align):
                raise ConfigError(f"{where}: {word.name} is no term of an alignment; it is trained by other means")
            key = str(word.named.get("what", "global"))
            made.setdefault(key, term.what)
            del term.what
            self.of.append(list(made).index(key))
            self.terms.append(term)
        self.spaces = nn.ModuleList(made.values())
        self.sources, self.width = tuple(sources), next(iter(made.values())).size

    def show(self, x_TD: Tensor, meta: Meta) -> tuple[dict[str, Side], ...]:
        """What tokens (T, D) show of each source, in each space."""
        return tuple(space(x_TD, meta) for space in self.spaces)

    def centre(self, x_TD: Tensor, meta: Meta) -> None:
        """Set the centres of all spaces by what tokens (T, D) of some rows show."""
        for space in self.spaces:
            assert isinstance(space, Space)
            space.centre(x_TD, meta)

    def forward(self, shown: Sequence[Shown], identity: Identity) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all sentences, and each by itself; in float32, whatever the precision around it."""
        told = [identity.told(each) for each in shown]
        parts = {}
        total: Any = 0.0
        for k, (term, place) in enumerate(zip(self.terms, self.of, strict=True)):
            assert isinstance(term, Align)
            with torch.autocast(identity.item.device.type, enabled=False):
                loss = term(told[place], identity.item)
            parts["align" if len(self.terms) == 1 else f"align {k + 1}"] = loss
            total = total + term.weight * loss
        return total, parts

    @property
    def needs_pairs(self) -> bool:
        """Whether nothing can be learned from a single source."""
        return all(term.needs_pairs for term in self.terms if isinstance(term, Align))

    @property
    def product(self) -> bool:
        """Whether sources are compared as products, so that one is sought by all others."""
        return any(isinstance(term, Align) and term.how.word == "product" for term in self.terms)
