"""What goes over the wire, field by field, as /docs shows it."""

from base64 import b64encode
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, BaseModel, BeforeValidator, ConfigDict, Field

from model import Analysis, DetectorInfo
from model.options import FACES_RANGE, HOP_RANGE_S, HOP_S, MAX_FACES, WINDOW_RANGE_S, WINDOW_S
from model.results import Verdict

JobState = Literal["queued", "running", "done", "failed"]
Probability = Annotated[float, Field(ge=0, le=1)]
Box = tuple[int, int, int, int]
Mouth = tuple[float, float, float, float]
OFFSET = "Milliseconds that the audio is late: > 0 the audio comes after the picture, < 0 before it."


def _range(allowed: tuple[float, float]) -> dict[str, float]:
    return {"ge": allowed[0], "le": allowed[1]}


class Parameters(BaseModel):
    """Optional form fields beside the file."""

    window_s: float = Field(WINDOW_S, **_range(WINDOW_RANGE_S), description="Length of a window, in seconds.")
    hop_s: float = Field(HOP_S, **_range(HOP_RANGE_S), description="From one window's start to the next, in seconds.")
    max_faces: int = Field(
        MAX_FACES, **_range(FACES_RANGE), description="Most faces that are looked for in one picture."
    )
    playback: bool = Field(
        False, description="Whether to answer also what a player needs to show the analysis, as `playback`."
    )


class JobParameters(Parameters):
    """The same, of a job."""

    callback_url: AnyHttpUrl | None = Field(
        None, description="Public address to which the job is sent by POST, signed, once it is over.", max_length=2000
    )


