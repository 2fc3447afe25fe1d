"""Dynamic batching: jobs that arrive close together run as one batch of the model, in one thread.

A job that comes alone starts at once. While other requests are known to be on their way, the first job of a batch waits for them, at
most ``window`` seconds and until ``rows`` rows are there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from unisono.core.errors import ResourceError

#: ``run(kind, contents)`` answers each content, or raises for all of them.
Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Job:
    """One request's share of a batch.

    Attributes:
        kind: only jobs of one kind run together.
        content: what is to be run.
        rows: how many rows it has.
        answer: where the result goes.
    """

    kind: Hashable
    content: Any
    rows: int
    answer: Future[Any] = field(default_factory=Future)


class Batcher:
    """Gathers jobs and runs them in one thread, oldest first.

    Attributes:
        rows: the most rows in a batch of several jobs.
        seconds: how long the last batch ran.
    """

    def __init__(
        self,
        run: Run,
        *,
        rows: int = 32,
        window: float = 0.005,
        queue: int = 256,
        expected: Callable[[], int] | None = None,
        ran: Callable[[int, float], None] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            run: runs a batch.
            rows: the most rows in a batch of several jobs; one larger job is a batch by itself.
            window: seconds that the first job waits for others at most.
            queue: the most jobs that may wait.
            expected: the number of requests that are on their way or waiting; without it every batch waits for the whole window.
            ran: is told the rows and seconds of every batch.
        """
        self._run, self.rows, self._window, self._limit = run, rows, window, queue
        self._expected, self._ran = expected, ran
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="unisono-batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, kind: Hashable, content: Any, rows: int = 1) -> Future[Any]:
        """Add a job.

        Args:
            kind: only jobs of one kind run together.
            content: what ``run`` gets.
            rows: how many rows it has.

        Raises:
            ResourceError: too many jobs wait, or the batcher has stopped.
        """
        job = Job(kind, content, rows)
        with self._changed:
            if self._stopping:
                raise ResourceError("the server is stopping")
            if len(self._waiting) >= self._limit:
                raise ResourceError(f"{self._limit} requests are waiting already; try again in a moment")
            self._waiting.append(job)
            self._changed.notify_all()
        return job.answer

    def stop(self, timeout: float | None = None) -> None:
        """Run what waits, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _work(self) -> None:
        while jobs := self._gather():
            jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if jobs:
                begin = time.perf_counter()
                self._answer(jobs)
                self.seconds = time.perf_counter() - begin
                if self._ran is not None:
                    self._ran(sum(job.rows for job in jobs), self.seconds)

    def _gather(self) -> list[Job]:
        """The next batch; empty when there is nothing left to do."""
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if not self._waiting:
                return []
            deadline = time.monotonic() + self._window
            while not self._complete() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._next()

    def _complete(self) -> bool:
        """Whether nothing would be gained by waiting longer."""
        if self._stopping or sum(job.rows for job in self._waiting) >= self.rows:
            return True
        return self._expected is not None and len(self._waiting) >= self._expected()

    def _next(self) -> list[Job]:
        """Take jobs of the oldest one's kind, up to the limit of rows."""
        kind, rows = self._waiting[0].kind, 0
        taken: list[Job] = []
        rest: list[Job] = []
        for job in self._waiting:
            if job.kind == kind and (not taken or rows + job.rows <= self.rows):
                taken.append(job)
                rows += job.rows
            else:
                rest.append(job)
        self._waiting = deque(rest)
        return taken

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Run jobs together; where that fails, each by itself, so that one bad request spoils no other."""
        try:
            results = self._run(jobs[0].kind, [job.content for job in jobs])
        except BaseException as error:  # handed on to whoever waits for the answer
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
                return
            for job in jobs:
                self._answer([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.answer.set_result(result)
