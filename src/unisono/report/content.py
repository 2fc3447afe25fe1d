"""What a report says, as plain values: gathered elsewhere, drawn by ``render``.

Letters: K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from unisono.report.searching import SearchReport


@dataclass(frozen=True)
class Cell:
    """One cell of the table as a person sees it.

    Attributes:
        kind: ``text``, ``missing``, ``image`` and ``audio`` (``uri``), ``sketch`` (``svg``).
        text: the value, or what a picture shows, in words.
        uri: a ``data:`` address.
        svg: a drawing made by ``unisono.report.svg``.
        small: a picture of few pixels, shown as squares.
    """

    kind: Literal["text", "missing", "image", "audio", "sketch"]
    text: str = ""
    uri: str = ""
    svg: Markup = field(default_factory=Markup)
    small: bool = False


@dataclass(frozen=True)
class ColumnRow:
    """One column of the table.

    Attributes:
        name: its name.
        role: ``input``, ``target``, ``key``, ``split``, ``group``, ``time`` or ``left out``.
        modality: the word for it, or the task of a target.
        why: why it was taken for this.
        remark: a doubt, a suspicion, or why it was left out.
        source: what it counts as when sources are left out.
        missing: share of missing cells, or None where unknown.
        unreadable: number of unreadable cells.
        samples: a few values.
    """

    name: str
    role: str
    modality: str
    why: str = ""
    remark: str = ""
    source: str = ""
    missing: float | None = None
    unreadable: int = 0
    samples: Sequence[Cell] = ()


@dataclass(frozen=True)
class BadRow:
    """An unreadable cell: its row's name, its column, the reason."""

    row: str
    column: str
    reason: str


@dataclass(frozen=True)
class Measure:
    """One metric.

    Attributes:
        key: as in ``metrics.json``.
        value: None where undefined.
        low: lower end of the 95 % interval, if there is one.
        high: upper end.
        constant: what the best constant answer reaches on the same rows.
    """

    key: str
    value: float | None
    low: float | None = None
    high: float | None = None
    constant: float | None = None


@dataclass(frozen=True)
class Part:
    """All metrics of a target on one part of the rows: ``val`` or ``test``."""

    name: str
    rows: int
    measures: Sequence[Measure]

    def get(self, key: str) -> Measure | None:
        """The measure of that key."""
        return next((m for m in self.measures if m.key == key), None)


@dataclass(frozen=True)
class Distribution:
    """How a target's values are distributed in the training rows: counts by class, or a histogram."""

    labels: Sequence[str] = ()
    counts: Sequence[float] = ()
    edges: Sequence[float] = ()
    others: int = 0


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: ``counts`` has a row for each truth and a column for each answer."""

    truths: Sequence[str]
    answers: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Residuals:
    """Truth and answer of rows, and the histogram of ``answer - truth``."""

    truth: Sequence[float]
    answer: Sequence[float]
    edges: Sequence[float]
    counts: Sequence[float]
    rows: int = 0


@dataclass(frozen=True)
class LabelRow:
    """One label of a list target: how often it is there, how often it was answered, and how well."""

    name: str
    there: int
    answered: int
    right: int


@dataclass(frozen=True)
class Bin:
    """A bin of a reliability diagram."""

    low: float
    high: float
    count: float
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Reliability before and after calibration on validation rows.

    Attributes:
        before: bins with the temperature at 1.
        after: bins as the model answers.
        ece_before: expected calibration error before.
        ece_after: and after.
        temperature: in words.
    """

    before: Sequence[Bin]
    after: Sequence[Bin]
    ece_before: float | None
    ece_after: float | None
    temperature: str = ""


@dataclass(frozen=True)
class SourceWorth:
    """What one source is worth; see ``unisono.tasks.missing.Worth``. ``without`` is the metric when only this source is left out."""

    source: str
    alone: float | None
    without: float | None
    drop: float | None
    shapley: float | None


@dataclass(frozen=True)
class SubsetRow:
    """The headline metric with only some sources present."""

    present: Sequence[str]
    value: float | None


