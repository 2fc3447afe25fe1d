"""What a trunk does to one batch, step by step, as facts for a drawing: which tokens there are, and who mixes with whom.

Letters: T tokens, Q tokens that may ask, K tokens that may be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unisono.core.names import Selection
from unisono.core.tokens import Meta
from unisono.core.words import Word, as_word
from unisono.nn.fork import Within
from unisono.nn.grammar import KINDS, each_source, layer_settings
from unisono.nn.layer import LayerPlan
from unisono.nn.step import Step, Visit
from unisono.nn.trunk import Trunk

Mask = NDArray[np.bool_]
#: What a layer's words are called, in the order in which they are shown.
SHOWN = ("mixer", "ffn", "norm", "residual", "sharing")
#: Up to so many stages are looked at for a sequence that is repeated.
_PERIOD = 6


@dataclass(frozen=True)
class Mixing:
    """Who mixes with whom in a layer.

    Attributes:
        seen: (Q, K) bool, True where the token of the row sees that of the column.
        asks: (Q,) bool, the tokens that are a query; the others leave the layer unchanged.
        keys: (K) the tokens that may be seen.
        tap: the name of the tap they come from; empty where they are the layer's own tokens.
    """

    seen: Mask
    asks: Mask
    keys: Meta
    tap: str = ""


@dataclass(frozen=True)
class Stage:
    """One step.

    Attributes:
        kind: ``layer``, ``resample``, ``insert``, ``save``, ``bridge``, ``fork`` or ``read``.
        name: what the recipe calls it, or empty.
        title: the sentence that says what it is: a layer's scope, another step's word.
        words: what else a layer is told, role by role.
        within: the selections that it stands in, outermost first; empty for the trunk itself.
        before: the tokens it is given.
        after: the tokens it leaves.
        mixing: of a layer.
    """

    kind: str
    name: str
    title: str
    words: tuple[tuple[str, str], ...]
    within: tuple[str, ...]
    before: Meta
    after: Meta
    mixing: Mixing | None = None

    def like(self, other: Stage) -> bool:
        """Whether both do the same to the same tokens, whatever they are called."""
        plain = ("kind", "title", "words", "within")
        if any(getattr(self, name) != getattr(other, name) for name in plain):
            return False
        if not (_equal(self.before, other.before) and _equal(self.after, other.after)):
            return False
        a, b = self.mixing, other.mixing
        if a is None or b is None:
            return a is b
        return a.tap == b.tap and a.seen.shape == b.seen.shape and bool((a.seen == b.seen).all() and (a.asks == b.asks).all())


@dataclass(frozen=True)
class Stretch:
    """Stages that follow each other, and how often the whole of them is gone through."""

    stages: tuple[Stage, ...]
    times: int = 1


def schedule(trunk: Trunk, steps: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any], meta: Meta) -> list[Stage]:
    """What a trunk does to a batch.

    Args:
        trunk: as ``build_trunk`` made it of ``steps`` and ``defaults``.
        steps: the recipe's.
        defaults: the recipe's.
        meta: the tokens as they enter.
    """
    visits: list[Visit] = []
    trunk.plan(meta, watch=visits)
    found = {id(visit.step): visit for visit in visits}
    modules = [step for step in trunk.steps if isinstance(step, Step)]
    return list(_stages(_spread(steps, trunk.frame.names.sources), modules, found, defaults, ()))


def _spread(steps: Sequence[Mapping[str, Any]], sources: Sequence[str]) -> list[Mapping[str, Any]]:
    """The steps with those that are done for each source written out, under the name of the step that they stand in."""
    found: list[Mapping[str, Any]] = []
    for step in steps:
        if "each" in step:
            given = {"name": step["name"]} if "name" in step else {}
            found += [{**given, **inner} for inner in each_source(step["each"], len(sources))]
        elif isinstance(step.get("fork"), Mapping):
            branches = {name: _spread(inner, sources) for name, inner in (step["fork"].get("branches") or {}).items()}
            found.append({**step, "fork": {**step["fork"], "branches": branches}})
        else:
            found.append(step)
    return found


def _called(selection: Selection) -> str:
    """A selection in words, sources by their names."""
    return re.sub(r"source\((\d+)\)", lambda m: selection.names.sources[int(m.group(1))], str(selection))


def _stages(
    steps: Sequence[Mapping[str, Any]],
    modules: Sequence[Step],
    found: Mapping[int, Visit],
    defaults: Mapping[str, Any],
    within: tuple[str, ...],
) -> Iterator[Stage]:
    """The stages of some steps and the modules that were made of them."""
    at = 0
    for step in steps:
        mine = modules[at : at + _count(step)]
        at += len(mine)
        if "on" in step:
            assert isinstance(mine[0], Within)
            inner = {k: v for k, v in step.items() if k != "on"}
            yield from _stages([inner], _inside(mine[0]), found, defaults, (*within, f"only {_called(mine[0].selection)}"))
        elif "fork" in step:
            yield from _fork(step, mine, found, defaults, within)
        else:
            for number, module in enumerate(mine):
                yield _stage(step, found[id(module)], defaults, within, number)


def _inside(step: Within) -> list[Step]:
    return [s for s in step.steps if isinstance(s, Step)]


def _count(step: Mapping[str, Any]) -> int:
    """How many modules a step becomes."""
    if "on" in step:
        return 1
    if "fork" in step:
        spec = step["fork"]
        by, branches = (spec.get("by"), spec.get("branches") or {}) if isinstance(spec, Mapping) else (spec, {})
        return int(by == "task") + len(branches)
    return 1 if any(kind in step for kind in KINDS) else int(step.get("repeat", 1))


def _fork(
    step: Mapping[str, Any], modules: Sequence[Step], found: Mapping[int, Visit], defaults: Mapping[str, Any], within: tuple[str, ...]
) -> Iterator[Stage]:  # fmt: skip
    """The fork itself, and its branches one after the other."""
    spec = step["fork"]
    by, branches = (spec.get("by"), spec.get("branches") or {}) if isinstance(spec, Mapping) else (spec, {})
    first, last = found[id(modules[0])], found[id(modules[-1] if by != "task" else modules[0])]
    before, after = first.before, first.before if by != "task" else last.after
    title = f"by {by}" + (f": {', '.join(map(str, branches))}" if branches else "")
    yield Stage("fork", str(step.get("name", "")), title, (), within, before, after)
    rest = [m for m in modules if isinstance(m, Within)]
    for (name, inner), module in zip(branches.items(), rest, strict=True):
        yield from _stages(inner, _inside(module), found, defaults, (*within, f"branch {name}"))


def _stage(step: Mapping[str, Any], visit: Visit, defaults: Mapping[str, Any], within: tuple[str, ...], number: int) -> Stage:
    """A step's module, the ``number``-th of its repeats."""
    name = str(step.get("name", ""))
    for kind in KINDS:
        if kind in step:
            return Stage(kind, name, _sentence(step[kind]), (), within, visit.before, visit.after)
    settings = layer_settings(step, defaults)
    words = tuple((role, _sentence(settings[role])) for role in SHOWN)
    mixing = _mixing(visit, step.get("keys"))
    scope = settings["scope"]
    scope = scope[number % len(scope)] if isinstance(scope, list) else scope
    return Stage("layer", name, _sentence(scope), words, within, visit.before, visit.after, mixing)


