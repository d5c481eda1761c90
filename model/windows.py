"""What is known of a face at every instant in; evidence for sliding windows out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening

from model.audio import SPEECH_THRESHOLD
from model.detector import EMBEDDING, MAX_OFFSET
from model.media import GRID_FPS
from model.motion import FACTS, typical_motion

MIN_USABLE_SHARE = 0.4
"""Share of a window's pictures that must show the mouth while somebody speaks."""

MIN_LIP_MOVEMENT = 0.004
"""Standard deviation of the lip opening (see `model.crops`) below which a mouth is still."""

FROZEN, BESIDE = 3, 2
"""Frames that a picture is held for, and more, that show no mouth that speaks; and frames that are as close to them,
for embeddings know their neighbours."""

WANDER = 4
"""Frames by which the best offset of a window may lie off its track's, as in recorded calls, whose pictures lag by a
changing amount; with another voice it lies anywhere."""

SPEECH_MARGIN = 3
"""Frames around speech that count as speech: lips move before and after the sound."""


@dataclass(frozen=True, slots=True)
class FaceEvidence:
    """Everything about one face track that windows are made of, for frames ``first`` to ``first`` + T - 1.

    ``similarity``: (T, 31), entry 15 + k with sound k frames later. ``usable``: (T,) bool, the mouth is
    visible, not `frozen`, while somebody speaks. ``speech``: (T,) bool. ``visible``: (T,) bool. ``lip_opening``: (T,).
    ``rendered``: (T,), how rendered the mouth looks, see `model.temporal`; nan where that is not known.
    ``motion``: (T, 5), see `model.motion`. ``quantizer``: (T,), see `model.crops.MouthCrop`.
    """

    track_id: int
    first: int
    similarity: np.ndarray
    usable: np.ndarray
    speech: np.ndarray
    visible: np.ndarray
    lip_opening: np.ndarray
    rendered: np.ndarray
    motion: np.ndarray
    quantizer: np.ndarray

    @property
    def offset_curve(self) -> np.ndarray:
        """(31,): mean similarity over the usable frames, by offset."""
        return self.similarity[self.usable].mean(0) if self.usable.any() else np.zeros(2 * MAX_OFFSET + 1)

    @property
    def offset(self) -> int:
        """Constant offset of the track in frames; > 0: the sound is late."""
        return int(self.offset_curve.argmax()) - MAX_OFFSET


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """One face in one window. Frames count from time zero.

    ``note``: why there is no evidence, else None and the rest is set: ``curve`` (31,) is the mean similarity
    by offset over the ``usable`` frames, (end - start,) bool; ``offset`` is the best one in frames,
    ``track_offset`` that of the whole track; ``rendered`` is the mean of how rendered the mouth looks, and
    ``motion`` (5,) how the mouth moves (`model.motion`), 0 where that is not known; ``quantizer`` is the
    mean of how coarsely its mouths are coded (`model.crops.MouthCrop`), 0 where the codec does not tell.
    """

    track_id: int
    start: int
    end: int
    speech: bool
    note: str | None
    curve: np.ndarray
    usable: np.ndarray
    offset: int
    track_offset: int
    rendered: float
    motion: np.ndarray
    quantizer: float

    @property
    def facts(self) -> np.ndarray:
        """(8,): what the verdict rule looks at, of one window: `sync_facts`, and `content_facts`."""
        return np.concatenate([self.sync_facts, self.content_facts])

    @property
    def content_facts(self) -> np.ndarray:
        """(5,): how rendered the mouth looks, and how it moves."""
        return np.array([self.rendered, *self.motion[FACTS]])

    @property
    def sync_facts(self) -> np.ndarray:
        """(3,): how well mouth and voice fit.

        How alike mouth and voice are at the best offset within `WANDER` of the track's; by how much that falls off one
        frame beside it, for a mouth that moves loosely with the voice has a blunt peak; and whether there is no better
        one beyond.
        """
        first = max(self.track_offset + MAX_OFFSET - WANDER, 0)
        at = first + int(self.curve[first : self.track_offset + MAX_OFFSET + WANDER + 1].argmax())
        inner = min(max(at, 1), 2 * MAX_OFFSET - 1)
        peak = self.curve[inner] - (self.curve[inner - 1] + self.curve[inner + 1]) / 2
        return np.array([self.curve[at], peak, abs(self.offset - self.track_offset) <= WANDER], np.float64)


