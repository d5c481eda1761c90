"""The answer: plain, immutable records, in seconds, milliseconds, pixels and probabilities."""

from dataclasses import dataclass
from typing import Literal

VERSION = "1.24.0"
"""Of the detector, weights and rule together."""

Verdict = Literal["real", "fake", "inconclusive"]

Box = tuple[int, int, int, int]
"""Left, top, width, height, in pixels of the upright picture."""

Mouth = tuple[float, float, float, float]
"""Of a mouth's crop: centre x and y, side, in pixels of the upright picture; turned clockwise by so many degrees."""


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

    ``sync_score``: probability in [0, 1] that mouth and voice match near the track's constant offset; None
    where there is no evidence, and then ``note`` says why. ``content_score``: probability in [0, 1] that the
    mouth was filmed, not rendered, by its pixels. ``offset_ms``: best offset of this window alone.
    ``fake_probability``: calibrated, of this window, or by how the look of the 2 s around it differs from the rest.
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
    box: Box
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
class Stage:
    """When a stage of the work began and ended, in nanoseconds since 1970."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where the face of a track is, from its ``start_s`` on every ``step_s`` seconds; None where it is not seen."""

    track_id: int
    start_s: float
    boxes: tuple[Box | None, ...]
    mouths: tuple[Mouth | None, ...]


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """The middle of a most suspicious window: the picture with the face's box, and the mouth's crop, as JPEG files."""

    track_id: int
    time_s: float
    fake_probability: float
    picture: bytes
    mouth: bytes


@dataclass(frozen=True, slots=True)
class Playback:
    """What it takes to show an analysis beside its video.

    ``waveform``: the loudest sample of every 40 ms from the first picture on, in [0, 1]. ``speech``: when somebody
    speaks, from and to, in seconds. ``places``: one for each track, in steps of ``step_s`` seconds.
    """

    waveform: tuple[float, ...]
    speech: tuple[tuple[float, float], ...]
    step_s: float
    places: tuple[Places, ...]
    key_frames: tuple[KeyFrame, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """The whole answer for one video.

    ``fake_probability`` is None exactly when the verdict is ``inconclusive`` for lack of evidence. ``playback`` is
    there if it was asked for. ``stages``: of the work, in turn.
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
    playback: Playback | None = None
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What is loaded. ``weights``: file name to the first 12 hex digits of its SHA-256."""

    name: str
    version: str
    device: str
    weights: dict[str, str]
    thresholds: dict[str, float]
