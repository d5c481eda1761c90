"""Prepared clips in; the evidence that the service would gather from them, true and tampered with, out.

Swapping or shifting sound is done on embeddings, so a trial costs nothing once both clips are embedded.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.crops import as_grey
from model.detector import MAX_OFFSET
from model.engine import Detector
from model.media import SAMPLES_PER_FRAME
from model.motion import MotionMeter
from model.training.clips import Clip
from model.training.prepare import PreparedClip, load_prepared
from model.training.sounds import WORSE, Sound
from model.windows import (
    FaceEvidence,
    WindowEvidence,
    aligned_sound,
    fit_among_mouths,
    frozen,
    mean_change,
    slide,
    speech_frames,
)  # fmt: skip

WINDOW_S, HOP_S = 1.0, 0.2
SEGMENT = 75
"""Frames of a segment (3 s): long clips are judged whole and in such parts."""


PARTIAL = 50
"""Frames of what is fake in a partial fake (2 s)."""


@dataclass(frozen=True, slots=True)
class EmbeddedClip:
    """A clip as the detector knows it: embeddings (T, 256), speech probability (T,), mouth (T,).

    ``rendered``: (T,), how rendered the mouth looks, see `model.temporal`. ``motion``: (T, 5), see `model.motion`.
    ``held`` and ``quantizer``: (T,), see `model.crops.MouthCrop`.
    """

    clip: Clip
    video: np.ndarray
    audio: np.ndarray
    speech: np.ndarray
    visible: np.ndarray
    held: np.ndarray
    lip_opening: np.ndarray
    rendered: np.ndarray
    motion: np.ndarray
    quantizer: np.ndarray

    def part(self, start: int, end: int) -> "EmbeddedClip":
        """Frames ``start`` to ``end`` - 1."""
        return EmbeddedClip(self.clip, *(array[start:end] for array in self._arrays()))

    def with_voice(self, voice: "EmbeddedClip") -> "EmbeddedClip":
        """This picture with the sound of ``voice``, which is as long."""
        return self.with_sound(voice.audio, voice.speech)

    def with_sound(self, audio: np.ndarray, speech: np.ndarray) -> "EmbeddedClip":
        """This picture with a sound, as long, of these embeddings and that probability of speech."""
        return replace(self, audio=audio, speech=speech)

    def with_stretch_of(self, other: "EmbeddedClip", start: int, frames: int) -> "EmbeddedClip":
        """This clip, but its ``frames`` from ``start`` on are the middle ones of another."""
        begin = (len(other.video) - frames) // 2
        return EmbeddedClip(self.clip, *(
            np.concatenate([own[:start], its[begin : begin + frames], own[start + frames :]])
            for own, its in zip(self._arrays(), other._arrays())
        ))  # fmt: skip

    def with_sound_of(self, other: "EmbeddedClip") -> "EmbeddedClip":
        """This mouth with the other's voice, as long as the shorter of both."""
        length = min(len(self.video), len(other.audio))
        return self.part(0, length).with_voice(other.part(0, length))

    def with_sound_late_by(self, frames: int) -> "EmbeddedClip":
        """The sound ``frames`` later (negative: earlier), without padding: both ends are cut off."""
        length = len(self.video) - abs(frames)
        mouth = self.part(max(frames, 0), max(frames, 0) + length)
        return mouth.with_voice(self.part(max(-frames, 0), max(-frames, 0) + length))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        mouth = self.visible, self.held, self.lip_opening, self.rendered, self.motion, self.quantizer
        return self.video, self.audio, self.speech, *mouth


def load_embedded(detector: Detector, clips: Iterable[Clip], cache: Path) -> list[EmbeddedClip]:
    """Those of ``clips`` that have a usable face, embedded."""
    return [embed(detector, prepared) for clip in clips for prepared in load_prepared([clip], cache)]


def embed(detector: Detector, clip: PreparedClip) -> EmbeddedClip:
    """Embed one clip."""
    mouths = detector.mouth_embedder()
    motion, rendering = MotionMeter(), detector.rendering_meter()
    for grey, sampled, pixels, held in zip(as_grey(clip.crops), clip.sampled, clip.crops, clip.held):
        motion.push(grey, sampled, pixels, held)
        for part in (mouths, rendering):
            part.push(grey)
    rendering.finish()
    audio, speech = _heard(detector, clip.sound, len(clip.crops))
    return EmbeddedClip(
        clip.clip, mouths.finish(), audio, speech, clip.visible, clip.held, clip.lip_opening,
        rendering.measured(wait=True), motion.measured(), clip.quantizer,
    )  # fmt: skip


def load_heard_worse(detector: Detector, clips: Iterable[EmbeddedClip], cache: Path) -> list[EmbeddedClip]:
    """Each of ``clips`` with its sound as it is often heard, in all ways (`model.training.sounds`)."""
    return [
        clip.with_sound(*_heard(detector, worse(prepared.sound), len(clip.video)))
        for clip in clips for prepared in load_prepared([clip.clip], cache) for worse in WORSE.values()
    ]  # fmt: skip


