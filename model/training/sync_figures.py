"""How well mouth and voice are compared: sync accuracy, constant offsets, shifts, and other people's voices."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import nn

from model.detector import MAX_OFFSET
from model.engine import Detector
from model.media import GRID_FPS, SAMPLES_PER_FRAME
from model.training.accuracy import WINDOW_FRAMES, mouths_of, sound_of, window_offsets, window_starts
from model.training.clips import Clip
from model.training.prepare import PreparedClip
from model.training.report import Report
from model.training.scores import ENOUGH_S
from model.training.statistics import (
    Figure,
    auc_over_identities,
    balanced_accuracy_over_identities,
    mean_over_identities,
    share_over_identities,
    stratified_auc_over_identities,
)
from model.training.trials import (
    EmbeddedClip,
    face_evidence,
    few_of_each,
    segments,
    swapped_segments,
    windows_with_evidence,
)
from model.verdict import evidence_s, frames_to_ms
from model.windows import WindowEvidence, slide

WINDOWS_PER_CLIP, STRICT_WINDOWS_PER_CLIP, TAMPERED_WINDOWS_PER_CLIP = 60, 2, 4
SLOW_CLIPS_PER_IDENTITY = 8
"""Clips of one person in those figures for which every window goes through a detector by itself."""

ACCURACY_GOALS = dict(zip(WINDOW_FRAMES, (0.85, 0.96, 0.99)))
SHIFT_FRAMES = 5
SHIFTS = (-5, -3, 3, 5)
SHIFTED_BY = 2
"""Frames beyond which an offset counts as a shift."""

Places = Mapping[str, Sequence[PreparedClip]]


@dataclass(frozen=True, slots=True)
class OffsetTrial:
    """The offset found in a segment of 3 s, in frames, as it is and with its sound ``late`` by each of `SHIFTS`.

    ``own``: what the whole clip says; ``usual``: the median of the person's other clips, None without any.
    """

    clip: Clip
    found: int
    late: dict[int, int]
    own: int
    usual: float | None


def sync_accuracy(report: Report, detectors: Sequence[nn.Module], places: Places, goals: Sequence[str]) -> None:
    """Tables by place, in shared and strict context; the first detector also says each clip's own offset.

    ``goals``: places whose figures have targets, for the first detector as it is served and the last one.
    """
    clips = list({clip.clip.path: clip for clip in chain.from_iterable(places.values())}.values())
    few = {clip.path for clip in few_of_each((clip.clip for clip in clips), SLOW_CLIPS_PER_IDENTITY)}
    shared = {c.clip.path: window_offsets(detectors[0], c, WINDOWS_PER_CLIP) for c in clips}
    own = {path: round(float(np.median(offsets[25]))) for path, offsets in shared.items() if len(offsets[25])}
    found = {f"{type(detectors[0]).__name__}, shared context": shared}
    for detector in detectors:
        found[f"{type(detector).__name__}, strict context"] = {
            c.clip.path: window_offsets(detector, c, STRICT_WINDOWS_PER_CLIP, "strict")
            for c in clips
            if c.clip.path in few
        }
    for place in places:
        report.note(
            f"Sync accuracy within +-1 frame: {place}",
            f"The clip's own offset is what {type(detectors[0]).__name__} finds in shared context. Strict context: "
            f"{STRICT_WINDOWS_PER_CLIP} windows a clip, at most {SLOW_CLIPS_PER_IDENTITY} clips of a person.",
        )
    headline = [name for index, name in enumerate(found) if index in (0, len(detectors))]
    for place, members in places.items():
        section = f"Sync accuracy within +-1 frame: {place}"
        for name, offsets in found.items():
            known = [c.clip for c in members if c.clip.path in offsets]
            for frames in WINDOW_FRAMES:
                off = {c.path: np.abs(offsets[c.path][frames] - own[c.path]) for c in known if c.path in own}
                against_zero = _share((c.identity, np.abs(offsets[c.path][frames]) <= 1) for c in known)
                against_own = _share((c.identity, off[c.path] <= 1) for c in known if c.path in off)
                report.add(section, name, f"{frames} frames", against_zero)
                report.add(section, f"{name}, relative to the clip's own offset", f"{frames} frames", against_own)
                if place in goals and name in headline:
                    title = f"Sync accuracy, {frames} frames, relative to the clip's own offset, {place}: {name}"
                    report.target(title, against_own, ACCURACY_GOALS[frames])


def judged_accuracy(report: Report, detector: Detector, places: Mapping[str, Sequence[EmbeddedClip]]) -> None:
    """By place: windows that the service judges, those with speech and a moving mouth, on the clip's own offset."""
    section = "Sync accuracy within +-1 frame of the clip's own offset: windows with speech and a moving mouth"
    report.note(section, "Chosen as the service does, one from every frame on. The tables before count pauses too.")
    every = {clip.clip.path: clip for clip in chain.from_iterable(places.values())}
    slid = {path: _slid(detector, clip) for path, clip in every.items()}
    for place, clips in places.items():
        for frames in WINDOW_FRAMES:
            windows = [(clip.clip.identity, slid[clip.clip.path][frames]) for clip in clips]
            judged = [(who, [window for window in of_one if window.note is None]) for who, of_one in windows]
            right = _share((who, [abs(w.offset - w.track_offset) <= 1 for w in of_one]) for who, of_one in judged)
            share = _share((who, [window.note is None for window in of_one]) for who, of_one in windows)
            report.add(section, place, f"{frames} frames", right)
            report.add(section, place, f"{frames} frames, share of all windows", share)


