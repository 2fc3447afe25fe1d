"""Counters and histograms in Prometheus' text format."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Histogram:
    """How often a value fell below each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin at zero.

        Args:
            bounds: upper bounds, ascending.
        """
        self.bounds, self.counts, self.total = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        """The lines of one histogram; ``labels`` as ``key="value"`` without braces."""
        found, below = [], 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            found.append(f'{name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}} {below}')
        braces = f"{{{labels}}}" if labels else ""
        return [*found, f"{name}_sum{braces} {self.total:.6f}", f"{name}_count{braces} {below}"]


class Metrics:
    """What the server has done since it started."""

    def __init__(self) -> None:
        """Begin at zero, now."""
        self.started = time.time()
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._seconds: dict[str, Histogram] = {}
        self._batch_rows, self._batch_seconds = Histogram(_ROWS), Histogram(_SECONDS)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request by its route (never by its path, which may be anything)."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, Histogram(_SECONDS)).add(seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch of the model."""
        with self._lock:
            self._batch_rows.add(rows)
            self._batch_seconds.add(seconds)

    def text(self, **gauges: float) -> str:
        """All of it, with gauges by name."""
        with self._lock:
            lines = ["# TYPE unisono_requests_total counter"]
            lines += [f'unisono_requests_total{{route="{r}",status="{s}"}} {n}' for (r, s), n in sorted(self._requests.items())]
            lines.append("# TYPE unisono_request_seconds histogram")
            for route, histogram in sorted(self._seconds.items()):
                lines += histogram.lines("unisono_request_seconds", f'route="{route}"')
            lines += ["# TYPE unisono_batch_rows histogram", *self._batch_rows.lines("unisono_batch_rows")]
            lines += ["# TYPE unisono_batch_seconds histogram", *self._batch_seconds.lines("unisono_batch_seconds")]
        for name, value in {"uptime_seconds": time.time() - self.started, **gauges}.items():
            lines += [f"# TYPE unisono_{name} gauge", f"unisono_{name} {value:g}"]
        return "\n".join(lines) + "\n"
