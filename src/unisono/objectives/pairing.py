"""Who predicts whom: which sources ask, and which answer.

Letters: M sources.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unisono.core.errors import ConfigError, nearest
from unisono.core.registry import Registry, Traits


@dataclass(frozen=True)
class Ask:
    """Two sides that are contrasted, in both directions.

    Attributes:
        query: sources of the one side; several are taken together, row by row.
        target: sources of the other.
    """

    query: tuple[str, ...]
    target: tuple[str, ...]


class Who(ABC):
    """Chooses the sides."""

    #: How it is called, and whether a side may be several sources taken together.
    word = ""
    joins = False

    @abstractmethod
    def asks(self, sources: Sequence[str]) -> list[Ask]:
        """What is asked of a model of these M sources."""


whos: Registry[Who] = Registry("who", Who, package="unisono.objectives", runtime=("kinds",))


@whos.register("pairs", source="arXiv:2207.11482")
class Pairs(Who):
    """Every pair of sources, ``M (M - 1) / 2`` of them."""

    word = "pairs"

    def asks(self, sources: Sequence[str]) -> list[Ask]:
        """All pairs in table order."""
        return [Ask((a,), (b,)) for a, b in itertools.combinations(sources, 2)]


@whos.register("anchor", source="arXiv:2410.16239")
class Anchor(Who):
    """One source with each of the others, ``M - 1`` pairs; the others meet only through it.

    Args:
        kinds: source -> its modality.
        source: the anchor, or a modality of which there is one source.
    """

    word = "anchor"

    def __init__(self, *, source: str, kinds: Mapping[str, str] | None = None) -> None:
        of_kind = [name for name, kind in (kinds or {}).items() if kind == source]
        self.source = of_kind[0] if source not in (kinds or {}) and len(of_kind) == 1 else source

    def asks(self, sources: Sequence[str]) -> list[Ask]:
        """The anchor's pairs.

        Raises:
            ConfigError: there is no such source.
        """
        if self.source not in sources:
            raise ConfigError(f"align: who: anchor({self.source}): there is no source {self.source!r}{nearest(self.source, sources)}")
        return [Ask((self.source,), (b,)) for b in sources if b != self.source]


@whos.register("rest", traits=Traits(exempt={"source": "each source against the others' mean, which no paper claims"}))
class Rest(Who):
    """Each source with all the others taken together, M asks."""

    word, joins = "rest", True

    def asks(self, sources: Sequence[str]) -> list[Ask]:
        """Each source in turn."""
        if len(sources) == 2:
            return [Ask((sources[0],), (sources[1],))]
        return [Ask(tuple(o for o in sources if o != s), (s,)) for s in sources]


@whos.register("all", traits=Traits(exempt={"source": "every vector against every other, which no paper claims"}))
class All(Who):
    """Every vector of every source with every other vector of the batch, one ask: what is of the same source is a negative too."""

    word = "all"

    def asks(self, sources: Sequence[str]) -> list[Ask]:
        """One."""
        return [Ask(tuple(sources), tuple(sources))]
