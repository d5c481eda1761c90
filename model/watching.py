"""One face while it is watched: its crops in, and what is known of it at every instant out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.crops import MouthCrop, as_grey
from model.detector import EMBEDDING, MAX_OFFSET
from model.engine import Detector
from model.media import GRID_FPS
from model.motion import MotionMeter
from model.results import Box, Mouth, Places
from model.windows import (
    APART,
    FaceEvidence,
    WindowEvidence,
    aligned_sound,
    fit_among_mouths,
    frozen,
    mean_change,
    slide,
    speech_frames,
    window_starts,
)  # fmt: skip

PLACE_EVERY = 5
"""Frames from one instant at which it is kept where a face is to the next."""

PLACE_EVERY_S = PLACE_EVERY / GRID_FPS


@dataclass(frozen=True, slots=True)
class Heard:
    """The sound of a file, for every 40 ms from time zero.

    ``embeddings`` (T, 256), and their ``change`` (T,), see `model.engine.Detector.change`; ``speech`` (T,)
    probability; ``peaks`` (T,) loudest sample in [0, 1].
    """

    embeddings: np.ndarray
    change: np.ndarray
    speech: np.ndarray
    peaks: np.ndarray


@dataclass(frozen=True, slots=True)
class SeenFace:
    """One face track. ``box``: its median over time."""

    box: Box
    places: Places
    evidence: FaceEvidence


class WatchedFace:
    """Embeds and compares the crops of one face as they come; the crops themselves are not kept."""

    def __init__(self, track_id: int, detector: Detector, heard: Heard) -> None:
        self._track_id = track_id
        self._detector = detector
        self._heard = heard
        self._embedder = detector.mouth_embedder()
        self._motion = MotionMeter()
        self._rendering = detector.rendering_meter()
        self._boxes: list[np.ndarray] = []
        self._places: list[tuple[Box, Mouth] | None] = []
        self._first = 0
        self._visible: list[bool] = []
        self._held: list[bool] = []
        self._opening: list[float] = []
        self._quantizer: list[float] = []
        self._similarity: list[np.ndarray] = []
        self._change: list[float] = []
        self._last = np.zeros((0, EMBEDDING), np.float32)
        self._compared = self._windowed = 0
        self._curve = np.zeros(2 * MAX_OFFSET + 1)

    def keep(self, crops: Sequence[MouthCrop]) -> None:
        """Embed crops; a frame that the grid lacks is as the one before it, but not visible."""
        for crop in crops:
            if not self._visible:
                self._first = crop.index
            while self._first + len(self._visible) < crop.index:
                self._append(replace(crop, visible=False, held=True))
            self._append(crop)
            self._boxes.append(crop.box)
        self._compare(self._embedder.take())

    def new_windows(self, window_s: float, hop_s: float) -> list[WindowEvidence]:
        """Evidence of the windows that are complete since the last call, at the offset that is best so far."""
        known, end = self._first + self._windowed, self._first + self._compared
        starts = window_starts(known, end - 1, window_s, hop_s)
        if not starts:
            return []
        evidence = self._evidence(self._windowed, self._compared)
        self._windowed = starts[-1] + 1 - self._first
        return slide(evidence, window_s, hop_s, int(self._curve.argmax()) - MAX_OFFSET)

    def finish(self) -> SeenFace:
        """The face as evidence, once the last frame was seen."""
        self._rendering.finish()
        self._compare(self._embedder.finish())
        left, top, right, bottom = np.median(self._boxes, axis=0)
        return SeenFace(_box(left, top, right, bottom), self._all_places(), self._evidence(0, self._compared))

    def _compare(self, video: np.ndarray) -> None:
        if not len(video):
            return
        sound = aligned_sound(self._heard.embeddings, self._first + self._compared, len(video))
        self._similarity.extend(self._detector.offset_similarity(video, sound))
        known = np.concatenate([self._last, video])
        self._change.extend(self._detector.change(known)[len(self._last) :])
        self._last = known[-APART:]
        first, self._compared = self._compared, self._compared + len(video)
        self._curve += self._fit(first, self._compared)[self._usable(first, self._compared)].sum(0)

    def _usable(self, first: int, end: int) -> np.ndarray:
        shown = np.array(self._visible[first:end]) & ~frozen(self._held, end, first)
        return shown & self._speech(first, end)

    def _speech(self, first: int, end: int) -> np.ndarray:
        return speech_frames(self._heard.speech, self._first + end, self._first + first)

    def _fit(self, first: int, end: int) -> np.ndarray:
        start = max(0, first - 2 * MAX_OFFSET)
        around = slice(start, min(end + 2 * MAX_OFFSET, self._compared))
        fit = fit_among_mouths(np.array(self._similarity[around]), np.array(self._visible[around]))
        return fit[first - start : end - start]

    def _evidence(self, first: int, end: int) -> FaceEvidence:
        return FaceEvidence(
            track_id=self._track_id,
            first=self._first + first,
            similarity=np.array(self._similarity[first:end]),
            fit=self._fit(first, end),
            change=mean_change(np.array(self._change[first:end]), self._heard.change, self._first + first),
            usable=self._usable(first, end),
            speech=self._speech(first, end),
            visible=np.array(self._visible[first:end]),
            lip_opening=np.array(self._opening[first:end]),
            quantizer=np.array(self._quantizer[first:end]),
            motion=self._motion.measured(first, end),
            rendered=self._rendering.measured(wait=end == len(self._visible))[first:end],
        )

    def _all_places(self) -> Places:
        boxes, mouths = zip(*(place or (None, None) for place in self._places))
        return Places(self._track_id, round(self._first / GRID_FPS, 3), boxes, mouths)

    def _append(self, crop: MouthCrop) -> None:
        if len(self._visible) % PLACE_EVERY == 0:
            self._places.append((_box(*crop.box), _mouth(crop.place)) if crop.visible else None)
        grey = as_grey(crop.pixels)
        self._motion.push(grey, crop.sampled, crop.pixels, crop.held)
        for part in (self._embedder, self._rendering):
            part.push(grey)
        self._visible.append(crop.visible)
        self._held.append(crop.held)
        self._opening.append(crop.lip_opening)
        self._quantizer.append(crop.quantizer)


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    left, top, right, bottom = (round(float(side)) for side in (left, top, right, bottom))
    return left, top, right - left, bottom - top


def _mouth(place: np.ndarray) -> Mouth:
    x, y, along, down = place.tolist()
    side, turned = float(np.hypot(along, down)), float(np.degrees(np.arctan2(down, along)))
    return round(x, 1), round(y, 1), round(side, 1), round(turned, 1)
