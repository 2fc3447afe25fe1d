"""A trunk as one picture: lanes of tokens from top to bottom, and for every layer who mixes with whom.

Letters: T tokens, L lanes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unisono.core.names import Names
from unisono.core.tokens import Meta
from unisono.core.words import parse_word
from unisono.report.figures import plural
from unisono.report.mixing import Arrow, Group, Told, marks, tell
from unisono.report.panels import Lane, Panel, panel, token_words
from unisono.report.schedule import Mixing, Stage, Stretch
from unisono.report.svg import drawing, tag, text

_WORDS, _MASK, _GUTTER = 288.0, 118.0, 30.0
_UNIT, _SMALL, _ROOM = 17.0, 3.0, 560.0
_BETWEEN, _PAD = 30.0, 9.0
_LINE, _LETTER, _MONO = 16.0, 6.3, 7.3
_TAP = 16.0
#: Lines within a lane are drawn up to this many.
_LINES = 120

Mask = NDArray[np.bool_]


@dataclass
class Canvas:
    """The picture while it grows from top to bottom.

    Attributes:
        lanes: from left to right.
        names: what tokens are called.
        unit: side of a token.
        centres: of the lanes.
        widths: of the lanes.
        right: where the lanes end.
        y: how far down it has come.
        taps: name -> (height of the save, number of the tap).
        back: what lies behind.
        front: what lies before it.
        flows: lane -> (height, width) at which its tokens were seen last.
        signs: what a reader has to be told of.
    """

    lanes: Sequence[Lane]
    names: Names
    unit: float
    centres: list[float]
    widths: list[float]
    right: float
    y: float = 0.0
    taps: dict[str, tuple[float, int]] = field(default_factory=dict)
    back: list[Markup] = field(default_factory=list)
    front: list[Markup] = field(default_factory=list)
    flows: dict[int, tuple[float, float]] = field(default_factory=dict)
    signs: set[str] = field(default_factory=set)

    @property
    def mask_left(self) -> float:
        """Where the small masks begin."""
        return self.right + _GUTTER + _TAP * max(len(self.taps), 1)

    def flow(self, lane: int, top: float, width: float) -> None:
        """Lead a lane's tokens from where they were seen last to here."""
        x = self.centres[lane]
        if lane in self.flows:
            y, before = self.flows[lane]
            a, b = max(before, 3.0) / 2, max(width, 3.0) / 2
            bend = (y + top) / 2
            path = f"M{x - a:.1f} {y:.1f}C{x - a:.1f} {bend:.1f} {x - b:.1f} {bend:.1f} {x - b:.1f} {top:.1f}H{x + b:.1f}"
            path += f"C{x + b:.1f} {bend:.1f} {x + a:.1f} {bend:.1f} {x + a:.1f} {y:.1f}Z"
            self.back.append(tag("path", d=path, class_=f"k{colour_of(self.lanes[lane])} flow"))
        self.flows[lane] = (top, width)


def colour_of(lane: Lane) -> str:
    """A lane's colour class: a number, or n for learned tokens."""
    return "n" if lane.learned else str(lane.number % 7)


def draw(
    stretches: Sequence[Stretch], enter: Meta, lanes: Sequence[Lane], names: Names, *, title: str, end: str
) -> tuple[Markup, set[str]]:
    """The whole picture, and which of its signs a reader has to be told of.

    Args:
        stretches: the schedule.
        enter: the tokens as they enter.
        lanes: of its tokens.
        names: what tokens are called.
        title: for those who cannot see it.
        end: what becomes of the vector that is read.
    """
    stages = [stage for stretch in stretches for stage in stretch.stages]
    canvas = _canvas([enter, *(m for stage in stages for m in (stage.before, stage.after))], lanes, names)
    for stage in stages:
        if stage.kind == "save":
            canvas.taps[stage.title] = (0.0, len(canvas.taps))
    canvas.y = 8.0
    _heads(canvas, enter)
    for stretch in stretches:
        top = canvas.y
        for stage in stretch.stages:
            _stage(canvas, stage, end if stage is stages[-1] else "")
        if stretch.times > 1:
            _times(canvas, top, canvas.y - 14.0, stretch)
    width = canvas.mask_left + _MASK + 26.0
    return drawing(width, canvas.y + 6.0, title, [*canvas.back, *canvas.front], "trunk"), canvas.signs