def speech_frames(probability: np.ndarray, end: int, first: int = 0) -> np.ndarray:
    """(end - first,) bool from the speech probability of every 40 ms before ``end``, widened by `SPEECH_MARGIN`."""
    start = max(0, first - SPEECH_MARGIN)
    speech = np.zeros(end - start, bool)
    heard = probability[start:end] > SPEECH_THRESHOLD
    speech[: len(heard)] = heard
    return binary_dilation(speech, iterations=SPEECH_MARGIN)[first - start :]


def frozen(held: Sequence[bool] | np.ndarray, end: int, first: int = 0) -> np.ndarray:
    """(end - first,) bool: where a picture freezes, from whether each, of all, is held (`model.crops.MouthCrop`)."""
    margin = FROZEN + BESIDE
    start = max(0, first - margin)
    long = binary_opening(np.asarray(held[start : end + margin], bool), np.ones(FROZEN))
    return binary_dilation(long, iterations=BESIDE)[first - start : end - start]


def spans_of(flags: np.ndarray) -> list[tuple[int, int]]:
    """Where ``flags`` (T,) bool are set: the first of each run, and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def aligned_sound(audio: np.ndarray, first: int, frames: int) -> np.ndarray:
    """Audio embeddings (frames + 30, 256) from 15 frames before picture ``first`` on; zeros where there are none."""
    around = np.zeros((frames + 2 * MAX_OFFSET, EMBEDDING), np.float32)
    low, high = max(0, first - MAX_OFFSET), min(len(audio), first + frames + MAX_OFFSET)
    if high > low:
        around[low - first + MAX_OFFSET : high - first + MAX_OFFSET] = audio[low:high]
    return around


def window_starts(first: int, last: int, window_s: float, hop_s: float) -> list[int]:
    """First frames of the windows wholly within frames ``first`` to ``last``, on a grid from time zero."""
    length = window_frames(window_s)
    steps = range(int(np.floor(first / GRID_FPS / hop_s)), int(np.ceil((last + 1) / GRID_FPS / hop_s)) + 1)
    starts = dict.fromkeys(round(step * hop_s * GRID_FPS) for step in steps)
    return [start for start in starts if first <= start and start + length - 1 <= last]


def window_frames(window_s: float) -> int:
    """Length of a window in frames of the grid."""
    return max(1, round(window_s * GRID_FPS))


def slide(face: FaceEvidence, window_s: float, hop_s: float, offset: int | None = None) -> list[WindowEvidence]:
    """Evidence of every window of a face track, or of a part of one whose constant ``offset`` is known."""
    last = face.first + len(face.similarity) - 1
    length, offset = window_frames(window_s), face.offset if offset is None else offset
    return [_window(face, start, start + length, offset) for start in window_starts(face.first, last, window_s, hop_s)]


def _window(face: FaceEvidence, start: int, end: int, track_offset: int) -> WindowEvidence:
    span = slice(start - face.first, end - face.first)
    usable = face.usable[span]
    speech = bool(face.speech[span].mean() >= MIN_USABLE_SHARE)
    curve = face.similarity[span][usable].mean(0) if usable.any() else np.zeros(2 * MAX_OFFSET + 1)
    return WindowEvidence(
        face.track_id, start, end, speech, _note(face, span, speech), curve, usable,
        int(curve.argmax()) - MAX_OFFSET, track_offset, _mean_known(face.rendered[span]),
        typical_motion(face.motion[span][usable]), _mean_known(face.quantizer[span]),
    )  # fmt: skip


def _mean_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def over_time(at: np.ndarray, values: np.ndarray, frames: int) -> np.ndarray:
    """(frames,): ``values`` (N,) known at frames ``at`` (N,), joined by lines; nan if there are none."""
    return np.interp(np.arange(frames), at, values) if len(at) else np.full(frames, np.nan)


def _note(face: FaceEvidence, span: slice, speech: bool) -> str | None:
    if not speech:
        return "no_speech"
    visible = face.visible[span]
    if (visible & face.speech[span]).mean() < MIN_USABLE_SHARE:
        return "mouth_not_visible"
    frozen_mostly = face.usable[span].mean() < MIN_USABLE_SHARE
    return "mouth_still" if frozen_mostly or face.lip_opening[span][visible].std() < MIN_LIP_MOVEMENT else None