class _Record(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Reason(_Record):
    """Why the verdict is what it is."""

    code: str = Field(description="For programs; codes do not change.")
    detail: str = Field(description="The same, in a sentence for people.")


class Sync(_Record):
    """Constant audio-video offset of the judged face."""

    offset_ms: int | None = Field(description=f"{OFFSET} Null when unknown.")
    confidence: Probability | None = Field(
        description="Probability that the true offset is within one frame (40 ms) of `offset_ms`. Null when unknown."
    )


class Window(_Record):
    """Evidence of one face in one span of time."""

    track_id: int = Field(description="The face: the track with this `track_id`.")
    start_s: float = Field(description="Start, in seconds after the first picture.")
    end_s: float = Field(description="End, in seconds after the first picture.")
    sync_score: Probability | None = Field(
        description="Probability that mouth and voice match near the track's constant offset. Null: no evidence, see "
        "`note`."
    )
    content_score: Probability | None = Field(
        description="Probability that the mouth was filmed, not rendered, judged by its pixels. Null: no evidence."
    )
    offset_ms: int | None = Field(description=f"Best offset of this window alone. {OFFSET} Null: no evidence.")
    fake_probability: Probability | None = Field(
        description="Probability that the lips are fake, judged by this window, or by how the look of the 2 s around "
        "it differs from the rest of the video; while a video is watched, by the window alone. Null: no evidence."
    )
    speech: bool = Field(description="Whether somebody speaks in this window.")
    note: str | None = Field(description="Why there is no evidence; null when there is.")


class Windows(_Record):
    """Some windows, as they are scored: by the offset that their face has had so far, which may still change."""

    windows: list[Window]


class Track(_Record):
    """One face through time."""

    track_id: int = Field(description="Number of the face, from 0 on; windows refer to it.")
    start_s: float = Field(description="When it appears, in seconds after the first picture.")
    end_s: float = Field(description="When it is gone, in seconds after the first picture.")
    box: Box = Field(
        description="Where it is, in pixels of the upright picture: left, top, width, height; medians over time."
    )
    speaking_share: Probability = Field(
        description="Share of the speech during the track that this face best explains."
    )
    fake_probability: Probability | None = Field(
        description="Probability that this face's lips are fake. Null: no evidence."
    )
    offset_ms: int | None = Field(description=f"Constant offset of this face. {OFFSET} Null: no evidence.")
    windows: int = Field(ge=0, description="How many windows the track has.")


class Media(_Record):
    """Facts of the file."""

    duration_s: float = Field(description="Length in seconds.")
    width: int = Field(description="Width of the upright picture, in pixels.")
    height: int = Field(description="Height of the upright picture, in pixels.")
    fps: float = Field(description="Mean frame rate, in pictures a second.")
    video_codec: str = Field(description="FFmpeg's name of the video codec.")
    audio_codec: str | None = Field(description="FFmpeg's name of the audio codec. Null: no audio.")
    sample_rate: int | None = Field(description="Audio samples a second, in Hz. Null: no audio.")
    sha256: str = Field(description="SHA-256 of the file as received, in hexadecimal.")


class ModelInfo(_Record):
    """What judged the video."""

    alias: str = Field(description="What it is called here: the `model` of the request.")
    name: str = Field(description="Name of the detector.")
    version: str = Field(description="Version of the detector.")
    device: str = Field(description="Where it runs, as PyTorch names it.")
    thresholds: dict[str, float] = Field(
        description="Limits of `fake_probability` that make the verdict: `real` below `real_below`, `fake` above "
        "`fake_above` if there are 2 s of speech with the mouth in view, else `inconclusive`."
    )
    weights: dict[str, str] = Field(description="Its weights files, each with the start of its SHA-256.")


class Timing(_Record):
    """Wall time of each stage of the analysis, in milliseconds; uploading and waiting in line are not in it."""

    media: float = Field(description="Reading and decoding the file.")
    faces: float = Field(description="Finding and following faces, and cutting out mouths.")
    detector: float = Field(description="Comparing mouths and voice.")
    total: float = Field(description="The whole analysis.")


Base64 = Annotated[str, BeforeValidator(lambda raw: b64encode(raw).decode() if isinstance(raw, bytes) else raw)]


class Places(_Record):
    """Where the face of a track is over time."""

    track_id: int = Field(description="The face: the track with this `track_id`.")
    start_s: float = Field(description="Of the first entry, in seconds after the first picture.")
    boxes: list[Box | None] = Field(
        description="Face: left, top, width, height in pixels of the upright picture. Null: not seen."
    )
    mouths: list[Mouth | None] = Field(
        description="What the detector saw: a square around the mouth, as centre x, centre y and side in pixels of the "
        "upright picture, turned clockwise by so many degrees. Null: not seen."
    )


class KeyFrame(_Record):
    """The middle of one of the most suspicious windows."""

    track_id: int = Field(description="The face: the track with this `track_id`.")
    time_s: float = Field(description="When, in seconds after the first picture.")
    fake_probability: Probability = Field(description="Of the window.")
    picture: Base64 = Field(description="The picture, the face in a box: JPEG, in Base64.")
    mouth: Base64 = Field(description="The mouth as the detector saw it: JPEG, in Base64.")


class Playback(_Record):
    """What it takes to show the analysis beside its video."""

    waveform: list[Probability] = Field(description="The loudest sample of every 40 ms from the first picture on.")
    speech: list[tuple[float, float]] = Field(description="When somebody speaks: from and to, in seconds.")
    step_s: float = Field(description="Seconds from one entry of `places` to the next.")
    places: list[Places] = Field(description="One for each track.")
    key_frames: list[KeyFrame] = Field(description="The most suspicious moments, in order of time.")


class AnalysisResponse(_Record):
    """Whether the lips of a video belong to its voice."""

    request_id: str = Field(description="Names this request in the service's log; also in the header X-Request-ID.")
    verdict: Verdict = Field(description="`real`, `fake` (the lips were made to fit the voice), or `inconclusive`.")
    fake_probability: Probability | None = Field(
        description="Calibrated probability that the lips are fake, at even odds of real and fake. Null when "
        "there is not enough evidence; the verdict is then `inconclusive`."
    )
    reasons: list[Reason] = Field(description="Why; the most important first.")
    sync: Sync
    windows: list[Window] = Field(description="Evidence by face and time.")
    tracks: list[Track] = Field(description="The faces.")
    media: Media
    model: ModelInfo
    timing_ms: Timing
    warnings: list[str] = Field(description="What is wrong with the file, although it could be analysed.")
    playback: Playback | None = Field(None, exclude_if=lambda it: it is None, description="There if it was asked for.")

    @classmethod
    def of(cls, analysis: Analysis, alias: str, info: DetectorInfo, request_id: str) -> "AnalysisResponse":
        """The answer for one analysis by the detector that is called ``alias``."""
        facts = {field.name: getattr(analysis, field.name) for field in fields(analysis)}
        return cls.model_validate({**facts, "model": {"alias": alias, **asdict(info)}, "request_id": request_id})


EXAMPLE = {
    "request_id": "5f0c1d7e9b3a",
    "verdict": "real",
    "fake_probability": 0.0312,
    "reasons": [
        {
            "code": "in_sync",
            "detail": "Mouth and voice belong together: 92% of the 26 windows with speech agree on the offset, "
            "within 160 ms.",
        },
        {"code": "filmed_face", "detail": "The mouth looks filmed in 96% of the windows with speech."},
        {
            "code": "constant_offset",
            "detail": "The sound is 200 ms late throughout, as a muxing or broadcast fault makes it; this is no "
            "sign of a fake.",
        },
    ],
    "sync": {"offset_ms": 200, "confidence": 0.998},
    "windows": [
        {
            "track_id": 0,
            "start_s": 0.0,
            "end_s": 1.0,
            "sync_score": 0.9641,
            "content_score": 0.9127,
            "offset_ms": 200,
            "fake_probability": 0.0402,
            "speech": True,
            "note": None,
        },
        {
            "track_id": 0,
            "start_s": 0.2,
            "end_s": 1.2,
            "sync_score": None,
            "content_score": None,
            "offset_ms": None,
            "fake_probability": None,
            "speech": False,
            "note": "no_speech",
        },
    ],
    "tracks": [
        {
            "track_id": 0,
            "start_s": 0.0,
            "end_s": 6.0,
            "box": [132, 96, 210, 274],
            "speaking_share": 1.0,
            "fake_probability": 0.0312,
            "offset_ms": 200,
            "windows": 26,
        }
    ],
    "media": {
        "duration_s": 6.0,
        "width": 512,
        "height": 600,
        "fps": 25.0,
        "video_codec": "h264",
        "audio_codec": "aac",
        "sample_rate": 48000,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "model": {
        "alias": "default",
        "name": "LipSyncDetector",
        "version": "1.0.0",
        "device": "cpu",
        "thresholds": {"real_below": 0.35, "fake_above": 0.65},
        "weights": {"lipsync.safetensors": "9f86d081884c"},
    },
    "timing_ms": {"media": 310.2, "faces": 1204.5, "detector": 822.9, "total": 2350.1},
    "warnings": [],
}
"""Of an `AnalysisResponse`."""


class ProblemDocument(BaseModel):
    """Why there is no answer (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="URI that names the kind of problem: urn:problem-type:lipsync: and the code.")
    title: str = Field(description="The kind of problem, in words; always the same for one code.")
    status: int = Field(description="HTTP status, as in the response's first line.")
    detail: str = Field(description="What is wrong this time, and what to do about it; for people.")
    code: str = Field(description="The kind of problem, for programs; codes do not change.")
    request_id: str = Field(description="Names this request in the service's log.")


class Progress(_Record):
    """How far an analysis is."""

    stage: Literal["queued", "listening", "watching", "judging"] = Field(
        description="What is being done; `queued`: it waits for its turn."
    )
    done_s: float = Field(description="How much of the video went through this stage, in seconds.")
    duration_s: float | None = Field(description="Length of the video in seconds. Null: it does not say.")
    share: Probability = Field(description="How much of the whole work is done.")


QUEUED = Progress(stage="queued", done_s=0, duration_s=None, share=0)


class Job(_Record):
    """A video that is analysed while nobody holds the line."""

    job_id: str = Field(description="Names the job in its addresses; nobody can guess it.")
    state: JobState = Field(description="`queued`, `running`, and then one of `done`, `failed`.")
    created_at: datetime = Field(description="When its upload was complete (RFC 3339, UTC).")
    finished_at: datetime | None = Field(description="When it was over. Null: it is not.")
    expires_at: datetime | None = Field(description="When it is forgotten, result and all. Null: it is not over.")
    progress: Progress
    callback: Literal["pending", "delivered", "failed"] | None = Field(
        description="Whether the result was taken at `callback_url`. Null: none was given."
    )
    result: AnalysisResponse | None = Field(description="What `POST /v1/analyze` would have answered, once `done`.")
    problem: ProblemDocument | None = Field(description="Why there is no result, once `failed`.")


class Health(_Record):
    """What is ready to serve."""

    status: str = Field("ready", description="Always `ready`; otherwise the answer is a problem.")
    name: str = Field(description="Name of the default detector.")
    version: str = Field(description="Version of the default detector.")
    device: str = Field(description="Where it runs, as PyTorch names it.")
    weights: dict[str, str] = Field(description="Its weights files, each with the start of its SHA-256.")
    models: list[ModelInfo] = Field(description="What may be asked for as `model`.")


class Alive(BaseModel):
    """The process answers."""

    status: str = Field("alive", description="Always `alive`.")