def _canvas(metas: Sequence[Meta], lanes: Sequence[Lane], names: Names) -> Canvas:
    """Room for every lane's widest panel."""
    widest = [1.0] * len(lanes)
    for meta in {id(m): m for m in metas}.values():
        for lane in lanes:
            widest[lane.number] = max(widest[lane.number], panel(meta, lane.holds(meta), names).size[0])
    unit = max(min(_UNIT, _ROOM / sum(widest)), _SMALL)
    widths = [max(w * unit, _LETTER * min(max(len(lane.name), 5), 16)) for w, lane in zip(widest, lanes, strict=True)]
    centres, x = [], _WORDS + 24.0
    for width in widths:
        centres.append(x + width / 2)
        x += width + _BETWEEN
    return Canvas(lanes, names, unit, centres, widths, max(x - _BETWEEN + 14.0, _WORDS + 250.0))


def _heads(canvas: Canvas, meta: Meta) -> None:
    """What each lane is, and how many tokens enter in it."""
    canvas.front.append(text(_WORDS - 14, canvas.y + 14, "one row of the table, as tokens", "end", "label"))
    canvas.front.append(text(canvas.mask_left, canvas.y + 14, "who sees whom", "start", "label"))
    for lane in canvas.lanes:
        count = len(lane.holds(meta))
        if lane.learned:
            continue
        x = canvas.centres[lane.number]
        canvas.front.append(text(x, canvas.y + 14, lane.name, "middle", "name strong", 16))
        canvas.front.append(text(x, canvas.y + 29, plural(count, "token") if count else "missing", "middle", "label"))
        if count:
            canvas.flows[lane.number] = (canvas.y + 35, panel(meta, lane.holds(meta), canvas.names).size[0] * canvas.unit)
    canvas.y += 62.0


def _stage(canvas: Canvas, stage: Stage, end: str) -> None:
    """One step, from where the picture has come to."""
    if stage.kind == "layer":
        _layer(canvas, stage)
    elif stage.kind in {"insert", "resample", "fork"}:
        _change(canvas, stage)
    elif stage.kind == "read":
        _read(canvas, stage, end)
    else:
        _tap(canvas, stage)


def _words_of(canvas: Canvas, stage: Stage, top: float, kind: str) -> float:
    """A step's words at the left; returns how high they are."""
    x, y = 14.0 + 12.0 * len(stage.within), top + 14.0
    for depth, selection in enumerate(stage.within):
        if depth == len(stage.within) - 1:
            canvas.front.append(text(x, y, selection, "start", "label strong", 40))
            y += _LINE
    head = stage.name or {"layer": "layer"}.get(kind, kind)
    canvas.front.append(text(x, y, head, "start", "step", 30))
    y += _LINE + 2
    first = "who mixes" if kind == "layer" else kind if stage.name else ""
    for role, word in [(first, stage.title), *stage.words]:
        canvas.front.append(text(x, y, "feed-forward" if role == "ffn" else role, "start", "label", 20))
        indent = 84.0 if role else 0.0
        for part in textwrap.wrap(word, max(int((_WORDS - x - indent - 8) / _MONO), 8)) or [""]:
            canvas.front.append(text(x + indent, y, part, "start", "word", 60))
            y += _LINE
    return y - top - 6.0


def _panels(canvas: Canvas, meta: Meta) -> list[Panel]:
    return [panel(meta, lane.holds(meta), canvas.names) for lane in canvas.lanes]


def _layer(canvas: Canvas, stage: Stage) -> None:
    """A layer: words, the tokens with their groups, arrows, sentences, the small mask."""
    mixing = stage.mixing
    assert mixing is not None
    told, panels = tell(stage, canvas.lanes), _panels(canvas, stage.before)
    top = canvas.y
    _flows(canvas, panels, top + _PAD)
    high = max(p.size[1] for p in panels) * canvas.unit
    floor = top + _PAD + high + _PAD
    _tokens(canvas, stage, told, panels, top + _PAD, high)
    if mixing.tap:
        _bring(canvas, mixing.tap, top + _PAD + high / 2)
    floor = _arrows(canvas, told.arrows if not mixing.tap else (), floor)
    words = textwrap.wrap("; ".join(told.words), max(int((canvas.right - _WORDS) / _LETTER), 20))
    for k, line in enumerate(words[:4]):
        canvas.front.append(text(_WORDS + 10, floor + 16 + k * 15, line, "start", "said", 200))
    floor += 15.0 * len(words[:4]) + 8
    _mask(canvas, stage, mixing, panels, top)
    floor = max(floor, top + _words_of(canvas, stage, top, "layer"), top + _MASK + 4)
    _finish(canvas, panels, floor)


