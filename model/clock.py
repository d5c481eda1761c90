"""Where the time of an analysis goes."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from model.results import Stage, Timing

T = TypeVar("T")


class Clock:
    """Adds up the wall time of stages; of nested ones, only the inner."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self._spent_s: Counter[str] = Counter()
        self._stages = ["other"]
        self._begun: list[tuple[str, int]] = []

    def begin(self, name: str) -> None:
        """From now on the work is at this stage."""
        self._begun.append((name, time.time_ns()))

    def stages(self) -> tuple[Stage, ...]:
        """Those that were begun; the last one ends now."""
        ends = [*(start for _, start in self._begun[1:]), time.time_ns()]
        return tuple(Stage(name, start, end) for (name, start), end in zip(self._begun, ends))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time of the ``with`` body."""
        self._turn()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._turn()
            self._stages.pop()

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time that they take to come is the stage's."""
        while True:
            with self.measure(stage):
                item = next(items, None)
            if item is None:
                return
            yield item

    def timing(self) -> Timing:
        """So far, in milliseconds."""
        self._turn()
        total = round(1000 * (self._last - self._started), 1)
        return Timing(*(round(1000 * self._spent_s[s], 1) for s in ("media", "faces", "detector")), total=total)

    def _turn(self) -> None:
        now = time.perf_counter()
        self._spent_s[self._stages[-1]] += now - self._last
        self._last = now
