"""What is known of a face at every instant in; evidence for sliding windows out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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

APART = 3
"""Frames between two instants, from the one to the other of which a mouth and its voice change alike."""

LEAST_CHANGE = 1.0
"""In units of similarity: what changes less is as good as still."""

SPEECH_MARGIN = 3
"""Frames around speech that count as speech: lips move before and after the sound."""


@dataclass(frozen=True, slots=True)
class FaceEvidence:
    """Everything about one face track that windows are made of, for frames ``first`` to ``first`` + T - 1.

    ``similarity``: (T, 31), entry 15 + k with sound k frames later; ``fit``: (T, 31), see `fit_among_mouths`.
    ``change``: (T,), of mouth and sound, mean of both, see `model.engine.Detector.change`. ``usable``: (T,) bool, the
    mouth is visible, not `frozen`, while somebody speaks. ``speech``: (T,) bool. ``visible``: (T,) bool.
    ``lip_opening``: (T,). ``rendered``: (T,), how rendered the mouth looks, see `model.temporal`; nan where that is not
    known. ``motion``: (T, 5), see `model.motion`. ``quantizer``: (T,), see `model.crops.MouthCrop`.
    """

    track_id: int
    first: int
    similarity: np.ndarray
    fit: np.ndarray
    change: np.ndarray
    usable: np.ndarray
    speech: np.ndarray
    visible: np.ndarray
    lip_opening: np.ndarray
    rendered: np.ndarray
    motion: np.ndarray
    quantizer: np.ndarray

    @property
    def offset_curve(self) -> np.ndarray:
        """(31,): mean fit over the usable frames, by offset."""
        return _mean_of(self.fit[self.usable])

    @property
    def offset(self) -> int:
        """Constant offset of the track in frames; > 0: the sound is late."""
        return int(self.offset_curve.argmax()) - MAX_OFFSET


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """One face in one window. Frames count from time zero.

    ``note``: why there is no evidence, else None and the rest is set: ``curve`` (31,) and ``similarity`` (31,) are the
    mean fit and similarity by offset over the ``usable`` frames, (end - start,) bool, and ``change`` is by how much
    mouth and sound change there (see `FaceEvidence`); ``offset`` is the best one in frames, ``track_offset`` that
    of the whole track; ``rendered`` is the mean of how rendered the mouth looks, and ``motion`` (5,) how the mouth
    moves (`model.motion`), 0 where that is not known; ``quantizer`` is the mean of how coarsely its mouths are coded
    (`model.crops.MouthCrop`), 0 where the codec does not tell.
    """

    track_id: int
    start: int
    end: int
    speech: bool
    note: str | None
    curve: np.ndarray
    similarity: np.ndarray
    change: float
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

        How alike mouth and voice are at the best offset within `WANDER` of the track's; how much of what both change
        within `APART` frames they change alike, 1 if they always did; and whether no offset beyond fits better.
        """
        first = max(self.track_offset + MAX_OFFSET - WANDER, 0)
        at = first + int(self.curve[first : self.track_offset + MAX_OFFSET + WANDER + 1].argmax())
        inner = min(max(at, APART), 2 * MAX_OFFSET - APART)
        shared = self.similarity[inner] - (self.similarity[inner - APART] + self.similarity[inner + APART]) / 2
        agrees = abs(self.offset - self.track_offset) <= WANDER
        return np.array([self.similarity[at], shared / max(self.change, LEAST_CHANGE), agrees], np.float64)


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


def mean_change(of_mouth: np.ndarray, of_sound: np.ndarray, first: int) -> np.ndarray:
    """(T,): mean of how much a mouth changes in frames ``first`` to ``first`` + T - 1, (T,), and the sound does there.

    ``of_sound``: from frame 0 on; where there is none, it does not change.
    """
    there = of_sound[first : first + len(of_mouth)]
    return (of_mouth + np.pad(there, (0, len(of_mouth) - len(there)))) / 2


def fit_among_mouths(similarity: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(T, 31): log of how many times better each mouth fits each sound than those within 15 frames of it usually do.

    ``similarity``: (T, 31), of successive mouths with the sounds 15 frames before to 15 after; ``visible``: (T,) bool,
    which of them are there to compare with. Similarities are logits of which mouth belongs to a sound (InfoNCE, van den
    Oord et al. 2018); without that, a sound that suits every mouth, as that of a pause does, would seem to fit. Where
    there is no sound, all similarities are 0; it is taken to suit mouths as sounds usually do.
    """
    frames, offsets = similarity.shape
    with_sound = np.full((frames + offsets - 1, offsets), -np.inf, np.float32)
    for offset in range(offsets):
        with_sound[offset : offset + frames, offset] = np.where(visible, similarity[:, offset], -np.inf)
    mouths = np.isfinite(with_sound)
    known = (mouths & (with_sound != 0)).any(1)
    usual = np.logaddexp.reduce(with_sound, axis=1)[known] - np.log(mouths[known].sum(1))
    of_sound = np.full(len(with_sound), usual.mean() if known.any() else 0.0, np.float32)
    of_sound[known] = usual
    return similarity - sliding_window_view(of_sound, offsets)


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
    curve, similarity = (_mean_of(of_face[span][usable]) for of_face in (face.fit, face.similarity))
    return WindowEvidence(
        face.track_id, start, end, speech, _note(face, span, speech), curve, similarity,
        _mean_known(face.change[span][usable]), usable,
        int(curve.argmax()) - MAX_OFFSET, track_offset, _mean_known(face.rendered[span]),
        typical_motion(face.motion[span][usable]), _mean_known(face.quantizer[span]),
    )  # fmt: skip


def _mean_of(curves: np.ndarray) -> np.ndarray:
    return curves.mean(0) if len(curves) else np.zeros(2 * MAX_OFFSET + 1)


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