def _flows(canvas: Canvas, panels: Sequence[Panel], top: float) -> None:
    """Lanes come in from above."""
    for lane, found in zip(canvas.lanes, panels, strict=True):
        if len(found.tokens):
            canvas.flow(lane.number, top, found.size[0] * canvas.unit)


def _finish(canvas: Canvas, panels: Sequence[Panel], floor: float) -> None:
    """A card is done: its lanes are led on through it."""
    for lane, found in zip(canvas.lanes, panels, strict=True):
        if len(found.tokens):
            canvas.flow(lane.number, floor, found.size[0] * canvas.unit)
    canvas.front.append(tag("line", x1=8, x2=canvas.mask_left + _MASK + 8, y1=floor + 7, y2=floor + 7, class_="rule"))
    canvas.y = floor + 14.0


def _corner(canvas: Canvas, lane: int, found: Panel, top: float, high: float) -> tuple[float, float]:
    """Where a lane's panel begins: in the middle of its lane and of its line."""
    return canvas.centres[lane] - found.size[0] * canvas.unit / 2, top + (high - found.size[1] * canvas.unit) / 2


def _tokens(canvas: Canvas, stage: Stage, told: Told, panels: Sequence[Panel], top: float, high: float) -> None:
    """Shaded groups, outlines, lines, and the tokens themselves."""
    corners = [_corner(canvas, k, p, top, high) for k, p in enumerate(panels)]
    touching = [_touching(p) for p in panels]
    written, lettered = marks(told, touching, [p.tokens for p in panels])
    canvas.signs |= {"letters"} if lettered else {"numbers"} if written else set()
    at: dict[int, tuple[float, float]] = {}
    for found, (x, y) in zip(panels, corners, strict=True):
        at.update({int(t): (x + u * canvas.unit, y + v * canvas.unit) for t, (u, v) in zip(found.tokens, found.places, strict=True)})
    for group in told.groups:
        _enclose(canvas, group, panels, corners, top, high, outline=not lettered & set(group.lanes), at=at)
    if len(told.lines) and len(told.lines) <= _LINES:
        half = canvas.unit / 2
        canvas.signs.add("lines")
        for a, b in told.lines.tolist():
            (xa, ya), (xb, yb) = at[a], at[b]
            canvas.front.append(tag("line", x1=xa + half, y1=ya + half, x2=xb + half, y2=yb + half, class_="edge"))
    mixing = stage.mixing
    for lane, found in zip(canvas.lanes, panels, strict=True):
        for token, node in zip(found.tokens.tolist(), found.round.tolist(), strict=True):
            x, y = at[token]
            words, mark = _hover(canvas, stage.before, mixing, token), written.get(token, "")
            canvas.front += _token(canvas, lane, x, y, node, bool(told.idle[token]), mark, words)
        for u, v, note in found.notes:
            x, y = corners[lane.number]
            canvas.front.append(text(x + u * canvas.unit, y + v * canvas.unit + 8, note, "start", "tiny", 16))
    if bool(told.idle.any()):
        canvas.signs.add("idle")


def _hover(canvas: Canvas, meta: Meta, mixing: Mixing | None, token: int) -> str:
    words = token_words(meta, token, canvas.names)
    if mixing is None:
        return words
    if not mixing.asks[token]:
        return f"{words}: unchanged here"
    return f"{words}: sees {plural(int(mixing.seen[token].sum()), 'token')}"


