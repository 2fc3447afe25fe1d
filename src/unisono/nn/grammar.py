"""From a recipe's ``trunk`` to modules.

Every sentence is checked; what is none is refused with its place and the nearest valid word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unisono.core.errors import ConfigError, nearest
from unisono.core.names import Selection
from unisono.core.registry import check
from unisono.core.words import Word
from unisono.nn.ffn import FeedForward, feed_forwards
from unisono.nn.fork import ForkByTask, Within
from unisono.nn.insert import inserts
from unisono.nn.layer import Layer
from unisono.nn.mixer import Mixer, NoMixer, mixers
from unisono.nn.norm import Norm, norms
from unisono.nn.part import Frame, Part
from unisono.nn.read import Read, reads
from unisono.nn.resample import resamples
from unisono.nn.residual import Residual, residuals
from unisono.nn.scope import Scoping
from unisono.nn.share import ROLES, ShareOverDepth, Sharing, sharings
from unisono.nn.step import Step
from unisono.nn.tap import Save, bridges
from unisono.nn.trunk import Trunk

#: What a layer can be told; ``defaults`` gives what a step leaves out.
LAYER_KEYS = ("norm", "mixer", "scope", "sharing", "ffn", "residual")
#: What a step can be besides a layer, one at a time.
KINDS = ("resample", "insert", "save", "bridge", "fork", "read", "each")
STEP_KEYS = ("name", "repeat", "on", *LAYER_KEYS, "keys", *KINDS)
_FALLBACK: dict[str, Any] = {"norm": "layer", "mixer": "attention", "scope": "sample", "sharing": "all", "ffn": "mlp", "residual": "pre"}
_FORKS = ("modality", "source", "column", "level", "task")


def build_trunk(
    steps: Any, defaults: Mapping[str, Any], *, width: int, num_modalities: int = 1, frame: Frame | None = None, where: str = "recipe"
) -> Trunk:
    """Decode a recipe's ``trunk`` and ``defaults`` and build the modules.

    Args:
        steps: the list of steps.
        defaults: layer settings for steps that leave them out.
        width: D.
        num_modalities: number of modalities, inserted tokens not counted.
        frame: the names of modalities, columns, sources and targets; its counts are worked out here.
        where: the place to name in an error.

    Raises:
        ConfigError: a step is no sentence of the language; the message names its place and the nearest valid word.
    """
    at = f"{where}.trunk"
    given = _list_of_steps(steps, at)
    unknown = [key for key in defaults if key not in LAYER_KEYS]
    if unknown:
        raise ConfigError(f"{where}.defaults.{unknown[0]} is unknown{nearest(unknown[0], LAYER_KEYS)}")
    frame = replace(frame or Frame(), num_modalities=num_modalities + 1, width=width)
    levels, layers = _counts(given, len(frame.names.sources))
    frame = replace(frame, num_levels=levels, num_layers=max(layers, 1))
    if _forks_by_task(given):
        frame = replace(frame, num_tasks=max(len(frame.names.tasks), 1))
    builder = _Builder(layer_settings({}, defaults), width, frame)
    parts: list[Step] = []
    names: list[str] = []
    for number, step in enumerate(given):
        name, made = builder.step(step, number, f"{at}[{number}]")
        parts += made
        names += [name] if len(made) == 1 else [f"{name}.{k}" for k in range(len(made))]
    if not parts or not isinstance(parts[-1], Read):
        raise ConfigError(f"{at}: the last step has to be a read, for example {{read: mean}}")
    return Trunk(steps=parts, names=names, frame=frame, sorts_by=builder.sorts_by)


def layer_settings(step: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a step that is a layer is told, what it leaves out by ``defaults``, and what they leave out by the language."""
    return {**_FALLBACK, **defaults, **{k: v for k, v in step.items() if k in LAYER_KEYS}}


def _list_of_steps(steps: Any, where: str) -> Sequence[Any]:
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise ConfigError(f"{where}: expected a list of steps, got {steps!r}")
    return steps


