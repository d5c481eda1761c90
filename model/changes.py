"""Window evidence in; by how much two seconds of a face differ from the rest of its own video, out.

Camera, light, person and microphone are the same there, so that what was changed for a while is told better than one
video among strangers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.media import GRID_FPS
from model.windows import WindowEvidence

STRETCH_S = 2.0
"""A part of a video that is fake for this long is looked for."""


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of 2 s of one face, its ``windows``.

    ``facts``: (8,), by how much their mean `WindowEvidence.facts` exceed those of the rest of the face's windows.
    """

    windows: Sequence[WindowEvidence]
    facts: np.ndarray


def changes(windows: Sequence[WindowEvidence]) -> list[Change]:
    """Those of every face's `stretches` beside which there are as many seconds of evidence, or more."""
    faces: dict[int, list[WindowEvidence]] = defaultdict(list)
    for window in sorted(windows, key=lambda window: window.start):
        faces[window.track_id].append(window)
    return [change for of_one in faces.values() for change in _changes_of(of_one)]


def stretches(ordered: Sequence[WindowEvidence]) -> list[tuple[int, int]]:
    """First window of every stretch of 2 s, and the one after its last; sparse stretches are left out.

    ``ordered``: windows of one length by their starts.
    """
    starts, length = np.array([w.start for w in ordered]), ordered[0].end - ordered[0].start
    reach = max(0, round(STRETCH_S * GRID_FPS) - length)
    ends = np.searchsorted(starts, starts + reach, side="right")
    counts = ends - np.arange(len(starts))
    whole = starts <= max(starts[0], starts[-1] - reach)
    dense = 2 * counts >= counts[whole].max()
    return [(first, int(ends[first])) for first in np.flatnonzero(whole & dense).tolist()]


def usable_frames(windows: Sequence[WindowEvidence]) -> np.ndarray:
    """(T,) bool: the frames from time zero on in which a mouth speaks, in any of the windows."""
    usable = np.zeros(max((window.end for window in windows), default=0), bool)
    for window in windows:
        usable[window.start : window.end] |= window.usable
    return usable


def sums(ordered: Sequence[WindowEvidence]) -> np.ndarray:
    """(W + 1, 8): of the facts of the first none, one, two, ... of W windows."""
    facts = np.array([window.facts for window in ordered])
    return np.concatenate([np.zeros((1, facts.shape[1])), np.cumsum(facts, axis=0)])


def _changes_of(ordered: Sequence[WindowEvidence]) -> list[Change]:
    starts, ends = (np.array([getattr(window, edge) for window in ordered]) for edge in ("start", "end"))
    total = sums(ordered)
    seen = np.concatenate([[0], np.cumsum(usable_frames(ordered))])
    found = []
    for first, last in stretches(ordered):
        start, end = int(starts[first]), int(ends[last - 1])
        before, after = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(starts, end))
        others = before + len(ordered) - after
        elsewhere_s = (seen[-1] - seen[end] + seen[start]) / GRID_FPS
        if others and elsewhere_s >= STRETCH_S:
            inside = (total[last] - total[first]) / (last - first)
            outside = (total[before] + total[-1] - total[after]) / others
            found.append(Change(ordered[first:last], inside - outside))
    return found
