"""The main path: media -> faces -> crops -> detector -> windows -> verdict."""

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TypeVar

import numpy as np

from model.audio import equal_chunks
from model.crops import MouthCrop, follow_mouths
from model.engine import BATCH_FACES, Detector
from model.media import GRID_FPS, SAMPLES_PER_FRAME, Limits, MediaFile, StreamInfo
from model.motion import MotionMeter
from model.results import Analysis, Media, Reason, Sync, Timing, Track, Verdict, Window
from model.verdict import (
    MIN_EVIDENCE_S,
    VerdictRule,
    evidence_s,
    frames_to_ms,
    reasons_for,
    too_smooth,
    too_smooth_reasons,
)  # fmt: skip
from model.windows import FaceEvidence, WindowEvidence, aligned_sound, over_time, slide, speech_frames

T = TypeVar("T")

WINDOW_S, HOP_S, MAX_FACES = 1.0, 0.2, 4
WINDOW_RANGE_S, HOP_RANGE_S, FACES_RANGE = (0.2, 10.0), (0.04, 10.0), (1, 8)


def analyze(
    path: str | os.PathLike[str],
    detector: Detector,
    *,
    window_s: float = WINDOW_S,
    hop_s: float = HOP_S,
    max_faces: int = MAX_FACES,
    limits: Limits = Limits(),
) -> Analysis:
    """Judge one video file. Blocks; may be called from several threads with one detector.

    ``window_s`` in [0.2, 10], ``hop_s`` in [0.04, 10], ``max_faces`` in [1, 8], else ValueError. Raises the
    errors of `model.errors` for a file that can't be analysed.
    """
    _check_range("window_s", window_s, WINDOW_RANGE_S)
    _check_range("hop_s", hop_s, HOP_RANGE_S)
    _check_range("max_faces", max_faces, FACES_RANGE)
    clock = _Clock()
    media = MediaFile(path, limits)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    heard = listen(media, detector, clock)
    faces = watch(media, detector, max_faces, heard, clock)
    with clock.measure("detector"):
        windows = {face.evidence.track_id: slide(face.evidence, window_s, hop_s) for face in faces}
        speaking = speaking_windows(windows, detector)
    every_window = [window for of_track in windows.values() for window in of_track]
    if evidence_s(list(speaking.values())) >= MIN_EVIDENCE_S:
        judgement = _judge(list(speaking.values()), detector.rule)
    else:
        judgement = _no_judgement(media.info, heard, faces, every_window)
    return Analysis(
        verdict=judgement.verdict,
        fake_probability=judgement.fake_probability,
        reasons=judgement.reasons,
        sync=judgement.sync,
        windows=tuple(_window(window, detector) for window in every_window),
        tracks=tuple(_track(face, windows[face.evidence.track_id], speaking, detector) for face in faces),
        media=Media(duration_s=round(media.end_s, 3), sha256=sha256, **asdict(media.info)),
        timing_ms=clock.timing(),
        warnings=_warnings(media),
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """The sound of a file: embeddings (T, 256), speech probability (T,), for every 40 ms from time zero."""

    embeddings: np.ndarray
    speech: np.ndarray


@dataclass(slots=True)
class SeenFace:
    """One face track. ``box``: left, top, width, height in pixels of the upright source picture."""

    box: tuple[int, int, int, int]
    evidence: FaceEvidence


def listen(media: MediaFile, detector: Detector, clock: "_Clock") -> Heard:
    """Decode the sound once: where is speech, and what does it sound like."""
    embedder = detector.sound_embedder()

    def embedded_on_the_way() -> Iterator[np.ndarray]:
        for piece in equal_chunks(clock.each("media", media.audio()), SAMPLES_PER_FRAME):
            embedder.push(piece)
            yield piece

    with clock.measure("detector"):
        speech = detector.speech_per_frame(embedded_on_the_way())
        return Heard(embedder.finish(), speech)


def watch(media: MediaFile, detector: Detector, max_faces: int, heard: Heard, clock: "_Clock") -> list[SeenFace]:
    """Decode the pictures once: follow the faces, crop and embed their mouths as they come.

    A face is finished as soon as its track ends, so that its last pictures are not kept till the end.
    """
    seen: list[SeenFace] = []
    followed: dict[int, _Followed] = defaultdict(lambda: _Followed(detector))
    with detector.face_finder(max_faces) as finder:
        for now in clock.each("faces", follow_mouths(clock.each("media", media.frames()), finder)):
            with clock.measure("detector"):
                for track_id, crops in now.ready.items():
                    followed[track_id].keep(crops)
                for track_id in now.ended:
                    seen.append(followed.pop(track_id).finish(track_id, heard))
    return sorted(seen, key=lambda face: face.evidence.track_id)


class _Followed:
    """One face while it is watched."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._embedder = detector.mouth_embedder()
        self._motion = MotionMeter()
        self._boxes: list[np.ndarray] = []
        self._first = 0
        self._visible: list[bool] = []
        self._opening: list[float] = []
        self._looked_at: list[int] = []
        self._rendered: list[Future[np.ndarray]] = []
        self._faces: list[np.ndarray] = []

    def keep(self, crops: Sequence[MouthCrop]) -> None:
        """Embed crops; a frame that the grid lacks is as the one before it, but not visible."""
        for crop in crops:
            if not self._visible:
                self._first = crop.index
            while self._first + len(self._visible) < crop.index:
                self._append(crop, visible=False)
            self._append(crop, crop.visible)
            self._boxes.append(crop.box)
            if crop.face is not None:
                self._looked_at.append(crop.index - self._first)
                self._faces.append(crop.face.pixels)
                if len(self._faces) == BATCH_FACES:
                    self._look()

    def finish(self, track_id: int, heard: Heard) -> SeenFace:
        """The face as evidence, once the last frame was seen."""
        if self._faces:
            self._look()
        rendered = np.concatenate([np.zeros(0, np.float32), *(one.result() for one in self._rendered)])
        video = self._embedder.finish()
        speech = speech_frames(heard.speech, self._first + len(video))[self._first :]
        visible = np.array(self._visible)
        evidence = FaceEvidence(
            track_id=track_id,
            first=self._first,
            similarity=self._detector.offset_similarity(
                video, aligned_sound(heard.embeddings, self._first, len(video))
            ),
            usable=visible & speech,
            speech=speech,
            visible=visible,
            lip_opening=np.array(self._opening),
            motion=self._motion.finish(),
            rendered=over_time(np.array(self._looked_at), rendered, len(video)),
        )
        left, top, right, bottom = np.median(self._boxes, axis=0).round().astype(int).tolist()
        return SeenFace((left, top, right - left, bottom - top), evidence)

    def _look(self) -> None:
        self._rendered.append(self._detector.look_at(np.stack(self._faces)))
        self._faces = []

    def _append(self, crop: MouthCrop, visible: bool) -> None:
        self._embedder.push(crop.pixels)
        self._motion.push(crop.pixels)
        self._visible.append(visible)
        self._opening.append(crop.lip_opening)


def speaking_windows(windows: Mapping[int, Sequence[WindowEvidence]], detector: Detector) -> dict[int, WindowEvidence]:
    """By first frame of a window: that of the face which best explains the voice, if any mouth moves to it."""
    best: dict[int, WindowEvidence] = {}
    for window in chain.from_iterable(windows.values()):
        rival = best.get(window.start)
        if window.note is None and (rival is None or _score(window, detector) > _score(rival, detector)):
            best[window.start] = window
    return best


@dataclass(frozen=True, slots=True)
class _Judgement:
    verdict: Verdict
    fake_probability: float | None
    reasons: tuple[Reason, ...]
    sync: Sync


def _judge(windows: Sequence[WindowEvidence], rule: VerdictRule) -> _Judgement:
    if too_smooth(windows):
        return _Judgement("inconclusive", None, too_smooth_reasons(rule, windows), rule.sync(windows))
    probability = round(rule.fake_probability(windows), 4)
    return _Judgement(
        rule.verdict(probability), probability, reasons_for(rule, probability, windows), rule.sync(windows)
    )


def _no_judgement(
    info: StreamInfo, heard: Heard, faces: Sequence[SeenFace], windows: Iterable[WindowEvidence]
) -> _Judgement:
    """Why there is too little evidence; one reason for each thing that is missing."""
    notes = Counter(window.note for window in windows)
    speech = speech_frames(heard.speech, len(heard.speech))
    reasons = []
    if info.audio_codec is None or not len(heard.speech):
        reasons.append(Reason("no_audio", "The file has no sound, so there is nothing to compare the mouth with."))
    elif not speech.any():
        reasons.append(Reason("no_speech", "Nobody is heard speaking."))
    if not faces:
        reasons.append(Reason("no_face", "No face was found in the picture."))
    elif not any(face.evidence.visible.any() for face in faces):
        reasons.append(Reason("face_not_frontal", "The faces are turned away too far, or too small, to see the mouth."))
    if not reasons and notes["mouth_still"]:
        reasons.append(Reason("mouth_still", "Somebody speaks, but the visible mouths do not move."))
    if not reasons:
        found_s = sum(face.evidence.usable.sum() for face in faces) / GRID_FPS
        reasons.append(
            Reason(
                "too_little_speech",
                f"Only {found_s:.1f} s of speech with the mouth in view; at least {MIN_EVIDENCE_S:g} s are needed.",
            )
        )
    return _Judgement("inconclusive", None, tuple(reasons), Sync(None, None))


def _window(window: WindowEvidence, detector: Detector) -> Window:
    known = window.note is None
    return Window(
        track_id=window.track_id,
        start_s=round(window.start / GRID_FPS, 3),
        end_s=round(window.end / GRID_FPS, 3),
        sync_score=round(_score(window, detector), 4) if known else None,
        content_score=round(detector.rule.content_score(window), 4) if known else None,
        offset_ms=frames_to_ms(window.offset) if known else None,
        fake_probability=_window_probability(window, detector.rule) if known else None,
        speech=window.speech,
        note=window.note,
    )


def _window_probability(window: WindowEvidence, rule: VerdictRule) -> float | None:
    return None if too_smooth([window]) else round(rule.window_probability(window), 4)


def _track(
    face: SeenFace, windows: Sequence[WindowEvidence], speaking: Mapping[int, WindowEvidence], detector: Detector
) -> Track:
    evidence = face.evidence
    known = [window for window in windows if window.note is None]
    speech = [window for window in windows if window.speech]
    won = [window for window in speech if speaking.get(window.start) is window]
    return Track(
        track_id=evidence.track_id,
        start_s=round(evidence.first / GRID_FPS, 3),
        end_s=round((evidence.first + len(evidence.similarity)) / GRID_FPS, 3),
        box=face.box,
        speaking_share=round(len(won) / len(speech), 4) if speech else 0.0,
        fake_probability=round(detector.rule.fake_probability(known), 4) if known and not too_smooth(known) else None,
        offset_ms=frames_to_ms(evidence.offset) if known else None,
        windows=len(windows),
    )


def _score(window: WindowEvidence, detector: Detector) -> float:
    return detector.rule.sync_score(window)


def _warnings(media: MediaFile) -> tuple[str, ...]:
    if not media.damaged_packets:
        return ()
    return (f"The file is damaged: {media.damaged_packets} packets could not be decoded and were left out.",)


def _check_range(name: str, value: float, allowed: tuple[float, float]) -> None:
    if not allowed[0] <= value <= allowed[1]:
        raise ValueError(f"{name} must be from {allowed[0]:g} to {allowed[1]:g}, not {value:g}")


class _Clock:
    """Adds up the wall time of stages; of nested ones, only the inner."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self._spent_s: Counter[str] = Counter()
        self._stages = ["other"]

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