def _branches(step: Mapping[str, Any]) -> Mapping[str, Any]:
    fork = step.get("fork")
    found = fork.get("branches") if isinstance(fork, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _counts(steps: Sequence[Any], sources: int = 0) -> tuple[int, int]:
    """Scales and layers on the longest way through a trunk over so many sources."""
    levels, layers = 1, 0
    for step in steps:
        if not isinstance(step, Mapping):
            continue
        if "resample" in step:
            levels += int(_rises(step["resample"]))
        elif "each" in step:
            spread = _counts(each_source(step["each"], sources) if isinstance(step["each"], list) else [], sources)
            levels, layers = levels + spread[0] - 1, layers + spread[1]
        elif not set(step) & set(KINDS):
            repeat = step.get("repeat", 1)
            layers += repeat if isinstance(repeat, int) else 1
        inner = [_counts(b, sources) for b in _branches(step).values() if isinstance(b, list)]
        levels += max((deep - 1 for deep, _ in inner), default=0)
        layers += max((long for _, long in inner), default=0)
    return levels, layers


def each_source(steps: Sequence[Any], sources: int) -> list[Any]:
    """The steps once for each source, one after the other, with the word ``each`` replaced by ``source(0)``, ``source(1)``, ..."""
    return [_replaced(step, f"source({k})") for k in range(sources) for step in steps]


def _replaced(value: Any, word: str) -> Any:
    if isinstance(value, str):
        return re.sub(r"\beach\b", word, value)
    if isinstance(value, Mapping):
        return {k: _replaced(v, word) for k, v in value.items()}
    return [_replaced(v, word) for v in value] if isinstance(value, list) else value


def _rises(spec: Any) -> bool:
    name = spec.name if isinstance(spec, Word) else spec.get("type", "") if isinstance(spec, Mapping) else str(spec).split("(")[0].strip()
    entry = resamples.entries.get(str(name))
    return bool(getattr(entry.target, "rises", False)) if entry is not None else False


def _forks_by_task(steps: Sequence[Any]) -> bool:
    for step in steps:
        fork = step.get("fork") if isinstance(step, Mapping) else None
        by = fork.get("by") if isinstance(fork, Mapping) else fork
        if by == "task":
            return True
    return False


@dataclass
class _Builder:
    """Turns steps of a recipe into modules; remembers taps and what sorting would suit."""

    defaults: Mapping[str, Any]
    width: int
    frame: Frame
    taps: list[str] = field(default_factory=list)
    layers: int = 0
    forked: bool = False
    sorts_by: str = "sample"

    def step(self, step: Any, number: int, where: str, *, inner: bool = False) -> tuple[str, list[Step]]:
        """One step's name and modules."""
        if not isinstance(step, Mapping):
            raise ConfigError(f"{where}: expected a step such as {{name: meet, repeat: 2, scope: sample}}, got {step!r}")
        for key in step:
            if key not in STEP_KEYS:
                hint = "; YAML reads a bare on as true: write 'on' in quotes" if key is True else nearest(str(key), STEP_KEYS)
                raise ConfigError(f"{where}.{key} is unknown{hint}")
        name = str(step.get("name", f"step{number}"))
        kinds = [k for k in KINDS if k in step]
        made = self._special(step, kinds, where, inner) if kinds else self._layers(step, where)
        if "on" in step:
            selection = Selection.of(step["on"], self.frame.names, f"{where}.on")
            return name, [Within(selection=selection, steps=made)]
        return name, made

    def _special(self, step: Mapping[str, Any], kinds: list[str], where: str, inner: bool) -> list[Step]:
        kind = kinds[0]
        extra = sorted(set(step) - {"name", "on", kind})
        if extra:
            raise ConfigError(f"{where}.{extra[0]}: a step that is {_article(kind)} {kind} takes no other key than 'name' and 'on'")
        spec, at = step[kind], f"{where}.{kind}"
        if kind == "read" and (inner or "on" in step):
            raise ConfigError(f"{at}: a read stands in the trunk itself, not within a branch or a selection")
        if kind == "each":
            return self._each(spec, at, inner)
        if kind == "fork":
            return self._fork(spec, at)
        if kind == "save":
            return [self._save(spec, at)]
        if kind == "read":
            return [self._read(spec, at)]
        registry: Any = {"resample": resamples, "insert": inserts, "bridge": bridges}[kind]
        made = registry.build(spec, where=at, width=self.width, frame=self.frame)
        if getattr(made, "tap", None) is not None:
            self._tap(made.tap, at)
        return [made]

    def _each(self, spec: Any, where: str, inner: bool) -> list[Step]:
        """Steps of each source's own, one source after the other."""
        sources = len(self.frame.names.sources)
        if not sources:
            raise ConfigError(f"{where}: the trunk has not been told the names of its sources")
        steps = _list_of_steps(spec, where)
        if any(isinstance(step, Mapping) and "fork" in step for step in steps):
            raise ConfigError(f"{where}: a fork does not stand among steps that are done for each source")
        spread = each_source(steps, sources)
        return [s for k, step in enumerate(spread) for s in self.step(step, k, f"{where}[{k % len(steps)}]", inner=inner)[1]]

    def _save(self, spec: Any, where: str) -> Save:
        name = check(spec, str, where)
        if name in self.taps or not name:
            raise ConfigError(f"{where}: a tap {name!r} was saved before; give it another name")
        self.taps.append(name)
        return Save(name=name)

    def _tap(self, name: str, where: str) -> str:
        if name not in self.taps:
            raise ConfigError(f"{where}: nothing was saved as {name!r} before this step{nearest(name, self.taps)}")
        return name

    def _read(self, spec: Any, where: str) -> Read:
        read = reads.build(spec, where=where, width=self.width, frame=self.frame)
        if not read.given_norm:
            read.norm = self._norm(self.defaults["norm"], where)
        return read

    def _fork(self, spec: Any, where: str) -> list[Step]:
        """The copies of a fork by task, and the branches one after the other: each touches tokens of its own alone."""
        by, branches = (spec.get("by"), spec.get("branches", {})) if isinstance(spec, Mapping) else (spec, {})
        extra = sorted(set(spec) - {"by", "branches"}) if isinstance(spec, Mapping) else []
        if extra:
            raise ConfigError(f"{where}.{extra[0]} is unknown{nearest(str(extra[0]), ('by', 'branches'))}")
        if by not in _FORKS:
            raise ConfigError(f"{where}: no fork is by {by!r}{nearest(str(by), _FORKS)}")
        if not isinstance(branches, Mapping) or (not branches and by != "task"):
            raise ConfigError(
                f"{where}: a fork by {by} needs branches, for example {{by: modality, branches: {{image: [...], text: [...]}}}}"
            )
        made: list[Step] = []
        if by == "task":
            if self.forked:
                raise ConfigError(f"{where}: the trunk has forked by task before")
            self.forked = True
            made.append(ForkByTask(num_tasks=self.frame.num_tasks))
        before = self.layers
        deepest = before
        for name, steps in branches.items():
            word = f"task({name})" if by == "task" else f"level({name})" if by == "level" else name
            selection = Selection.of(word, self.frame.names, f"{where}.branches")
            self.layers = before
            at = f"{where}.branches.{name}"
            inside = [s for k, step in enumerate(_list_of_steps(steps, at)) for s in self.step(step, k, f"{at}[{k}]", inner=True)[1]]
            made.append(Within(selection=selection, steps=inside))
            deepest = max(deepest, self.layers)
        self.layers = deepest
        return made

    def _layers(self, step: Mapping[str, Any], where: str) -> list[Step]:
        repeat = check(step.get("repeat", 1), int, f"{where}.repeat")
        if repeat < 0:
            raise ConfigError(f"{where}.repeat: a step cannot be repeated {repeat} times")
        settings = layer_settings(step, self.defaults)
        shared = self._sharing(settings["sharing"], f"{where}.sharing")
        scopes = self._scopes(settings["scope"], f"{where}.scope")
        keys = self._tap(check(step["keys"], str, f"{where}.keys"), f"{where}.keys") if "keys" in step else None
        mixer: Mixer | None = None
        made: list[Step] = []
        for number in range(repeat):
            if mixer is None or not isinstance(shared["mixer"], ShareOverDepth):
                mixer = self._mixer(settings["mixer"], shared["mixer"], f"{where}.mixer")
            made.append(self._layer(settings, shared, scopes[number % len(scopes)], keys, mixer, where))
            self.layers += 1
        return made

    def _scopes(self, spec: Any, where: str) -> list[Scoping]:
        """One scope, or several that the repeats of a step take in turns."""
        given = spec if isinstance(spec, list) and spec else [spec]
        return [Scoping(check(text, str, where), where, self.frame) for text in given]

    def _mixer(self, spec: Any, sharing: Sharing, where: str) -> Mixer:
        inner = sharing.of if isinstance(sharing, ShareOverDepth) else sharing
        return mixers.build(spec, where=where, width=self.width, sharing=inner, frame=self.frame)

    def _layer(
        self, settings: Mapping[str, Any], shared: Mapping[str, Sharing], scope: Scoping, keys: str | None, mixer: Mixer, where: str
    ) -> Layer:
        rules = [self._residual(settings["residual"], f"{where}.residual") for _ in range(2)]

        def ffn() -> FeedForward:
            return feed_forwards.build(settings["ffn"], where=f"{where}.ffn", width=self.width, frame=self.frame)

        only_mixes = feed_forwards.settings(settings["ffn"], f"{where}.ffn")[0].name == "none"
        only_transforms = isinstance(mixer, NoMixer) and not rules[0].parallel

        def norm(name: str, count: int) -> list[Part]:
            return [
                shared["norm"].wrap(lambda: self._norm(settings["norm"], f"{where}.norm"), self.frame, f"{name}.{k}") for k in range(count)
            ]

        number = rules[0].num_norms
        return Layer(
            mixer=mixer,
            ffn=ffn() if only_mixes else shared["ffn"].wrap(ffn, self.frame, "ffn"),
            norms=[] if only_transforms else norm("norm_mixer", number),
            ffn_norms=[] if only_mixes or rules[0].parallel else norm("norm_ffn", number),
            residuals=rules,
            scope=scope,
            keys=keys,
        )

    def _norm(self, spec: Any, where: str) -> Norm:
        return norms.build(spec, where=where, width=self.width, frame=self.frame)

    def _residual(self, spec: Any, where: str) -> Residual:
        deep = self.layers / max(self.frame.num_layers - 1, 1)
        return residuals.build(spec, where=where, width=self.width, frame=self.frame, at=min(deep, 1.0))

    def _sharing(self, spec: Any, where: str) -> dict[str, Sharing]:
        """The sharing of each role: one word for all that it can share, or a mapping role -> word."""
        if isinstance(spec, Mapping) and "type" not in spec:
            for key in spec:
                if key not in ROLES:
                    raise ConfigError(f"{where}.{key} is unknown{nearest(str(key), ROLES)}")
            return {role: self._one_sharing(spec.get(role, "all"), role, f"{where}.{role}") for role in ROLES}
        found = sharings.build(spec, where=where)
        self._sort(found)
        return {role: found if role in found.roles else sharings.build("all") for role in ROLES}

    def _one_sharing(self, spec: Any, role: str, where: str) -> Sharing:
        found = sharings.build(spec, where=where)
        if role not in found.roles:
            raise ConfigError(f"{where}: {spec} shares {' and '.join(found.roles)} alone, not the {role}")
        self._sort(found)
        return found

    def _sort(self, sharing: Sharing) -> None:
        self.sorts_by = sharing.sorts_by() or self.sorts_by


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