def _slid(detector: Detector, clip: EmbeddedClip) -> dict[int, list[WindowEvidence]]:
    """By length in frames, every window for which the sound at every offset exists."""
    face, last = face_evidence(detector, clip), len(clip.video) - MAX_OFFSET
    return {
        frames: [w for w in slide(face, frames / GRID_FPS, 1 / GRID_FPS) if w.start >= MAX_OFFSET and w.end <= last]
        for frames in WINDOW_FRAMES
    }


def offset_trials(detector: Detector, clips: Sequence[EmbeddedClip]) -> list[OffsetTrial]:
    """Every segment of 3 s with enough speech, as it is and shifted."""
    own = {clip.clip.path: face_evidence(detector, clip).offset for clip in clips}
    trials = []
    for clip in clips:
        who = clip.clip.identity
        others = [own[c.clip.path] for c in clips if c.clip.identity == who and c is not clip]
        usual = float(np.median(others)) if others else None
        for part in judged_segments(detector, [clip]):
            late = {by: face_evidence(detector, part.with_sound_late_by(by)).offset for by in SHIFTS}
            found = face_evidence(detector, part).offset
            trials.append(OffsetTrial(clip.clip, found, late, own[clip.clip.path], usual))
    return trials


def constant_offsets(report: Report, trials: Mapping[str, Sequence[OffsetTrial]]) -> None:
    """By place: offsets put into segments and found again, and shifted segments told from untouched ones."""
    section = "Constant offset of 3 s"
    for place, members in trials.items():
        moved = _share(
            (t.clip.identity, [abs(late - t.found - by) <= 1 for by, late in t.late.items()]) for t in members
        )
        report.add(
            section, place, "mean absolute offset, ms",
            mean_over_identities(_by_identity((t.clip.identity, [abs(frames_to_ms(t.found))]) for t in members)),
        )  # fmt: skip
        report.add(section, place, "-200, -120, 120 or 200 ms put there found within one frame", moved)
        told = _shift_told(members, lambda trial: trial.own)
        report.add(section, place, "200 ms told from none, by the clip's own offset, balanced accuracy", told)
        usual = _shift_told(members, lambda trial: trial.usual)
        report.add(section, place, "the same, by the usual offset of the person's other clips", usual)
        if place == "all":
            report.target("Offset of -200, -120, 120 or 200 ms put into 3 s found within one frame", moved, 0.99)
            report.target("200 ms shift told from none by the clip's own offset, 3 s, balanced accuracy", told, 0.99)


def other_voices(report: Report, detector: Detector, places: Mapping[str, Sequence[EmbeddedClip]]) -> None:
    """Segments of 3 s told from the same mouths with other voices, by the sync evidence of the rule."""
    section = "Right sound told from other speech, 3 s, AUC of the rule's sync evidence"
    for place, clips in places.items():
        parts = judged_segments(detector, clips)
        right = _sync_evidence(detector, parts)
        for same, goal, column in (
            (True, 0.97, "other speech of the same person"),
            (False, 0.99, "another person's speech"),
        ):
            swapped = _sync_evidence(detector, swapped_segments(parts, same))
            figure = stratified_auc_over_identities([(swapped, right)])
            report.add(section, place, column, figure)
            report.target(f"Right sound told from {column}, 3 s, sync evidence of the rule, AUC: {place}", figure, goal)