def _sentence(spec: Any) -> str:
    """A component, or a mapping role -> component, as text."""
    if isinstance(spec, Mapping) and "type" not in spec:
        return ", ".join(f"{role} {_sentence(word)}" for role, word in spec.items())
    return str(as_word(spec, "drawing")) if isinstance(spec, Word | Mapping) else str(spec)


def _mixing(visit: Visit, tap: Any) -> Mixing | None:
    """A layer's relation as a mask."""
    if not isinstance(visit.plan, LayerPlan):
        return None
    own = len(visit.before)
    pairs = visit.plan.relation.pairs().numpy()
    asks = np.ones(own, np.bool_)
    if visit.plan.asked is not None:
        asks = np.isin(np.arange(own), visit.plan.asked.numpy())
    if tap is None:
        return Mixing(pairs, asks, visit.before)
    return Mixing(pairs[:own, own:], asks, visit.taps[str(tap)], str(tap))


def _equal(a: Meta, b: Meta) -> bool:
    """Whether two sets of tokens are the same, in the same order."""
    if a is b:
        return True
    for field in fields(Meta):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, torch.Tensor):
            if not isinstance(y, torch.Tensor) or x.shape != y.shape:
                return False
            if not bool(((x == y) | ((x != x) & (y != y))).all()):
                return False
        elif x != y:
            return False
    return True


def stretches(stages: Sequence[Stage]) -> list[Stretch]:
    """Stages with what is repeated drawn together: the longest gain first, an alternation of several stages as well."""
    found: list[Stretch] = []
    at = 0
    while at < len(stages):
        best, times = 1, 1
        for period in range(1, min(_PERIOD, len(stages) - at) + 1):
            count = 1
            while _repeats(stages, at, period, count):
                count += 1
            if count > 1 and period * (count - 1) > best * (times - 1):
                best, times = period, count
        mine = [_named(stages[at + k : at + best * times : best]) for k in range(best)] if times > 1 else [stages[at]]
        found.append(Stretch(tuple(mine), times))
        at += best * times
    return found


def _repeats(stages: Sequence[Stage], at: int, period: int, count: int) -> bool:
    """Whether the stages ``at`` .. come once more behind ``count`` times."""
    again = stages[at + period * count : at + period * (count + 1)]
    first = stages[at : at + period]
    return len(again) == period and all(s.kind == "layer" and s.like(t) for s, t in zip(first, again, strict=True))


def _named(same: Sequence[Stage]) -> Stage:
    """The first of some equal stages, by the names of all of them."""
    names = list(dict.fromkeys(stage.name for stage in same if stage.name))
    return replace(same[0], name=", ".join(names))
