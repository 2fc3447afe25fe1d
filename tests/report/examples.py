from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from unisono.report import content as c

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img", "link", "input", "hr", "area", "base", "col", "embed", "source", "track", "wbr"}


class Page(HTMLParser):
    """Collects tags and attributes; fails on tags that do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def category_target(name: str = "kind", classes: int = 3, word: str = "class") -> c.TargetReport:
    names = [f"{word} {k}" for k in range(classes)]
    counts = [[9 if i == j else (i + j) % 2 for j in range(classes)] for i in range(classes)]
    bins = [c.Bin(k / 10, (k + 1) / 10, float(k), (k + 0.5) / 10 if k else None, k / 10 if k else None) for k in range(10)]
    measures = [c.Measure("accuracy", 0.974, 0.951, 0.992, 0.621), c.Measure("auroc", None), c.Measure("ece", 0.02)]
    worth = [c.SourceWorth("photo", 0.8, 0.7, 0.2, 0.21), c.SourceWorth("table", 0.7, 0.8, 0.1, 0.143)]
    return c.TargetReport(
        name,
        "category",
        "text",
        "accuracy",
        True,
        constant="Always answering “class 0”",
        parts=[c.Part("test", 120, measures), c.Part("val", 60, measures[:1])],
        distribution=c.Distribution(names, [5.0] * classes),
        confusion=c.Confusion(names, names, counts),
        calibration=c.Calibration(bins, bins, 0.05, 0.02, "Temperature 1.20."),
        worth=worth,
        subsets=[c.SubsetRow(["photo", "table"], 0.97), c.SubsetRow(["photo"], 0.8), c.SubsetRow(["table"], None)],
        mistakes=[
            c.Mistake("id 7", names[0], names[1], [(names[1], 0.9), (names[0], 0.1)], cells=[("note", c.Cell("text", "hello"))], more=3)
        ],
        wrong=(3, 120),
    )


def number_target(name: str = "price") -> c.TargetReport:
    measures = [c.Measure("r2", 0.487, 0.4, 0.55, -0.01), c.Measure("mae", 43.21, 40.0, 46.0, 60.0)]
    residuals = c.Residuals([1.0, 2.0, 3.0], [1.1, 2.2, 2.5], [-0.5, 0.0, 0.5], [1.0, 2.0], 3)
    return c.TargetReport(
        name,
        "number",
        "numbers",
        "r2",
        True,
        parts=[c.Part("test", 3, measures)],
        residuals=residuals,
        distribution=c.Distribution(counts=[1.0, 2.0], edges=[0.0, 1.0, 2.0]),
        coverage=[(0.9, 0.95, 12.0)],
        mistakes=[c.Mistake("row 1", "3", "2.5", error="off by 0.5", cells=[("x", c.Cell("missing"))])],
    )


def report(*targets: c.TargetReport, **changes: object) -> c.Report:
    columns = [
        c.ColumnRow("photo", "input", "image", "PNG files", source="photo", missing=0.1, unreadable=1),
        c.ColumnRow("price", "left out", "number", "numbers", remark="a leaked target", missing=0.0),
        c.ColumnRow("kind", "target", "category", "text", missing=0.0, samples=[c.Cell("text", "cat")]),
    ]
    made = c.Report(
        "pets.csv",
        1200,
        {"train": 1000, "val": 80, "test": 120},
        "as the column 'part' says",
        "test",
        list(targets) or [category_target()],
        columns=columns,
        bad=[c.BadRow("id 3", "photo", "truncated")],
        bad_count=1,
        notes=["a note"],
        curves=c.Curves(
            [10.0, 20.0, 30.0], [1.0, 2.0, 3.0], [1.0, 0.5, None], [0.9, 0.6, 0.7], [("kind", "accuracy", [0.5, 0.9, 0.8])], 20
        ),
        sources=("photo", "table"),
        command="unisono fit pets.csv",
        repeat="unisono fit pets.csv --set train.steps=3",
        facts=[("seed", "0")],
        recipe="width: 64\n",
        recipe_name="early-fusion",
        made="1 January 2030",
    )
    return replace(made, **changes)  # type: ignore[arg-type]
