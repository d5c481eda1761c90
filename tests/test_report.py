"""The report: everything there, nothing from elsewhere, bounded however long the video."""

from base64 import b64decode, b64encode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from app.report import render_html, render_png
from app.schemas import EXAMPLE, AnalysisResponse, KeyFrame, Playback, Track, Window


def jpeg() -> str:
    out = BytesIO()
    Image.new("RGB", (64, 48), "orange").save(out, "jpeg")
    return b64encode(out.getvalue()).decode()


def example(**changes: object) -> AnalysisResponse:
    return AnalysisResponse.model_validate(EXAMPLE | changes)


def with_playback() -> AnalysisResponse:
    frames = [KeyFrame(track_id=0, time_s=t, fake_probability=0.8, picture=jpeg(), mouth=jpeg()) for t in (1.0, 3.0)]
    loud = np.abs(np.sin(np.arange(150))).tolist()
    return example(playback=Playback(waveform=loud, speech=[(0.5, 2)], step_s=0.2, places=[], key_frames=frames))


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_every_part_is_there():
    answer = with_playback()
    page = Page(render_html(answer, "talk.mp4"))
    said = " ".join(page.text.split())
    for part in (
        "talk.mp4", "a lead, not a proof", answer.media.sha256, "LipSyncDetector 1.0.0, on cpu",
        "200 ms, the sound is late",
        "6.00 s", "512 x 600 pixels", answer.request_id, "UTC", "MODEL_CARD.md", "What must not be concluded",
        *(reason.detail for reason in answer.reasons),
    ):  # fmt: skip
        assert part in said, part
    assert {section["id"] for section in page.all("section")} == {
        "reasons", "timeline", "key-frames", "facts", "meaning", "caveats",
    }  # fmt: skip
    images = page.all("img")
    assert len(images) == 2 + 2 * 2
    assert all(image["alt"] for image in images)
    gauge = b64decode(images[0]["src"].partition(",")[2])
    assert gauge.startswith(b"<?xml") and b"<svg" in gauge
    assert "0.35" in images[0]["alt"] and "0.65" in images[0]["alt"]


def test_nothing_comes_from_elsewhere_and_nothing_runs():
    page = Page(render_html(with_playback()))
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")


@pytest.mark.parametrize(
    "name", ['<script>alert("1")</script>.mp4', "a&b'\".mp4", "$x^2$ {{ 7 * 7 }}.mp4", "über/口.mp4"]
)
def test_names_are_only_text(name: str):
    page = Page(render_html(example(), name))
    assert not page.all("script")
    assert name in page.text
    assert render_png(example(), name)


def test_what_is_unknown_is_left_out():
    nothing = example(
        verdict="inconclusive", fake_probability=None, windows=[], tracks=[],
        sync={"offset_ms": None, "confidence": None}, request_id="",
        media=EXAMPLE["media"] | {"audio_codec": None, "sample_rate": None},
    )  # fmt: skip
    page = Page(render_html(nothing))
    assert "key-frames" not in [section["id"] for section in page.all("section")]
    assert "No face was found" in page.text and "Request" not in page.text
    assert render_png(nothing)


def test_the_picture_can_be_opened():
    picture = Image.open(BytesIO(render_png(with_playback(), "talk.mp4")))
    assert picture.format == "PNG" and picture.width == 1200 and picture.height > 800


def test_an_hour_with_many_faces_stays_small():
    rng = np.random.default_rng(0)
    windows, tracks = [], []
    for track_id in range(30):
        begin = track_id * 120.0
        for i in range(600):
            start_s = begin + 0.2 * i
            windows.append(
                Window(
                    track_id=track_id,
                    start_s=start_s,
                    end_s=start_s + 1,
                    sync_score=rng.random(),
                    content_score=0.5,
                    offset_ms=40,
                    fake_probability=None if i % 50 == 0 else rng.random(),
                    speech=True,
                    note=None,
                )  # fmt: skip
            )
        tracks.append(
            Track(
                track_id=track_id,
                start_s=begin,
                end_s=begin + 120,
                box=(0, 0, 9, 9),
                speaking_share=1,
                fake_probability=0.99 if track_id == 17 else 0.1,
                offset_ms=40,
                windows=600,
            )  # fmt: skip
        )
    loud = [0.5] * 90_000
    playback = Playback(waveform=loud, speech=[(0, 3600)], step_s=0.2, places=[], key_frames=[])
    hour = example(windows=windows, tracks=tracks, playback=playback, media=EXAMPLE["media"] | {"duration_s": 3600})
    page = render_html(hour)
    assert len(page) < 2_000_000
    assert "24 more faces" in " ".join(Page(page).text.split())
    assert "0.99" in Page(page).text
    assert len(render_png(hour)) < 1_000_000
