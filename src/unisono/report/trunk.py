"""A recipe's trunk on one page: the picture, its legend, its words; no other file, no network, no script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unisono.core.names import Names
from unisono.core.registry import all_registries
from unisono.core.tokens import Meta
from unisono.nn.trunk import Trunk
from unisono.report.panels import Lane, lanes_of
from unisono.report.render import template
from unisono.report.schedule import Stretch, schedule, stretches
from unisono.report.svg import tag
from unisono.report.trunk_svg import colour_of, draw

#: A sign, and what it means.
SIGNS = {
    "group": ("shaded field", "all its tokens see each other"),
    "outline": ("thick outline", "tokens within it see each other, and nobody else"),
    "letters": ("letters", "tokens of equal letters see each other"),
    "numbers": ("numbers", "a token sees those of its own number and of lower ones in its field"),
    "arrow": ("arrow", "tokens at its head see those at its foot; with two heads both see each other"),
    "lines": ("thin line", "two tokens of which one sees the other"),
    "idle": ("pale tokens", "leave the layer unchanged"),
    "resample": ("16 → 4", "how many tokens there are before and behind"),
    "tap": ("line at the right", "tokens are kept under a name and come back later"),
    "times": ("× and bracket", "the same again so many times, each time with weights of its own unless sharing says depth"),
}
_ALWAYS = (
    "square at the right",
    "the same once more, exactly: a row for each token that asks, coloured where it sees the token of the column",
)


@dataclass(frozen=True)
class Swatch:
    """A lane in the legend."""

    swatch: Markup
    name: str
    kind: str


@dataclass(frozen=True)
class Gloss:
    """A word that the trunk uses: its name, role, first line of its documentation, and source."""

    name: str
    role: str
    summary: str
    source: str


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    name: str
    claim: str
    source: str
    lanes: Sequence[Swatch]
    signs: Sequence[tuple[str, str]]
    drawing: Markup
    glossary: Sequence[Gloss]
    recipe: str
    about: str


def trunk_page(
    trunk: Trunk, settings: Mapping[str, Any], meta: Meta, names: Names, *, name: str, recipe: str, end: str, about: str
) -> str:  # fmt: skip
    """The page as HTML.

    Args:
        trunk: as it was built of the settings.
        settings: a resolved recipe's.
        meta: one row's tokens.
        names: what they are called.
        name: of the recipe.
        recipe: the recipe as text.
        end: what becomes of the vector that is read.
        about: which row it is, and the like.
    """
    found = stretches(schedule(trunk, settings["trunk"], settings["defaults"], meta))
    stages = [stage for stretch in found for stage in stretch.stages]
    lanes = lanes_of([meta, *(m for stage in stages for m in (stage.before, stage.after))], names)
    picture, signs = draw(found, meta, lanes, names, title=f"The trunk of {name}: {_told(found)}", end=end)
    page = Page(
        name=name,
        claim=str(settings.get("claim", "")),
        source=str(settings.get("source", "")),
        lanes=[Swatch(_swatch(lane), lane.name, lane.kind) for lane in lanes],
        signs=[*(SIGNS[s] for s in SIGNS if s in signs), _ALWAYS],
        drawing=picture,
        glossary=list(_glossary(found)),
        recipe=recipe,
        about=about,
    )
    return template("trunk.html.j2").render(page=page)


def _swatch(lane: Lane) -> Markup:
    square = tag("rect", x=1, y=1, width=14, height=14, rx=3, class_=f"k{colour_of(lane)}")
    return tag("svg", square, viewBox="0 0 16 16", aria_hidden="true")


def _told(found: Sequence[Stretch]) -> str:
    """The schedule in one line, for those who cannot see it."""
    parts = []
    for stretch in found:
        inner = ", ".join(f"{s.name or s.kind} ({s.title})" for s in stretch.stages)
        parts.append(f"{stretch.times} times {inner}" if stretch.times > 1 else inner)
    return "; ".join(parts)


_ROLES = {"mixer": "mixer", "ffn": "feed-forward", "norm": "norm", "residual": "residual", "sharing": "sharing"}


def _glossary(found: Sequence[Stretch]) -> Iterator[Gloss]:
    """Every word that occurs, once."""
    registries = all_registries()
    seen: set[tuple[str, str]] = set()
    for stage in (stage for stretch in found for stage in stretch.stages):
        kind = "scope" if stage.kind == "layer" else stage.kind
        for role, sentence in ((kind, stage.title), *((_ROLES[role], word) for role, word in stage.words)):
            registry = registries.get(role)
            for name in re.findall(r"[A-Za-z_]\w*", sentence) if registry is not None else ():
                if registry is None or name not in registry.entries or (role, name) in seen:
                    continue
                seen.add((role, name))
                entry = registry.entries[name]
                yield Gloss(name, role, entry.summary.replace("``", ""), entry.source)