def _heard(detector: Detector, sound: Sound, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (T, 256) of a sound, and the probability of speech (frames,)."""
    sounds = detector.sound_embedder()
    for piece in sound.reshape(-1, SAMPLES_PER_FRAME):
        sounds.push(piece)
    speech = np.zeros(frames, np.float32)
    heard = detector.speech_per_frame([sound])[:frames]
    speech[: len(heard)] = heard
    return sounds.finish(), speech


def segments(clip: EmbeddedClip) -> Iterator[EmbeddedClip]:
    """Its parts of 3 s, end to end; a shorter clip as it is."""
    for start in range(0, max(1, len(clip.video) - SEGMENT + 1), SEGMENT):
        yield clip.part(start, start + SEGMENT)


def face_evidence(detector: Detector, clip: EmbeddedClip) -> FaceEvidence:
    """As `model.pipeline.watch` gathers it."""
    frames = len(clip.video)
    speech = speech_frames(clip.speech, frames)
    similarity = detector.offset_similarity(clip.video, aligned_sound(clip.audio, 0, frames))
    return FaceEvidence(
        0,
        0,
        similarity,
        fit_among_mouths(similarity, clip.visible),
        mean_change(detector.change(clip.video), detector.change(clip.audio), 0),
        clip.visible & ~frozen(clip.held, frames) & speech,
        speech,
        clip.visible,
        clip.lip_opening,
        clip.rendered,
        clip.motion,
        clip.quantizer,
    )


def windows_with_evidence(detector: Detector, clip: EmbeddedClip) -> list[WindowEvidence]:
    """Those windows of a clip that the verdict is made of."""
    return [w for w in slide(face_evidence(detector, clip), WINDOW_S, HOP_S) if w.note is None]


def joined_windows(detector: Detector, clips: Iterable[EmbeddedClip]) -> list[WindowEvidence]:
    """Those of several clips of one person, as if one followed the other, a cut between; no window is of two clips."""
    windows, first = [], 0
    for number, clip in enumerate(clips):
        windows += [
            replace(window, track_id=number, start=first + window.start, end=first + window.end)
            for window in windows_with_evidence(detector, clip)
        ]
        first += len(clip.video)
    return windows


def swaps(clips: Sequence[EmbeddedClip], same_identity: bool, each: int = 2) -> Iterator[EmbeddedClip]:
    """Every clip with the voice of up to ``each`` others of its corpus: of the same person, or of others.

    Voices at least a second long count, those of about the same length first.
    """
    for clip in clips:
        others = [other for other in _others(clip, clips, same_identity) if len(other.audio) > 2 * MAX_OFFSET]
        others.sort(key=lambda other: (abs(len(other.audio) - len(clip.audio)), other.clip.path))
        yield from (clip.with_sound_of(other) for other in others[:each])


def partial_fakes(real: Sequence[EmbeddedClip], generated: Sequence[EmbeddedClip]) -> Iterator[EmbeddedClip]:
    """Every real clip of 5 s or more with 2 s of a generated one, picture and sound, in its middle."""
    long = [clip for clip in generated if len(clip.video) >= PARTIAL]
    for index, clip in enumerate(clip for clip in real if len(clip.video) >= 2.5 * PARTIAL):
        start = (len(clip.video) - PARTIAL) // 2
        yield clip.with_stretch_of(long[index % len(long)], start, PARTIAL)


def swapped_segments(parts: Sequence[EmbeddedClip], same_identity: bool, each: int = 2) -> Iterator[EmbeddedClip]:
    """Every segment with the voice of ``each`` others of its corpus: of the same person, or of another.

    Unlike `swaps`, all voices get their turn.
    """
    for index, part in enumerate(parts):
        others = _others(part, parts, same_identity)
        for turn in range(min(each, len(others))):
            yield part.with_sound_of(others[(each * index + turn) % len(others)])


def _others(one: EmbeddedClip, among: Sequence[EmbeddedClip], same_identity: bool) -> list[EmbeddedClip]:
    """Those of the same corpus, of the same person or of others."""
    return [
        other
        for other in among
        if other is not one
        and other.clip.corpus == one.clip.corpus
        and (other.clip.identity == one.clip.identity) == same_identity
    ]


def few_of_each(clips: Iterable[Clip], most: int) -> list[Clip]:
    """At most ``most`` clips of every identity, always the same: the first ones of all, then the second ones."""
    rank: Counter[str] = Counter()
    ranked = []
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.path.encode()).digest()):
        ranked.append((rank[clip.identity], clip))
        rank[clip.identity] += 1
    return [clip for place, clip in sorted(ranked, key=lambda pair: pair[0]) if place < most]
