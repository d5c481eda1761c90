"""The answer: plain, immutable records, in seconds, milliseconds, pixels and probabilities."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["real", "fake", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the verdict is what it is: a stable ``code`` and a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Sync:
    """Constant audio-video offset of the judged face.

    ``offset_ms`` > 0: the audio is late (ITU-R BT.1359 calls this sound delayed); None when unknown.
    ``confidence``: probability in [0, 1] that the true offset is within one frame (40 ms) of it.
    """

    offset_ms: int | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """Evidence of one face in one span of time.

    ``sync_score``: probability in [0, 1] that mouth and voice match at the track's constant offset; None
    where there is no evidence, and then ``note`` says why. ``content_score``: probability in [0, 1] that the
    face was filmed, not rendered, by its pixels. ``offset_ms``: best offset of this window alone.
    ``fake_probability``: calibrated, of this window alone.
    """

    track_id: int
    start_s: float
    end_s: float
    sync_score: float | None
    content_score: float | None
    offset_ms: int | None
    fake_probability: float | None
    speech: bool
    note: str | None


@dataclass(frozen=True, slots=True)
class Track:
    """One face through time. ``box``: median x, y, width, height in pixels of the upright picture.

    ``speaking_share``: share in [0, 1] of the speech during the track that this face best explains.
    """

    track_id: int
    start_s: float
    end_s: float
    box: tuple[int, int, int, int]
    speaking_share: float
    fake_probability: float | None
    offset_ms: int | None
    windows: int


@dataclass(frozen=True, slots=True)
class Media:
    """Facts of the file. Width and height are of the upright picture, in pixels; rates in Hz."""

    duration_s: float
    width: int
    height: int
    fps: float
    video_codec: str
    audio_codec: str | None
    sample_rate: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of each stage, in milliseconds."""

    media: float
    faces: float
    detector: float
    total: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """The whole answer for one video.

    ``fake_probability`` is None exactly when the verdict is ``inconclusive`` for lack of evidence.
    """

    verdict: Verdict
    fake_probability: float | None
    reasons: tuple[Reason, ...]
    sync: Sync
    windows: tuple[Window, ...]
    tracks: tuple[Track, ...]
    media: Media
    timing_ms: Timing
    warnings: tuple[str, ...]