def _token(canvas: Canvas, lane: Lane, x: float, y: float, node: bool, idle: bool, mark: str, words: str) -> list[Markup]:
    """One token."""
    unit, kind = canvas.unit, f"k{colour_of(lane)}" + (" idle" if idle else "")
    hover = tag("title", words)
    if node:
        parts = [tag("circle", hover, cx=x + unit / 2, cy=y + unit / 2, r=unit / 2 - 1, class_=kind)]
    else:
        inset = 1.0 if unit > 6 else 0.3
        parts = [tag("rect", hover, x=x + inset, y=y + inset, width=unit - 2 * inset, height=unit - 2 * inset, rx=unit / 7, class_=kind)]
    if mark and unit >= 8:
        size = "sign small" if len(mark) > 2 else "sign"
        parts.append(text(x + unit / 2, y + unit / 2 + 3.3, mark, "middle", f"{size} i{colour_of(lane)}", 4))
    return parts


def _touching(found: Panel) -> Mask:
    """(N, N) which tokens lie side by side."""
    far = np.abs(found.places[:, None, :] - found.places[None, :, :]).sum(2)
    return np.asarray(far < 1.01)


def _enclose(
    canvas: Canvas, group: Group, panels: Sequence[Panel], corners: Sequence[tuple[float, float]], top: float, high: float, *,
    outline: bool, at: dict[int, tuple[float, float]],
) -> None:  # fmt: skip
    """Shade what a group covers: whole lanes together, or its own tokens."""
    lanes = sorted(group.lanes)
    together = lanes == list(range(lanes[0], lanes[-1] + 1))
    if group.whole and together:
        canvas.signs.add("group")
        left = min(corners[n][0] for n in lanes) - 8
        right = max(corners[n][0] + panels[n].size[0] * canvas.unit for n in lanes) + 8
        y, height = top - 6, high + 12
        if len(lanes) == 1:
            y, height = corners[lanes[0]][1] - 6, panels[lanes[0]].size[1] * canvas.unit + 12
        canvas.back.append(tag("rect", x=left, y=y, width=right - left, height=height, rx=9, class_="group"))
        return
    if not outline or len(lanes) > 1:
        return
    canvas.signs.add("outline")
    unit = canvas.unit
    places = {(round(at[int(t)][0], 1), round(at[int(t)][1], 1)) for t in group.tokens}
    walls = []
    for x, y in places:
        for dx, dy, line in ((-unit, 0, (0, 0, 0, 1)), (unit, 0, (1, 0, 1, 1)), (0, -unit, (0, 0, 1, 0)), (0, unit, (0, 1, 1, 1))):
            if not any(abs(x + dx - u) < 0.3 and abs(y + dy - v) < 0.3 for u, v in places):
                a, b, c, d = (k * unit for k in line)
                walls.append(f"M{x + a:.1f} {y + b:.1f}L{x + c:.1f} {y + d:.1f}")
    canvas.front.append(tag("path", d="".join(sorted(walls)), class_="wall"))