def logits(report: Report, detectors: Sequence[nn.Module], places: Places) -> None:
    """True sound told from tampered by the detectors' own logits, 1 s windows seen by themselves."""
    for place, members in places.items():
        few = {clip.path for clip in few_of_each((clip.clip for clip in members), SLOW_CLIPS_PER_IDENTITY)}
        clips = [clip for clip in members if clip.clip.path in few]
        section = f"True sound told from tampered, 1 s windows, by the detector's logits alone, AUC: {place}"
        for detector in detectors:
            name, score = type(detector).__name__, partial(_logit_scores, detector, clips)
            true = score(lambda clip, start: (clip, start))
            shifted = score(lambda clip, start: (clip, start + SHIFT_FRAMES))
            report.add(section, name, "shifted by 200 ms", auc_over_identities(true, shifted))
            for same, column in ((True, "other speech of the same person"), (False, "another person's speech")):
                if swapped := score(partial(_other_voice, clips, same)):
                    report.add(section, name, column, auc_over_identities(true, swapped))


def judged_segments(detector: Detector, clips: Iterable[EmbeddedClip]) -> list[EmbeddedClip]:
    """Parts of 3 s, shorter clips whole, with `ENOUGH_S` of speech with the mouth in view."""
    parts = chain.from_iterable(map(segments, clips))
    return [part for part in parts if evidence_s(windows_with_evidence(detector, part)) >= ENOUGH_S]


def _shift_told(trials: Iterable[OffsetTrial], reference: Callable[[OffsetTrial], float | None]) -> Figure:
    """Balanced accuracy of calling a segment shifted if its offset is beyond `SHIFTED_BY` of the reference."""
    known = [trial for trial in trials if reference(trial) is not None]
    shifted = _by_identity(
        (t.clip.identity, [abs(t.late[by] - reference(t)) > SHIFTED_BY for by in (-SHIFT_FRAMES, SHIFT_FRAMES)])
        for t in known
    )
    untouched = _by_identity((t.clip.identity, [abs(t.found - reference(t)) <= SHIFTED_BY]) for t in known)
    return balanced_accuracy_over_identities(shifted, untouched)


def _share(items: Iterable[tuple[str, Sequence[float]]]) -> Figure:
    return share_over_identities(_by_identity(items))


def _by_identity(items: Iterable[tuple[str, Sequence[float]]]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for identity, values in items:
        grouped[identity].extend(values)
    return grouped


def _sync_evidence(detector: Detector, parts: Iterable[EmbeddedClip]) -> dict[str, list[float]]:
    judged = ((part.clip.identity, windows_with_evidence(detector, part)) for part in parts)
    return _by_identity(
        (who, [detector.rule.suspicion(windows, fine=False).sync]) for who, windows in judged if windows
    )


def _other_voice(
    clips: Sequence[PreparedClip], same: bool, clip: PreparedClip, start: int
) -> tuple[PreparedClip, int] | None:
    others = [
        other for other in clips
        if other is not clip and other.clip.corpus == clip.clip.corpus
        and (other.clip.identity == clip.clip.identity) == same and len(other.crops) > start + GRID_FPS
    ]  # fmt: skip
    return (others[start % len(others)], start) if others else None


def _logit_scores(
    detector: nn.Module,
    clips: Sequence[PreparedClip],
    voice: Callable[[PreparedClip, int], tuple[PreparedClip, int] | None],
) -> dict[str, list[float]]:
    """In-sync logit of 1 s windows with the sound that ``voice`` chooses, by identity."""
    scores: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        for start in window_starts(clip, GRID_FPS, TAMPERED_WINDOWS_PER_CLIP).tolist():
            chosen = voice(clip, start)
            if chosen is None:
                continue
            source, begin = chosen
            mouths = mouths_of(clip, start, start + GRID_FPS)[None]
            sound = sound_of(source)[begin * SAMPLES_PER_FRAME : (begin + GRID_FPS) * SAMPLES_PER_FRAME]
            with torch.inference_mode():
                found = detector(mouths, sound[None, None])[0]
            scores[clip.clip.identity].append(float(found[0] - found[1]))
    return scores
