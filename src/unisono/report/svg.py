"""Charts as inline SVG, drawn by pure functions. Every text goes through ``tag`` and is escaped there.

Colours are classes of the page's style sheet, so that a chart follows light and dark. Letters: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from unisono.report.content import Bin
from unisono.report.figures import clean, number

_W, _H = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 22, 14, 44
_DENSE = 14


def tag(name: str, content: str = "", **attributes: object) -> Markup:
    """An element with escaped attributes; plain text inside is escaped, ``Markup`` is not. ``class_`` is ``class``, ``_`` is ``-``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-") if key != "viewBox" else key}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{escape(content)}</{name}>")


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def join(parts: Sequence[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


def drawing(width: float, height: float, title: str, parts: Sequence[Markup], class_: str = "chart") -> Markup:
    """An SVG with a description for those who cannot see it."""
    return tag("svg", join(parts), class_=class_, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=clean(title))


def text(x: float, y: float, content: str, anchor: str = "start", class_: str = "label", limit: int = 40) -> Markup:
    """A text."""
    return tag("text", clean(content, limit), x=x, y=y, text_anchor=anchor, class_=class_)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``: steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(low: float, high: float, by: float = 0.05) -> tuple[float, float]:
    """A range with some room, never empty."""
    room = (high - low) * by or abs(high) * by or 1.0
    return low - room, high + room


@dataclass(frozen=True)
class Frame:
    """A plot's ranges and its place on the page."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = _W
    height: float = _H
    left: float = _LEFT
    bottom: float = _BOTTOM

    def px(self, value: float) -> float:
        """Horizontal place."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1.0) * (self.width - self.left - _RIGHT)

    def py(self, value: float) -> float:
        """Vertical place."""
        low, high = self.y
        return self.height - self.bottom - (value - low) / ((high - low) or 1.0) * (self.height - self.bottom - _TOP)

    def axes(
        self, x_label: str, y_label: str, *, show: Callable[[float], str] = number, x_show: Callable[[float], str] = number
    ) -> list[Markup]:
        """Grid, ticks and labels."""
        parts: list[Markup] = []
        right, floor = self.width - _RIGHT, self.height - self.bottom
        for value in ticks(*self.y):
            y = self.py(value)
            parts.append(tag("line", x1=self.left, x2=right, y1=y, y2=y, class_="grid"))
            parts.append(text(self.left - 6, y + 4, show(value), "end"))
        for value in ticks(*self.x):
            x = self.px(value)
            parts.append(tag("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="axis"))
            parts.append(text(x, floor + 17, x_show(value), "middle"))
        parts.append(tag("line", x1=self.left, x2=right, y1=floor, y2=floor, class_="axis"))
        parts.append(text((self.left + right) / 2, self.height - 6, x_label, "middle", "name", 60))
        middle = (_TOP + floor) / 2
        turned = tag(
            "text", clean(y_label, 40), x=0, y=0, text_anchor="middle", class_="name", transform=f"translate(12 {middle:.1f}) rotate(-90)"
        )
        return [*parts, turned]


@dataclass(frozen=True)
class Line:
    """A named curve; None leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


def _defined(line: Line) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(line.x, line.y, strict=False) if y is not None and math.isfinite(y)]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    mark: tuple[float, str] | None = None,
    reference: tuple[float, str] | None = None,
    show: Callable[[float], str] = number,
) -> Markup:
    """Curves over a common axis.

    Args:
        lines: at most four.
        title: for those who cannot see it.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        mark: a place on the horizontal axis, and what it is.
        reference: a height, and what it is.
        show: how a tick is written.
    """
    points = [_defined(line) for line in lines]
    every = [p for part in points for p in part]
    if not every:
        return Markup("")
    heights = [y for _, y in every] + ([reference[0]] if reference else [])
    lengths = [x for x, _ in every]
    frame = Frame((min(0.0, *lengths), max(lengths) or 1.0), padded(min(heights), max(heights)))
    parts = frame.axes(x_label, y_label, show=show)
    if reference is not None:
        y = frame.py(reference[0])
        parts += [
            tag("line", x1=frame.left, x2=frame.width - _RIGHT, y1=y, y2=y, class_="ref"),
            text(frame.width - _RIGHT, y - 5, reference[1], "end"),
        ]
    for k, part in enumerate(points):
        path = " ".join(f"{frame.px(x):.1f},{frame.py(y):.1f}" for x, y in part)
        parts.append(tag("polyline", points=path, class_=f"line s{k}"))
        if len(part) <= _DENSE:
            parts += [tag("circle", cx=frame.px(x), cy=frame.py(y), r=2.5, class_=f"f{k}") for x, y in part]
    if mark is not None and frame.x[0] <= mark[0] <= frame.x[1]:
        x = frame.px(mark[0])
        side = "end" if x > frame.width / 2 else "start"
        parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=frame.height - frame.bottom, class_="mark"))
        parts.append(text(x + (-5 if side == "end" else 5), _TOP + 10, mark[1], side, "label strong"))
    return drawing(frame.width, frame.height, title, parts)


@dataclass(frozen=True)
class Bars:
    """A labelled group of bars; None leaves one out."""

    label: str
    values: Sequence[float | None]


def bar_chart(
    groups: Sequence[Bars],
    *,
    title: str,
    show: Callable[[float], str],
    references: Sequence[tuple[float, str]] = (),
    base: float = 0.0,
    top: float | None = None,
) -> Markup:
    """Horizontal bars in groups, values written at their ends.

    Args:
        groups: from top to bottom.
        title: for those who cannot see it.
        show: how a value is written.
        references: vertical lines, and what they are.
        base: where bars begin.
        top: the right end, if it is to be at least there.
    """
    known = [v for g in groups for v in g.values if v is not None and math.isfinite(v)]
    if not known:
        return Markup("")
    high = max([*known, base, *(v for v, _ in references), *([] if top is None else [top])])
    low = min([*known, base, *(v for v, _ in references)])
    left, bar = min(150.0, 24 + 7.0 * max(len(clean(g.label, 20)) for g in groups)), 13.0
    per = max(len(g.values) for g in groups)
    pitch, head = per * (bar + 2) + 10, 16.0 * len(references) + 4
    height = head + pitch * len(groups) + 4
    room = 64.0
    span = (high - low) or 1.0

    def px(value: float) -> float:
        return left + (46 if low < base else 0) + (value - low) / span * (_W - left - room - (46 if low < base else 0))

    parts: list[Markup] = []
    for k, (where, name) in enumerate(references):
        x, y = px(where), 12 + 16.0 * k
        parts.append(tag("line", x1=x, x2=x, y1=y + 4, y2=height, class_="ref"))
        parts.append(text(x, y, name, "end" if x > _W * 0.6 else "middle" if x > left + 60 else "start"))
    parts.append(tag("line", x1=px(base), x2=px(base), y1=head, y2=height, class_="axis"))
    for g, group in enumerate(groups):
        y0 = head + g * pitch + 5
        parts.append(text(left - 8, y0 + (pitch - 10) / 2 + 4, group.label, "end", "name", 20))
        for k, value in enumerate(group.values):
            if value is None or not math.isfinite(value):
                continue
            a, b, y = px(base), px(value), y0 + k * (bar + 2)
            parts.append(tag("rect", x=min(a, b), y=y, width=max(abs(b - a), 1.0), height=bar, rx=2, class_=f"f{k}"))
            parts.append(text(b + (5 if value >= base else -5), y + bar - 2, show(value), "start" if value >= base else "end"))
    return drawing(_W, height, title, parts)


def histogram(
    edges: Sequence[float], counts: Sequence[float], *, title: str, x_label: str, zero: bool = False, height: float = _H
) -> Markup:
    """Counts between edges; ``zero`` marks the place of zero."""
    if len(edges) != len(counts) + 1 or not len(counts):
        return Markup("")
    frame = Frame((edges[0], edges[-1]), (0.0, max(counts) * 1.05 or 1.0), height=height)
    parts = frame.axes(x_label, "rows")
    for k, count in enumerate(counts):
        a, b, y = frame.px(edges[k]), frame.px(edges[k + 1]), frame.py(count)
        words = tag("title", f"{number(edges[k])} to {number(edges[k + 1])}: {number(count)} rows")
        parts.append(tag("rect", words, x=a + 0.5, y=y, width=max(b - a - 1, 0.5), height=max(frame.py(0.0) - y, 0.0), class_="f0"))
    if zero and edges[0] < 0 < edges[-1]:
        parts.append(tag("line", x1=frame.px(0.0), x2=frame.px(0.0), y1=_TOP, y2=frame.py(0.0), class_="mark"))
    return drawing(frame.width, frame.height, title, parts)


def scatter(x: Sequence[float], y: Sequence[float], *, title: str, x_label: str, y_label: str) -> Markup:
    """Points with the diagonal on which both are equal."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return Markup("")
    values = [v for p in pairs for v in p]
    span = padded(min(values), max(values), 0.03)
    frame = Frame(span, span, height=340)
    parts = frame.axes(x_label, y_label)
    parts.append(tag("line", x1=frame.px(span[0]), y1=frame.py(span[0]), x2=frame.px(span[1]), y2=frame.py(span[1]), class_="ref"))
    small = 2.2 if len(pairs) > 400 else 3.0
    parts += [tag("circle", cx=round(frame.px(a), 1), cy=round(frame.py(b), 1), r=small, class_="dot") for a, b in pairs]
    return drawing(frame.width, frame.height, title, parts)


def heat_map(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]], *, title: str) -> Markup:
    """A confusion matrix: shade is the share of the row, the number is the count."""
    n, m = len(rows), len(columns)
    cell = max(17.0, min(46.0, 560.0 / max(m, 1)))
    left = min(170.0, 44 + 7.0 * max(len(clean(r, 20)) for r in rows))
    turned = m > 6 or max(len(clean(c, 20)) for c in columns) * 7 > cell
    top = (26 + 6.2 * max(len(clean(c, 16)) for c in columns)) if turned else 44.0
    width, height = left + m * cell + 30, top + n * cell + 6
    parts = [text(left, 13, "answered", "start", "name"), text(left - 8, top - 8, "truth", "end", "name")]
    for j, name in enumerate(columns):
        x = left + (j + 0.5) * cell
        if turned:
            parts.append(tag("text", clean(name, 16), class_="label", transform=f"translate({x + 4:.1f} {top - 6:.1f}) rotate(-90)"))
        else:
            parts.append(text(x, top - 8, name, "middle", limit=16))
    for i, name in enumerate(rows):
        total = sum(counts[i])
        parts.append(text(left - 8, top + (i + 0.5) * cell + 4, name, "end", limit=20))
        for j, count in enumerate(counts[i]):
            portion = count / total if total else 0.0
            x, y = left + j * cell, top + i * cell
            kind = "good" if columns[j] == name else "poor"
            words = tag("title", f"truth {clean(name, 60)}, answered {clean(columns[j], 60)}: {count:,} of {total:,}")
            parts.append(tag("rect", x=x, y=y, width=cell - 1, height=cell - 1, class_="cell"))
            if count:
                opacity = round(0.12 + 0.88 * portion, 3)
                parts.append(tag("rect", words, x=x, y=y, width=cell - 1, height=cell - 1, class_=kind, fill_opacity=f"{opacity:g}"))
                ink = "on" if opacity > 0.88 else "off"
                size = "tiny" if cell < 24 or count >= 1000 else ""
                parts.append(text(x + (cell - 1) / 2, y + cell / 2 + 4, f"{count}", "middle", f"count {ink} {size}".strip()))
    return drawing(width, height, title, parts, "chart natural").replace(  # its own size, up to the page's width
        Markup("<svg "), Markup(f'<svg style="width:{width:.0f}px" '), 1
    )


def reliability(before: Sequence[Bin], after: Sequence[Bin], *, title: str) -> Markup:
    """Accuracy against confidence, before and after calibration; a dot's area grows with its rows."""
    frame = Frame((0.0, 1.0), (0.0, 1.0), height=340)
    parts = frame.axes("confidence", "share that is right", show=_percent, x_show=_percent)
    parts.append(tag("line", x1=frame.px(0.0), y1=frame.py(0.0), x2=frame.px(1.0), y2=frame.py(1.0), class_="ref"))
    most = max([b.count for b in (*before, *after)] or [1.0]) or 1.0
    for bins, kind in ((before, 1), (after, 0)):
        known = [(b.confidence, b.accuracy, b.count) for b in bins if b.count and b.confidence is not None and b.accuracy is not None]
        path = " ".join(f"{frame.px(sure):.1f},{frame.py(right):.1f}" for sure, right, _ in known)
        parts.append(tag("polyline", points=path, class_=f"line s{kind}" + (" dashed" if kind else "")))
        for sure, right, count in known:
            words = tag("title", f"confidence {_percent(sure)}, right {_percent(right)}, {number(count)} answers")
            radius = 2.5 + 6.0 * math.sqrt(count / most)
            parts.append(tag("circle", words, cx=frame.px(sure), cy=frame.py(right), r=radius, class_=f"f{kind} bubble"))
    return drawing(frame.width, frame.height, title, parts)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def interval_strip(value: float, low: float | None, high: float | None, constant: float | None, *, title: str, higher: bool) -> Markup:
    """A value with its interval on a line that also shows the constant answer's."""
    known = [v for v in (value, low, high, constant, 1.0 if higher else 0.0) if v is not None and math.isfinite(v)]
    a, b = padded(min(known), max(known), 0.04)
    width, y = 320.0, 16.0

    def px(v: float) -> float:
        return 4 + (v - a) / (b - a) * (width - 8)

    parts = [tag("line", x1=4, x2=width - 4, y1=y, y2=y, class_="track")]
    if constant is not None and math.isfinite(constant):
        parts.append(tag("line", x1=px(constant), x2=px(value), y1=y, y2=y, class_="gain"))
        parts.append(tag("line", x1=px(constant), x2=px(constant), y1=y - 7, y2=y + 7, class_="constant"))
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        parts.append(tag("rect", x=px(low), y=y - 5, width=max(px(high) - px(low), 2.0), height=10, rx=5, class_="ci"))
    parts.append(tag("circle", cx=px(value), cy=y, r=5, class_="f0 ring"))
    return drawing(width, 32, title, parts, "strip")
