"""The branches of a trunk's layers as folds see them: which norm stands before which linear maps, and which map writes to the stream.

Letters: S sets of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unisono.nn.ffn import FeedForward, NoFeedForward
from unisono.nn.fork import Within
from unisono.nn.layer import Layer
from unisono.nn.mixer import Mixer, NoMixer
from unisono.nn.norm import Norm
from unisono.nn.residual import Post, Residual
from unisono.nn.share import Linear, Linears, PerSet
from unisono.nn.step import Step
from unisono.nn.trunk import Trunk


@dataclass(frozen=True)
class Bundle:
    """One part for all tokens, or S copies of it for S sets of tokens.

    Attributes:
        key: how tokens are put into sets; None for one part for all.
        parts: the copies.
    """

    key: Any
    parts: tuple[nn.Module, ...]

    @classmethod
    def of(cls, part: nn.Module, kind: type[nn.Module]) -> Bundle | None:
        """The copies of a part of a kind; None where it is shared in a way of its own."""
        if isinstance(part, PerSet):
            return cls((part.key, len(part.parts)), tuple(part.parts)) if all(isinstance(p, kind) for p in part.parts) else None
        return cls(None, (part,)) if isinstance(part, kind) else None


#: Scale and shift of a norm; None for ones and for zeros.
Change = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Changes:
    """What a norm does to the tokens of each set.

    Attributes:
        key: how tokens are put into sets, None for one set of all.
        each: of each set a name, equal for what is the same, and its scale and shift.
    """

    key: Any
    each: list[tuple[object, Change]]


@dataclass(frozen=True)
class Branch:
    """One residual branch of a layer.

    Attributes:
        place: where it stands, in words.
        layer: the layer.
        rule: how it joins the stream.
        norms: the list its norms stand in; the first is before it, the last behind it where the rule has two.
        reads: the maps of its input, a bundle each; None where they are not known.
        writes: the maps that give its result; None where they are not known.
        mixes: whether a mixer is among its parts.
    """

    place: str
    layer: Layer
    rule: Residual
    norms: nn.ModuleList
    reads: tuple[Bundle, ...] | None
    writes: tuple[Bundle, ...] | None
    mixes: bool

    @property
    def norm(self) -> nn.Module | None:
        """The norm that the maps read; None where they read the stream itself."""
        return None if isinstance(self.rule, Post) or not len(self.norms) else self.norms[0]

    @property
    def maps(self) -> list[nn.Module]:
        """Every map that reads."""
        return [part for bundle in self.reads or () for part in bundle.parts]


def walk(trunk: Trunk) -> Iterator[tuple[str, Step]]:
    """Every step with its name, those on selections included.

    Yields:
        Name and step.
    """
    yield from _walk(trunk.steps, trunk.names)


def _walk(steps: nn.ModuleList, names: Sequence[str]) -> Iterator[tuple[str, Step]]:
    for step, name in zip(steps, names, strict=True):
        assert isinstance(step, Step)
        yield name, step
        if isinstance(step, Within):
            yield from _walk(step.steps, [f"{name}.{k}" for k in range(len(step.steps))])


def branches(trunk: Trunk) -> list[Branch]:
    """Every branch of every layer."""
    found: list[Branch] = []
    for name, step in walk(trunk):
        if isinstance(step, Layer):
            found += _of_layer(name, step)
    return found


def _of_layer(name: str, layer: Layer) -> list[Branch]:
    first, second = layer.residuals
    assert isinstance(first, Residual) and isinstance(second, Residual)
    mixer = None if isinstance(layer.mixer, NoMixer) else _ends([_linears(layer.mixer)], None)
    ffn = None if isinstance(layer.ffn, NoFeedForward) else _ends(*_feed_forward(layer.ffn))
    if first.parallel:
        both = [ends for ends in (mixer, ffn) if ends is not None]
        reads = _joined([r for r, _ in both])
        writes = _joined([w for _, w in both])
        return [Branch(name, layer, first, layer.norms, reads, writes, mixer is not None)]
    made = []
    if mixer is not None:
        made.append(Branch(f"{name}.mixer", layer, first, layer.norms, *mixer, True))
    if ffn is not None:
        made.append(Branch(f"{name}.ffn", layer, second, layer.ffn_norms, *ffn, False))
    return made


def speaks_for(part: nn.Module, method: str) -> bool:
    """Whether a method that tells of a part's ``forward`` is its own, and not inherited by a part that computes something else."""
    kinds = type(part).__mro__
    return min(k for k, kind in enumerate(kinds) if method in vars(kind)) <= min(
        k for k, kind in enumerate(kinds) if "forward" in vars(kind)
    )


def _linears(part: Mixer | FeedForward) -> Linears | None:
    return part.linears() if speaks_for(part, "linears") else None


def _feed_forward(ffn: nn.Module) -> tuple[list[Linears | None], Any]:
    bundle = Bundle.of(ffn, FeedForward)
    if bundle is None:
        return [None], None
    return [_linears(part) for part in bundle.parts if isinstance(part, FeedForward)], bundle.key


def _ends(copies: Sequence[Linears | None], key: Any) -> tuple[tuple[Bundle, ...] | None, tuple[Bundle, ...] | None]:
    """The maps at both ends of a part, or of the copies of one."""
    known = [c for c in copies if c is not None]
    if len(known) != len(copies) or not known:
        return None, None
    if key is None:
        return _bundles(known[0].reads), _bundles((known[0].writes,))
    columns = zip(*((*c.reads, c.writes) for c in known), strict=True)
    made = [Bundle(key, parts) if all(isinstance(p, Linear) for p in parts) else None for parts in columns]
    *reads, writes = made
    return (tuple(b for b in reads if b is not None) if all(reads) else None), None if writes is None else (writes,)


def _bundles(parts: Sequence[nn.Module]) -> tuple[Bundle, ...] | None:
    found = [Bundle.of(part, Linear) for part in parts]
    return None if any(b is None for b in found) else tuple(b for b in found if b is not None)


def _joined(parts: Sequence[tuple[Bundle, ...] | None]) -> tuple[Bundle, ...] | None:
    return None if any(p is None for p in parts) else tuple(b for p in parts if p is not None for b in p)


def norms_of(part: nn.Module) -> Bundle | None:
    """The copies of a norm."""
    return Bundle.of(part, Norm)


def kind_of(part: nn.Module) -> str:
    """A part's class, in words."""
    if isinstance(part, PerSet):
        return f"{kind_of(part.parts[0])} per {part.key}"
    return type(part).__name__