def _arrows(canvas: Canvas, arrows: Sequence[Arrow], floor: float) -> float:
    """Arcs below the tokens, each ending in a head at the lane that hears; returns how far down they reach."""
    if not arrows:
        return floor
    canvas.signs.add("arrow")
    deepest = 0.0
    ends: dict[int, int] = {}
    for arrow in arrows:
        a, b = arrow.speaks, arrow.hears
        shift = [(ends.get(n, 0) + 1) // 2 * 7.0 * (-1) ** ends.get(n, 0) for n in (a, b)]
        ends[a], ends[b] = ends.get(a, 0) + 1, ends.get(b, 0) + 1
        xa, xb = canvas.centres[a] + shift[0], canvas.centres[b] + shift[1]
        depth = 16.0 + 7.0 * abs(a - b)
        deepest = max(deepest, depth)
        kind = f"arc l{colour_of(canvas.lanes[a])}" if not arrow.both else "arc"
        path = f"M{xa:.1f} {floor + 4:.1f}C{xa:.1f} {floor + depth:.1f} {xb:.1f} {floor + depth:.1f} {xb:.1f} {floor + 4:.1f}"
        canvas.front.append(tag("path", d=path, class_=kind))
        for x in (xb, xa) if arrow.both else (xb,):
            head = f"M{x - 4:.1f} {floor + 6:.1f}L{x:.1f} {floor - 2:.1f}L{x + 4:.1f} {floor + 6:.1f}Z"
            canvas.front.append(tag("path", d=head, class_="head"))
    return floor + deepest * 0.8 + 2


def _mask(canvas: Canvas, stage: Stage, mixing: Mixing, panels: Sequence[Panel], top: float) -> None:
    """The relation as a small square: a row for each token that asks, a column for each that may be seen, in its lane's colour."""
    left = canvas.mask_left
    rows = np.concatenate([p.tokens for p in panels]).astype(np.int64)
    row_lane = np.repeat([lane.number for lane in canvas.lanes], [len(p.tokens) for p in panels])
    keys = [lane.holds(mixing.keys) for lane in canvas.lanes]
    columns = np.concatenate(keys).astype(np.int64)
    column_lane = np.repeat([lane.number for lane in canvas.lanes], [len(k) for k in keys])
    if not len(rows) or not len(columns):
        return
    seen = mixing.seen[np.ix_(rows, columns)] & mixing.asks[rows][:, None]
    if dict(stage.words).get("mixer") == "none":
        seen = np.zeros_like(seen)
    size = (_MASK - 8) / max(len(rows), len(columns))
    x0, y0 = left + 6, top + 6
    wide, high = size * len(columns), size * len(rows)
    parts = [tag("rect", x=x0, y=y0, width=wide, height=high, class_="field")]
    for index, lane in enumerate(canvas.lanes):
        for found, horizontal in ((np.flatnonzero(column_lane == index), True), (np.flatnonzero(row_lane == index), False)):
            if len(found):
                a, length = found[0] * size, len(found) * size
                place = (x0 + a, top, length, 4.0) if horizontal else (left, y0 + a, 4.0, length)
                x, y, w, h = (float(v) for v in place)
                parts.append(tag("rect", x=x, y=y, width=w, height=h, class_=f"k{colour_of(lane)}"))
    parts += _runs(canvas, seen, column_lane, x0, y0, size)
    canvas.front += parts


def _runs(canvas: Canvas, seen: Mask, lane: NDArray[np.int64], x0: float, y0: float, size: float) -> list[Markup]:
    """A mask as rectangles: equal rows that follow each other are one, columns of one lane as well."""
    parts = []
    changes = [0, *(np.flatnonzero((seen[1:] != seen[:-1]).any(1)) + 1).tolist(), len(seen)]
    for a, b in pairwise(changes):
        kinds = np.where(seen[a], lane, -1)
        edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
        for c, d in pairwise(edges):
            if kinds[c] >= 0:
                colour = colour_of(canvas.lanes[int(kinds[c])])
                x, y, wide, high = x0 + c * size, y0 + a * size, (d - c) * size, (b - a) * size
                parts.append(tag("rect", x=x, y=y, width=wide, height=high, class_=f"k{colour}"))
    return parts


def _change(canvas: Canvas, stage: Stage) -> None:
    """A step that changes which tokens there are: each lane's number before and behind."""
    top = canvas.y
    before, after = _panels(canvas, stage.before), _panels(canvas, stage.after)
    said = f"{len(stage.before)} tokens become {len(stage.after)}" if len(stage.before) != len(stage.after) else "the same tokens go on"
    if stage.kind == "fork" and len(stage.before) == len(stage.after):
        said = "each branch works on tokens of its own; they stand below one after the other, and are independent"
    _flows(canvas, before, top + 4)
    floor = top + max(38.0, _words_of(canvas, stage, top, stage.kind))
    for lane, old, new in zip(canvas.lanes, before, after, strict=True):
        a, b = len(old.tokens), len(new.tokens)
        x = canvas.centres[lane.number]
        if b:
            canvas.flow(lane.number, floor, new.size[0] * canvas.unit)
        if not a and b:
            canvas.front.append(text(x, floor - 20, lane.name, "middle", "name strong", 16))
            canvas.front.append(text(x, floor - 5, plural(b, "token"), "middle", "label"))
        elif a != b:
            canvas.front.append(text(x, (top + floor) / 2 + 6, f"{a} → {b}" if b else f"{a} → none", "middle", "name strong halo"))
        if a and not b:
            canvas.flows.pop(lane.number, None)
    if stage.kind == "resample":
        canvas.signs.add("resample")
        _bring(canvas, _argument(stage.title), (top + floor) / 2)
    lines = textwrap.wrap(said, 20)
    for k, line in enumerate(lines):
        canvas.front.append(text(canvas.mask_left, top + 14 + 15 * k, line, "start", "said", 60))
    floor = max(floor, top + 15.0 * len(lines) + 4)
    _finish(canvas, after, floor)


def _tap(canvas: Canvas, stage: Stage) -> None:
    """A save or a bridge: a line in the gutter from one to the other."""
    top = canvas.y
    panels = _panels(canvas, stage.before)
    _flows(canvas, panels, top)
    high = max(34.0, _words_of(canvas, stage, top, stage.kind))
    y = top + 12
    name = stage.title
    if stage.kind == "save":
        number = canvas.taps[name][1]
        canvas.taps[name] = (y, number)
        x = canvas.right + _GUTTER / 2 + _TAP * number
        canvas.front.append(tag("path", d=f"M{canvas.right - 8:.1f} {y}H{x:.1f}", class_="tap"))
        canvas.front.append(tag("circle", cx=canvas.right - 8, cy=y, r=4, class_="head"))
        canvas.front.append(text(canvas.mask_left, y + 4, f"kept as {name}", "start", "said", 24))
        canvas.signs.add("tap")
    else:
        saved = _argument(name)
        _bring(canvas, saved, y)
        canvas.front.append(text(canvas.mask_left, y + 4, f"{saved} comes back", "start", "said", 24))
    _finish(canvas, panels, top + high)


def _argument(sentence: str) -> str:
    """The first setting of a word, or its ``tap``."""
    word = parse_word(sentence)
    return str(word.named.get("tap", word.positional[0] if word.positional else ""))


def _bring(canvas: Canvas, name: str, y: float) -> None:
    """The line from where a tap was saved to here."""
    if name not in canvas.taps or not canvas.taps[name][0]:
        return
    begin, number = canvas.taps[name]
    x = canvas.right + _GUTTER / 2 + _TAP * number
    end = canvas.right - 8
    canvas.front.append(tag("path", d=f"M{x:.1f} {begin:.1f}V{y:.1f}H{end + 6:.1f}", class_="tap"))
    canvas.front.append(tag("path", d=f"M{end + 8:.1f} {y - 4:.1f}L{end:.1f} {y:.1f}L{end + 8:.1f} {y + 4:.1f}Z", class_="head"))


def _read(canvas: Canvas, stage: Stage, end: str) -> None:
    """Lanes run together into one vector; an ``end`` says what becomes of the last, an earlier one has none."""
    top = canvas.y
    panels = _panels(canvas, stage.before)
    present = [lane.number for lane, found in zip(canvas.lanes, panels, strict=True) if len(found.tokens)]
    middle = (min(canvas.centres[n] for n in present) + max(canvas.centres[n] for n in present)) / 2 if present else canvas.right / 2
    _flows(canvas, panels, top)
    read = [n for n in present if not canvas.lanes[n].learned or stage.title.startswith("inserted")]
    if stage.title.startswith("inserted"):
        read = [n for n in present if canvas.lanes[n].learned]
    for number in read:
        x, (y, width) = canvas.centres[number], canvas.flows[number]
        a, b, goal = width / 2, 5.0, top + 40
        spot = middle + (number - (read[0] + read[-1]) / 2) * 10
        path = f"M{x - a:.1f} {y:.1f}C{x - a:.1f} {goal - 12} {spot - b:.1f} {top + 16} {spot - b:.1f} {goal}H{spot + b:.1f}"
        path += f"C{spot + b:.1f} {top + 16} {x + a:.1f} {goal - 12} {x + a:.1f} {y:.1f}Z"
        canvas.back.append(tag("path", d=path, class_=f"k{colour_of(canvas.lanes[number])} flow"))
    for k in range(10):
        canvas.front.append(tag("rect", x=middle - 60 + 12 * k, y=top + 42, width=11, height=15, rx=2, class_="vector"))
    canvas.front.append(text(middle, top + 76, end or "read here as well; the tokens go on", "middle", "said", 120))
    high = max(88.0, _words_of(canvas, stage, top, "read"))
    if not end:
        _finish(canvas, panels, top + high)
        return
    canvas.flows.clear()
    canvas.y = top + high


def _times(canvas: Canvas, top: float, floor: float, stretch: Stretch) -> None:
    """A bracket at the left over what is repeated."""
    canvas.front.append(tag("path", d=f"M9 {top:.1f}H4V{floor:.1f}H9", class_="tap"))
    canvas.front.append(text(_WORDS - 22, top + 14, f"× {stretch.times}", "end", "step times"))
    canvas.signs.add("times")
