"""The main path: media -> faces -> crops -> detector -> windows -> verdict."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np

from model.audio import SPEECH_THRESHOLD, equal_chunks
from model.clock import Clock
from model.crops import follow_mouths
from model.engine import Detector
from model.keyframes import key_frames
from model.media import GRID_FPS, SAMPLES_PER_FRAME, Frame, Limits, MediaFile, StreamInfo
from model.options import HOP_S, MAX_FACES, WINDOW_S, Options
from model.progress import Follow, Reporter
from model.results import Analysis, Media, Playback, Reason, Sync, Track, Verdict, Window
from model.verdict import (
    MIN_EVIDENCE_S,
    VerdictRule,
    evidence_s,
    frames_to_ms,
    reasons_for,
    too_compressed,
    too_compressed_reasons,
)  # fmt: skip
from model.watching import PLACE_EVERY_S, Heard, SeenFace, WatchedFace
from model.windows import WindowEvidence, slide, spans_of, speech_frames


def analyze(
    path: str | os.PathLike[str],
    detector: Detector,
    *,
    window_s: float = WINDOW_S,
    hop_s: float = HOP_S,
    max_faces: int = MAX_FACES,
    playback: bool = False,
    limits: Limits = Limits(),
    follow: Follow | None = None,
) -> Analysis:
    """Judge one video file. Blocks; may be called from several threads with one detector.

    ``window_s`` in [0.2, 10], ``hop_s`` in [0.04, 10], ``max_faces`` in [1, 8], else ValueError. ``playback``: also
    gather what it takes to show the analysis beside the video. ``follow`` is told how far it is, and of windows as
    they are scored. Raises the errors of `model.errors` for a file that can't be analysed.
    """
    options = Options(window_s, hop_s, max_faces, playback)
    clock = Clock()
    media = MediaFile(path, limits)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    reporter = Reporter(follow, media.expected_s)

    clock.begin("listening")
    heard = listen(media, detector, clock, reporter)
    clock.begin("watching")
    faces = watch(media, detector, heard, options, clock, reporter)
    clock.begin("judging")
    reporter.reached("judging", media.end_s)
    with clock.measure("detector"):
        windows = {face.evidence.track_id: slide(face.evidence, window_s, hop_s) for face in faces}
        speaking = speaking_windows(windows, detector)
    every_window = [window for of_track in windows.values() for window in of_track]
    if evidence_s(list(speaking.values())) >= MIN_EVIDENCE_S:
        judgement = _judge(list(speaking.values()), detector.rule)
    else:
        judgement = _no_judgement(media.info, heard, faces, every_window)
    scored = tuple(window for of_track in windows.values() for window in _scored(of_track, detector))
    return Analysis(
        verdict=judgement.verdict,
        fake_probability=judgement.fake_probability,
        reasons=judgement.reasons,
        sync=judgement.sync,
        windows=scored,
        tracks=tuple(_track(face, windows[face.evidence.track_id], speaking, detector) for face in faces),
        media=Media(duration_s=round(media.end_s, 3), sha256=sha256, **asdict(media.info)),
        warnings=_warnings(media),
        playback=_playback(media, heard, faces, scored, clock) if playback else None,
        timing_ms=clock.timing(),
        stages=clock.stages(),
    )


def listen(media: MediaFile, detector: Detector, clock: Clock, reporter: Reporter) -> Heard:
    """Decode the sound once: where is speech, how loud is it, and what does it sound like."""
    embedder = detector.sound_embedder()
    peaks: list[float] = []

    def noticed_on_the_way() -> Iterator[np.ndarray]:
        for piece in equal_chunks(clock.each("media", media.audio()), SAMPLES_PER_FRAME):
            embedder.push(piece)
            peaks.append(min(1.0, float(np.abs(piece).max())))
            reporter.reached("listening", len(peaks) / GRID_FPS)
            yield piece

    with clock.measure("detector"):
        speech = detector.speech_per_frame(noticed_on_the_way())
        embeddings = embedder.finish()
        return Heard(embeddings, detector.change(embeddings), speech, np.array(peaks, np.float32))


def watch(
    media: MediaFile,
    detector: Detector,
    heard: Heard,
    options: Options,
    clock: Clock,
    reporter: Reporter,
) -> list[SeenFace]:
    """Decode the pictures once: follow the faces, crop and embed their mouths as they come.

    A face is finished as soon as its track ends, so that its last pictures are not kept till the end.
    """
    seen: list[SeenFace] = []
    watched: dict[int, WatchedFace] = {}
    with detector.face_finder(options.max_faces) as finder:
        frames = _noted(clock.each("media", media.frames()), reporter)
        for now in clock.each("faces", follow_mouths(frames, finder)):
            with clock.measure("detector"):
                for track_id, crops in now.ready.items():
                    if track_id not in watched:
                        watched[track_id] = WatchedFace(track_id, detector, heard)
                    watched[track_id].keep(crops)
                    if reporter.listened_to:
                        new = watched[track_id].new_windows(options.window_s, options.hop_s)
                        reporter.scored([_window(window, detector) for window in new])
                for track_id in now.ended:
                    seen.append(watched.pop(track_id).finish())
    return sorted(seen, key=lambda face: face.evidence.track_id)


def _noted(frames: Iterator[Frame], reporter: Reporter) -> Iterator[Frame]:
    for frame in frames:
        reporter.reached("watching", frame.index / GRID_FPS)
        yield frame


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
    if too_compressed(windows):
        return _Judgement("inconclusive", None, too_compressed_reasons(rule, windows), rule.sync(windows))
    probability = round(rule.fake_probability(windows), 4)
    verdict = rule.verdict_on(windows, probability)
    return _Judgement(verdict, probability, reasons_for(rule, probability, windows), rule.sync(windows))


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


def _scored(windows: Sequence[WindowEvidence], detector: Detector) -> list[Window]:
    """All windows of one face, also next to each other."""
    known = [window for window in windows if window.note is None]
    probability = {one.start: chance for one, chance in zip(known, detector.rule.window_probabilities(known))}
    return [_window(window, detector, probability.get(window.start)) for window in windows]


def _window(window: WindowEvidence, detector: Detector, probability: float | None = None) -> Window:
    """``probability``: of a fake; by the window alone if none is given."""
    known = window.note is None
    return Window(
        track_id=window.track_id,
        start_s=round(window.start / GRID_FPS, 3),
        end_s=round(window.end / GRID_FPS, 3),
        sync_score=round(_score(window, detector), 4) if known else None,
        content_score=round(detector.rule.content_score(window), 4) if known else None,
        offset_ms=frames_to_ms(window.offset) if known else None,
        fake_probability=_window_probability(window, detector.rule, probability) if known else None,
        speech=window.speech,
        note=window.note,
    )


def _window_probability(window: WindowEvidence, rule: VerdictRule, probability: float | None) -> float | None:
    if too_compressed([window]):
        return None
    return round(rule.window_probability(window) if probability is None else probability, 4)


def _track(
    face: SeenFace, windows: Sequence[WindowEvidence], speaking: Mapping[int, WindowEvidence], detector: Detector
) -> Track:
    evidence = face.evidence
    known = [window for window in windows if window.note is None]
    speech = [window for window in windows if window.speech]
    won = [window for window in speech if speaking.get(window.start) is window]
    judged = bool(known) and not too_compressed(known)
    return Track(
        track_id=evidence.track_id,
        start_s=round(evidence.first / GRID_FPS, 3),
        end_s=round((evidence.first + len(evidence.similarity)) / GRID_FPS, 3),
        box=face.box,
        speaking_share=round(len(won) / len(speech), 4) if speech else 0.0,
        fake_probability=round(detector.rule.fake_probability(known), 4) if judged else None,
        offset_ms=frames_to_ms(evidence.offset) if known else None,
        windows=len(windows),
    )


def _score(window: WindowEvidence, detector: Detector) -> float:
    return detector.rule.sync_score(window)


def _playback(
    media: MediaFile, heard: Heard, faces: Sequence[SeenFace], windows: Sequence[Window], clock: Clock
) -> Playback:
    places = tuple(face.places for face in faces)
    with clock.measure("media"):
        worst = key_frames(media, windows, places, PLACE_EVERY_S)
    return Playback(
        waveform=tuple(np.round(heard.peaks, 3).tolist()),
        speech=tuple((start / GRID_FPS, end / GRID_FPS) for start, end in spans_of(heard.speech > SPEECH_THRESHOLD)),
        step_s=PLACE_EVERY_S,
        places=places,
        key_frames=worst,
    )


def _warnings(media: MediaFile) -> tuple[str, ...]:
    if not media.damaged_packets:
        return ()
    return (f"The file is damaged: {media.damaged_packets} packets could not be decoded and were left out.",)
