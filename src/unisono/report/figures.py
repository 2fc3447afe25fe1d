"""Numbers and names as a person reads them."""

from __future__ import annotations

import math
import re

#: Metric key -> (name, one line of explanation, more is better, shown as a percentage).
METRIC_WORDS: dict[str, tuple[str, str, bool, bool]] = {
    "accuracy": ("accuracy", "share of rows answered exactly right", True, True),
    "balanced_accuracy": ("balanced accuracy", "mean over classes of the share answered right", True, True),
    "macro_f1": ("macro F1", "mean over classes of the harmonic mean of precision and recall", True, False),
    "auroc": ("AUROC", "chance that a row of a class is ranked above one of another; 0.5 is guessing", True, False),
    "log_loss": ("log loss", "mean negative logarithm of the probability of the truth; 0 is perfect", False, False),
    "ece": ("calibration error", "mean distance between confidence and accuracy (ECE)", False, False),
    "mae": ("mean absolute error", "in the column's own units", False, False),
    "rmse": ("root mean square error", "in the column's own units", False, False),
    "r2": ("R²", "share of the variance explained; 1 is perfect, 0 no better than the mean", True, False),
    "map": ("mean average precision", "mean over labels of the area under precision and recall", True, False),
}
_UNITS = {"mae", "rmse"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def metric_name(key: str) -> str:
    """The name of a metric."""
    return METRIC_WORDS[key][0] if key in METRIC_WORDS else key.replace("_", " ")


def metric_help(key: str) -> str:
    """What a metric means."""
    return METRIC_WORDS[key][1] if key in METRIC_WORDS else ""


def is_better_high(key: str) -> bool:
    """Whether more of it is better."""
    return METRIC_WORDS[key][2] if key in METRIC_WORDS else True


def is_percent(key: str) -> bool:
    """Whether it is shown as a percentage."""
    return key in METRIC_WORDS and METRIC_WORDS[key][3]


def figure(value: float | None, key: str = "") -> str:
    """A metric's value: ``97.4 %``, ``0.487``, ``43.2``; a dash where undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    if is_percent(key):
        return f"{100 * value:.1f} %"
    return number(value) if key in _UNITS else f"{value + 0.0:.3f}".replace("-0.000", "0.000").replace("-", "−")


def difference(value: float | None, key: str = "") -> str:
    """A difference of two values of a metric, with its sign; percentages in points."""
    if value is None or not math.isfinite(value):
        return "–"
    if key in _UNITS:
        return ("+" if value > 0 else "") + number(value)
    shown = f"{100 * value:+.1f}" if is_percent(key) else f"{value:+.3f}"
    return shown.replace("-", "−")


def interval(low: float | None, high: float | None, key: str = "") -> str:
    """``95.1 – 99.2 %``; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if is_percent(key):
        return f"{100 * low:.1f} – {100 * high:.1f} %"
    return f"{figure(low, key)} – {figure(high, key)}"


def possible_errors(rows: int) -> float:
    """The error rate that no error among so many rows leaves possible: the end of its exact 95 % interval (Clopper and Pearson 1934)."""
    return float(1.0 - 0.025 ** (1.0 / max(rows, 1)))


def number(value: float) -> str:
    """Any number in about four digits, thousands marked: ``1,234``, ``12.35``, ``0.001235``, ``1.2e+12``."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if value == int(value) and size < 1e9:
        text = f"{int(value):,}"
    elif 1000 <= size < 1e9:
        text = f"{value:,.0f}"
    elif 1e-3 <= size < 1000:
        text = f"{value:.4g}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−") if "e" not in text else text


def share(part: float, whole: float = 1.0) -> str:
    """A share: ``0 %``, ``0.4 %``, ``12 %``."""
    percent = 100 * part / whole if whole else 0.0
    if percent == 0 or percent == 100:
        return f"{percent:.0f} %"
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %" if percent < 10 or percent > 99 else f"{percent:.0f} %"


def clean(text: object, limit: int = 300) -> str:
    """Text without control characters, cut to a length."""
    found = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))
    return found if len(found) <= limit else found[: limit - 1].rstrip() + "…"


def plural(count: int, word: str, many: str = "") -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"