@dataclass(frozen=True)
class Mistake:
    """A row that the model got wrong.

    Attributes:
        name: the row's key.
        truth: what is right.
        answer: what the model said.
        chances: the likeliest classes with their probabilities, the truth always among them.
        error: for a number, how far off, in words.
        cells: column name and cell.
        more: columns that are not shown.
    """

    name: str
    truth: str
    answer: str
    chances: Sequence[tuple[str, float]] = ()
    error: str = ""
    cells: Sequence[tuple[str, Cell]] = ()
    more: int = 0


@dataclass(frozen=True)
class TargetReport:
    """Everything about one target.

    Attributes:
        name: its column.
        task: ``category``, ``boolean``, ``number`` or ``labels``.
        reason: why it was taken for this.
        metric: the headline metric's key.
        higher: whether more of it is better.
        constant: the constant answer, in words.
        parts: metrics by part, the headline's part first.
        distribution: of its values in training.
        confusion: for classes.
        residuals: for numbers.
        labels: for lists of labels.
        calibration: for everything but numbers.
        coverage: for numbers: promised and reached share of rows within the interval, and its half-width.
        worth: of each source.
        subsets: every evaluated subset of sources, all together included, the best first.
        mistakes: the worst first.
        wrong: how many rows are wrong, of how many; None for numbers.
    """

    name: str
    task: str
    reason: str
    metric: str
    higher: bool
    constant: str = ""
    parts: Sequence[Part] = ()
    distribution: Distribution | None = None
    confusion: Confusion | None = None
    residuals: Residuals | None = None
    labels: Sequence[LabelRow] = ()
    calibration: Calibration | None = None
    coverage: Sequence[tuple[float, float, float]] = ()
    worth: Sequence[SourceWorth] = ()
    subsets: Sequence[SubsetRow] = ()
    mistakes: Sequence[Mistake] = ()
    wrong: tuple[int, int] | None = None

    @property
    def headline(self) -> Measure | None:
        """The one figure that matters."""
        return self.parts[0].get(self.metric) if self.parts else None


@dataclass(frozen=True)
class Curves:
    """How training went, one entry a validation.

    Attributes:
        steps: updates done.
        epochs: passes over the training rows.
        train: mean training loss since the last validation, in units of the best constant answer's.
        validation: the validation loss in the same units; empty without validation rows.
        metrics: target -> headline metric's key and its values.
        chosen: the step whose weights were kept.
    """

    steps: Sequence[float]
    epochs: Sequence[float]
    train: Sequence[float | None]
    validation: Sequence[float | None] = ()
    metrics: Sequence[tuple[str, str, Sequence[float | None]]] = ()
    chosen: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything that is on the page.

    Attributes:
        table: the table's name.
        rows: number of rows.
        split: rows of train, val and test.
        split_how: how the rows were divided, in words.
        headline: ``test``, ``val`` or None: the part whose figures count.
        targets: one or more.
        columns: every column of the table.
        bad: a few unreadable cells.
        bad_count: how many there are.
        notes: what else a person should know.
        curves: how training went.
        sources: names of the sources in table order.
        examples: whether rows may be shown.
        command: the command that makes this model.
        repeat: the command that makes it again to the same bits, if it differs.
        facts: name and value of everything else needed to reproduce it.
        recipe: the resolved recipe as YAML.
        recipe_name: its name.
        made: when, in words.
        in_memory: the table came from no file.
        search: what is found across sources, where they share a space.
    """

    table: str
    rows: int
    split: dict[str, int]
    split_how: str
    headline: str | None
    targets: Sequence[TargetReport]
    columns: Sequence[ColumnRow] = ()
    bad: Sequence[BadRow] = ()
    bad_count: int = 0
    notes: Sequence[str] = ()
    curves: Curves | None = None
    sources: Sequence[str] = ()
    examples: bool = True
    command: str = ""
    repeat: str = ""
    facts: Sequence[tuple[str, Any]] = ()
    recipe: str = ""
    recipe_name: str = ""
    made: str = ""
    in_memory: bool = False
    search: SearchReport | None = None
