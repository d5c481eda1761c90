"""Prepared clips in; the evidence that the service would gather from them, true and tampered with, out.

Swapping or shifting sound is done on embeddings, so a trial costs nothing once both clips are embedded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.detector import MAX_OFFSET
from model.engine import Detector
from model.media import SAMPLES_PER_FRAME
from model.training.clips import Clip
from model.training.prepare import PreparedClip
from model.windows import FaceEvidence, WindowEvidence, aligned_sound, slide, speech_frames

WINDOW_S, HOP_S = 1.0, 0.2
SEGMENT = 75
"""Frames of a segment (3 s): long clips are judged whole and in such parts."""


@dataclass(frozen=True, slots=True)
class EmbeddedClip:
    """A clip as the detector knows it: embeddings (T, 256), speech probability (T,), mouth (T,)."""

    clip: Clip
    video: np.ndarray
    audio: np.ndarray
    speech: np.ndarray
    visible: np.ndarray
    lip_opening: np.ndarray

    def part(self, start: int, end: int) -> "EmbeddedClip":
        """Frames ``start`` to ``end`` - 1."""
        arrays = (self.video, self.audio, self.speech, self.visible, self.lip_opening)
        return EmbeddedClip(self.clip, *(array[start:end] for array in arrays))

    def with_sound_of(self, other: "EmbeddedClip") -> "EmbeddedClip":
        """This mouth with the other's voice, as long as the shorter of both."""
        length = min(len(self.video), len(other.audio))
        mouth, voice = self.part(0, length), other.part(0, length)
        return EmbeddedClip(self.clip, mouth.video, voice.audio, voice.speech, mouth.visible, mouth.lip_opening)

    def with_sound_late_by(self, frames: int) -> "EmbeddedClip":
        """The sound ``frames`` later (negative: earlier), without padding: both ends are cut off."""
        length = len(self.video) - abs(frames)
        mouth = self.part(max(frames, 0), max(frames, 0) + length)
        voice = self.part(max(-frames, 0), max(-frames, 0) + length)
        return EmbeddedClip(self.clip, mouth.video, voice.audio, voice.speech, mouth.visible, mouth.lip_opening)


def embed(detector: Detector, clip: PreparedClip) -> EmbeddedClip:
    """Embed one clip."""
    mouths, sounds = detector.mouth_embedder(), detector.sound_embedder()
    wave = clip.audio.astype(np.float32) / 32768
    for crop in clip.crops:
        mouths.push(crop)
    for piece in wave.reshape(-1, SAMPLES_PER_FRAME):
        sounds.push(piece)
    speech = np.zeros(len(clip.crops), np.float32)
    heard = detector.speech_per_frame([wave])[: len(speech)]
    speech[: len(heard)] = heard
    return EmbeddedClip(clip.clip, mouths.finish(), sounds.finish(), speech, clip.visible, clip.lip_opening)


def segments(clip: EmbeddedClip) -> Iterator[EmbeddedClip]:
    """Its parts of 3 s, end to end; a shorter clip as it is."""
    for start in range(0, max(1, len(clip.video) - SEGMENT + 1), SEGMENT):
        yield clip.part(start, start + SEGMENT)


def face_evidence(detector: Detector, clip: EmbeddedClip) -> FaceEvidence:
    """As `model.pipeline.watch` gathers it."""
    frames = len(clip.video)
    speech = speech_frames(clip.speech, frames)
    similarity = detector.offset_similarity(clip.video, aligned_sound(clip.audio, 0, frames))
    return FaceEvidence(0, 0, similarity, clip.visible & speech, speech, clip.visible, clip.lip_opening)


def windows_with_evidence(detector: Detector, clip: EmbeddedClip) -> list[WindowEvidence]:
    """Those windows of a clip that the verdict is made of."""
    return [w for w in slide(face_evidence(detector, clip), WINDOW_S, HOP_S) if w.note is None]


def swaps(clips: Sequence[EmbeddedClip], same_identity: bool, each: int = 2) -> Iterator[EmbeddedClip]:
    """Every clip with the voice of up to ``each`` others of its corpus: of the same person, or of others.

    Voices at least a second long count, those of about the same length first.
    """
    for clip in clips:
        others = [
            other
            for other in clips
            if other is not clip
            and other.clip.corpus == clip.clip.corpus
            and (other.clip.identity == clip.clip.identity) == same_identity
            and len(other.audio) > 2 * MAX_OFFSET
        ]
        others.sort(key=lambda other: (abs(len(other.audio) - len(clip.audio)), other.clip.path))
        yield from (clip.with_sound_of(other) for other in others[:each])
