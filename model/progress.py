"""How far an analysis is, for whoever waits for it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from model.results import Window

Stage = Literal["listening", "watching", "judging"]

SHARES: dict[Stage, tuple[float, float]] = {"listening": (0.0, 0.15), "watching": (0.15, 1.0), "judging": (1.0, 1.0)}
"""Of the work, where each stage begins and ends."""

EVERY_S = 0.25
"""Seconds from one message to the next, at least."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``done_s`` of the ``duration_s`` seconds of video (None: unknown) went through ``stage``.

    ``share``: of the whole work, in [0, 1]; it never falls.
    """

    stage: Stage
    done_s: float
    duration_s: float | None
    share: float


Follow = Callable[[Progress | tuple[Window, ...]], None]
"""Called while an analysis runs, with its progress, and with windows as they are scored.

A window is scored by the offset that its face has had so far, so that the final one may differ a little.
"""


class Reporter:
    """Tells ``follow``, if there is one, in an orderly way."""

    def __init__(self, follow: Follow | None, duration_s: float | None) -> None:
        self._follow = follow
        self._duration_s = duration_s
        self._told_at = float("-inf")
        self._stage: Stage | None = None
        self.listened_to = follow is not None

    def reached(self, stage: Stage, done_s: float) -> None:
        """The analysis is at ``done_s`` of the video."""
        if self._follow is None or (stage == self._stage and time.monotonic() - self._told_at < EVERY_S):
            return
        self._told_at, self._stage = time.monotonic(), stage
        begin, end = SHARES[stage]
        part = min(1.0, done_s / self._duration_s) if self._duration_s else 0.0
        self._follow(Progress(stage, round(done_s, 2), self._duration_s, round(begin + (end - begin) * part, 4)))

    def scored(self, windows: Sequence[Window]) -> None:
        """These are new."""
        if self._follow is not None and windows:
            self._follow(tuple(windows))
