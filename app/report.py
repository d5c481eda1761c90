"""An answer in; a report for people out: one HTML file that needs nothing else, or one PNG picture."""

from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import charts
from app.schemas import AnalysisResponse

HEADLINES = {"real": "No sign of a fake", "fake": "Points to a fake", "inconclusive": "Inconclusive"}
SENTENCES = {
    "real": "Nothing was found that speaks for lips made to fit the voice. This is a lead, not a proof.",
    "fake": "The lips in this video look as if they were made to fit the voice. This is a lead, not a proof.",
    "inconclusive": "The evidence is not enough to say either.",
}
NO_EVIDENCE = "There is not enough evidence to judge this video."

MEANINGS = (
    ("Fake probability", "The calibrated probability that the lips are fake, if as many videos were fake as real. "
     "Where fakes are rarer than that, as in most collections, it overstates. It is also given for every window by "
     "itself, and then is far less certain."),
    ("Sync score", "The probability that mouth and voice match in a window, once the constant offset is taken out. "
     "Some fakes are more in sync than real video."),
    ("Offset", "How late the sound comes after the picture, in milliseconds; negative: early. A constant one comes "
     "from muxing or broadcasting and is no sign of a fake."),
    ("Thresholds", "Below the lower one the verdict is real, above the upper one fake, if there are 2 s of speech with "
     "the mouth in view; else inconclusive."),
)  # fmt: skip

CAVEATS = (
    "A verdict of fake does not say who made the video, how, or why, nor that what is said in it is untrue.",
    "A verdict of real does not say that the video is authentic: only lips that were made to fit a voice are looked "
    "for, not swapped faces, a cloned voice, or scenes that were cut or staged; and some fakes go unnoticed.",
    "Strong compression, small or turned faces, and dubbing can mislead. Look at the key frames and listen to the "
    "places named above, look for the original of the video, and have somebody check who knows the speaker.",
    "No single window decides: near its thresholds, and on material unlike that which it was measured on, the detector "
    "is wrong more often.",
)  # fmt: skip

MODEL_CARD = "weights/MODEL_CARD.md"

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_html(answer: AnalysisResponse, name: str | None = None) -> str:
    """A self-contained page, without scripts. ``name``: of the file, as people know it; any text."""
    gauge = charts.figure(charts.GAUGE_IN, 0.7 * charts.WIDTH_IN)
    timeline = charts.figure(charts.timeline_height_in(answer))
    charts.draw_gauge(gauge.subplots(), answer)
    charts.draw_timeline(timeline, answer)
    shown = charts.lanes(answer)
    return _templates.get_template("report.html").render(
        answer=answer,
        name=name,
        sentence=sentence(answer),
        headline=HEADLINES[answer.verdict],
        gauge=_data_uri(charts.saved(gauge, "svg")),
        timeline=_data_uri(charts.saved(timeline, "svg")),
        shown=shown,
        left_out=len(answer.tracks) - len(shown),
        decimated=len(answer.windows) > charts.MOST_POINTS,
        facts=facts(answer, name),
        meanings=MEANINGS,
        caveats=CAVEATS,
        model_card=MODEL_CARD,
    )


def render_png(answer: AnalysisResponse, name: str | None = None) -> bytes:
    """The same in short, as one picture. See `render_html`."""
    colour = charts.VERDICT_COLOURS[answer.verdict]
    head = [
        *charts.wrapped(name or "A video", 13),
        (HEADLINES[answer.verdict], 20.0, colour),
        *charts.wrapped(sentence(answer), 11),
    ]
    why = [line for reason in answer.reasons for line in charts.wrapped(f"-  {reason.detail}", 10)]
    end = [line for fact in facts(answer, name)[1:] for line in charts.wrapped(f"{fact[0]}: {fact[1]}", 8)]
    end += [("", 8.0, charts.INK), *charts.wrapped(f"{MODEL_CARD} says how often this version is wrong.", 8)]
    end += [line for caveat in CAVEATS for line in charts.wrapped(caveat, 8, charts.MUTED)]
    key_frames = answer.playback.key_frames if answer.playback else []

    heights = {
        "head": charts.text_height_in(head),
        "gauge": charts.GAUGE_IN,
        "why": charts.text_height_in(why),
        "timeline": charts.timeline_height_in(answer),
        "key frames": charts.KEY_FRAMES_IN if key_frames else 0.0,
        "end": charts.text_height_in(end),
    }
    heights = {part: height for part, height in heights.items() if height}
    page = charts.figure(sum(heights.values()))
    rows = page.subfigures(len(heights), 1, squeeze=False, height_ratios=list(heights.values()))[:, 0]
    parts = dict(zip(heights, rows))
    charts.draw_text(parts["head"], head)
    charts.draw_gauge(parts["gauge"].subplots(), answer)
    charts.draw_text(parts["why"], why)
    charts.draw_timeline(parts["timeline"], answer)
    if key_frames:
        charts.draw_key_frames(parts["key frames"], key_frames)
    charts.draw_text(parts["end"], end)
    return charts.saved(page, "png")


def sentence(answer: AnalysisResponse) -> str:
    """The verdict in words."""
    return NO_EVIDENCE if answer.fake_probability is None else SENTENCES[answer.verdict]


def facts(answer: AnalysisResponse, name: str | None) -> list[tuple[str, str]]:
    """What was analysed, by what and when, as pairs of a label and a value."""
    media, model, offset = answer.media, answer.model, answer.sync.offset_ms
    sound = f"{media.audio_codec}, {media.sample_rate} Hz" if media.audio_codec else "none"
    late = "unknown" if offset is None else f"{offset} ms, {_lateness(offset)}"
    sure = "" if answer.sync.confidence is None else f" (within 40 ms with probability {answer.sync.confidence:.2f})"
    found = [
        ("File", name or "not named"),
        ("SHA-256", media.sha256),
        ("Length", f"{media.duration_s:.2f} s"),
        ("Picture", f"{media.width} x {media.height} pixels, {media.fps:g} a second, {media.video_codec}"),
        ("Sound", sound),
        ("Offset of the sound", late + sure),
        ("Faces", str(len(answer.tracks))),
        ("Verdict", answer.verdict),
        ("Detector", f"{model.name} {model.version}, on {model.device}"),
        ("Analysis took", f"{answer.timing_ms.total / 1000:.1f} s"),
        ("Report made", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"),
    ]
    return [*found, ("Request", answer.request_id)] if answer.request_id else found


def _lateness(offset_ms: int) -> str:
    return "the sound is late" if offset_ms > 0 else "the sound is early" if offset_ms < 0 else "in time"


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
