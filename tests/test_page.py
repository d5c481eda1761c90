"""The page in a real browser, over the service with the real detector."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread

import av
import numpy as np
import pytest
from conftest import Live, wait_for, write_media
from test_pipeline import rewrite

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page, expect = sync_api.Page, sync_api.expect

CHROMIUM = shutil.which("chromium") or os.environ.get("LIPSYNC_CHROMIUM")
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ANALYSED_MS = 30_000

needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install it, or name it in LIPSYNC_CHROMIUM")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def visit(browser: sync_api.Browser, url: str, width: int = 1280) -> Iterator[Page]:
    """The page, just opened; nothing may be asked of anybody else, and the console has to stay silent."""
    context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert said == []
    assert {one for one in asked if not one.startswith((f"{url}/", f"blob:{url}/", "data:"))} == set()


def analyse(page: Page, video: Path) -> None:
    page.set_input_files("#file", video)
    expect(page.locator("#verdict-sentence")).to_be_visible(timeout=ANALYSED_MS)


def time_of(page: Page) -> float:
    return page.locator("#video").evaluate("video => video.currentTime")


@pytest.fixture(scope="module")
def judged(browser: sync_api.Browser, _real: Live, talk: Callable[[int], Path]) -> Iterator[Page]:
    """A page that shows a result."""
    with visit(browser, _real.url) as page:
        page.evaluate(
            """() => {
              window.heard = [];
              new MutationObserver(() => window.heard.push(document.querySelector("#work-now").textContent))
                .observe(document.querySelector("#work-now"), { childList: true });
            }"""
        )
        analyse(page, talk(200))
        expect(page.locator("#time")).to_contain_text("/ 0:04.0")
        page.locator("#video").evaluate("video => video.readyState > 1 || new Promise(r => (video.onloadeddata = r))")
        yield page


@needs_browser
def test_an_upload_is_followed_to_a_verdict_with_its_reasons(judged: Page):
    heard = judged.evaluate("() => window.heard")
    assert heard[0].startswith("Uploading") and any("Watching the faces" in text for text in heard)
    sentence = judged.inner_text("#verdict-sentence")
    assert sentence.startswith(("No sign of a lip-sync fake", "The evidence points to", "Inconclusive"))
    assert judged.inner_text("#spoken") == f"Done. {sentence}"
    assert judged.evaluate("() => document.activeElement.id") == "verdict-sentence"
    expect(judged.locator("#reasons")).to_contain_text("ms late throughout")
    expect(judged.locator("#advice li").first).to_be_visible()
    expect(judged.locator("#moments button").first).to_contain_text("Face 1")


@needs_browser
def test_a_click_on_a_chart_and_on_a_moment_seeks(judged: Page):
    plot = judged.locator(".lane .u-over").nth(1)
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] * 0.75, "y": 20})
    assert time_of(judged) == pytest.approx(3, abs=0.1)
    judged.locator("#moments button").first.click()
    assert judged.inner_text("#moments span").startswith(f"0:0{time_of(judged):.1f}")


@needs_browser
def test_the_keyboard_plays_and_goes_from_window_to_window(judged: Page):
    judged.locator("#seek").focus()
    judged.keyboard.press("Home")
    for key in ("ArrowRight", "Shift+ArrowRight", "ArrowLeft"):
        judged.keyboard.press(key)
    assert time_of(judged) == pytest.approx(1.0, abs=0.01)
    assert judged.get_attribute("#seek", "aria-valuetext") == "0:01.0 of 0:04.0"
    judged.keyboard.press("Space")
    expect(judged.locator("#play")).to_have_text("Pause")
    judged.keyboard.press("Space")
    expect(judged.locator("#play")).to_have_text("Play")


@needs_browser
def test_charts_boxes_and_the_mouth_are_drawn(judged: Page):
    colours = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    for canvas in ("#boxes", ".mouth", ".lane .uplot canvas"):
        assert judged.locator(canvas).first.evaluate(colours) > 5, canvas


@needs_browser
def test_charts_can_be_looked_at_closer(judged: Page):
    plot = judged.locator(".lane .u-over").nth(1)
    box = plot.bounding_box()
    judged.click("#zoom-in")
    judged.click("#zoom-in")
    plot.click(position={"x": box["width"] / 2, "y": 20})
    at_middle = time_of(judged)
    plot.click(position={"x": box["width"] - 1, "y": 20})
    assert time_of(judged) - at_middle == pytest.approx(0.5, abs=0.05)
    judged.click("#zoom-all")
    plot.click(position={"x": 3, "y": 20})
    assert time_of(judged) < 0.1


@needs_browser
def test_the_table_has_every_window(judged: Page):
    judged.click("#table summary")
    rows = judged.locator("#rows tr")
    expect(rows).to_have_count(16)
    shares = [float(text) for text in judged.locator("#rows td:nth-child(3)").all_inner_texts() if text != "–"]
    assert shares == sorted(shares, reverse=True)
    judged.select_option("#table-order", "time")
    rows.nth(3).locator("button").click()
    assert time_of(judged) == pytest.approx(1.1, abs=0.01)


@needs_browser
def test_the_answer_and_a_report_can_be_kept(judged: Page):
    def kept(button: str) -> tuple[str, str]:
        with judged.expect_download() as download:
            judged.click(button)
        return download.value.suggested_filename, Path(download.value.path()).read_text()

    name, text = kept("#save-json")
    assert name == "200.lipsync.json" and json.loads(text)["media"]["duration_s"] == pytest.approx(4, abs=0.1)
    name, text = kept("#save-report")
    assert name == "200.lipsync.html" and text.lower().startswith("<!doctype html>")
    assert "Most suspicious moments" in text and "SHA-256" in text


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_sideways_scrolling(judged: Page, scheme: str):
    judged.emulate_media(color_scheme=scheme)
    judged.set_viewport_size({"width": 320, "height": 640})
    assert judged.evaluate("() => document.documentElement.scrollWidth") == 320
    judged.set_viewport_size({"width": 1280, "height": 900})


@needs_browser
def test_a_file_that_is_no_video_is_explained_and_another_can_be_tried(
    browser: sync_api.Browser, live: Live, tmp_path: Path
):
    (tmp_path / "notes.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").touch()
    with visit(browser, live.url) as page:
        page.set_input_files("#file", tmp_path / "empty.mp4")
        expect(page.locator("#problem")).to_contain_text("has no bytes")
        page.set_input_files("#file", tmp_path / "notes.mp4")
        expect(page.locator("#problem-title")).to_have_text("Not a media file", timeout=ANALYSED_MS)
        expect(page.locator("#problem-detail")).to_contain_text("not a video in any known container")
        assert page.evaluate("() => document.activeElement.id") == "problem"
        analyse(page, write_media(tmp_path / "plain.mp4"))
        expect(page.locator("#problem")).to_be_hidden()
        expect(page.locator("#verdict-sentence")).to_contain_text("Inconclusive")
        expect(page.locator("#advice-title")).to_have_text("What is missing")


@needs_browser
def test_what_is_too_large_is_not_even_sent(browser: sync_api.Browser, live: Live, tmp_path: Path):
    (tmp_path / "large.mp4").write_bytes(bytes(9 << 20))
    with visit(browser, live.url) as page:
        expect(page.locator("#limits")).to_contain_text("8 MiB")
        page.set_input_files("#file", tmp_path / "large.mp4")
        expect(page.locator("#problem")).to_contain_text("the limit is 8 MiB")


@needs_browser
def test_every_face_has_its_lane_and_a_picture_that_can_not_be_shown_is_no_obstacle(
    browser: sync_api.Browser, live: Live, talk: Callable[[int], Path], tmp_path: Path
):
    with av.open(str(talk(0))) as video:
        still = next(video.decode(video=0)).to_ndarray(format="rgb24")[:, 100:400]
    two = rewrite(talk(0), tmp_path / "two.mp4", picture=lambda i, rgb: np.hstack([still, rgb[:, 100:400]])[40:560])
    with visit(browser, live.url) as page:
        analyse(page, two)
        assert sorted(page.locator(".lane h3").all_inner_texts()) == ["Face 1", "Face 2", "Voice"]
        expect(page.locator(".lane-head").nth(1)).to_contain_text("of the speech")
        page.click("#again")
        analyse(page, write_media(tmp_path / "old.avi"))
        expect(page.locator("#no-picture")).to_contain_text("can't show the picture")
        expect(page.locator(".lane h3")).to_have_text(["Voice"])
        page.keyboard.press("Shift+ArrowRight")
        expect(page.locator("#time")).to_contain_text("0:01.0 /")


@needs_browser
def test_an_analysis_can_be_called_off(browser: sync_api.Browser, live: Live, tmp_path: Path):
    long = write_media(tmp_path / "long.mp4", seconds=20)
    with visit(browser, live.url) as page:
        with page.expect_response("**/v1/jobs") as sent:
            page.set_input_files("#file", long)
        job = sent.value.headers["location"]
        page.click("#cancel")
        expect(page.locator("#start-title")).to_be_visible()
        page.wait_for_timeout(200)
    assert live.get(job).status_code == 404


@contextmanager
def holding_answers(live: Live) -> Iterator[tuple[str, Event]]:
    """The service by another address, where its answers wait for the event."""
    let_go = Event()
    let_go.set()

    def carry(source: socket.socket, sink: socket.socket, when: Callable[[], object]) -> None:
        with suppress(OSError):
            while some := source.recv(1 << 16):
                when()
                sink.sendall(some)
            sink.shutdown(socket.SHUT_WR)

    class Connection(BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", live.port)) as service:
                Thread(target=carry, args=(service, self.request, let_go.wait), daemon=True).start()
                carry(self.request, service, lambda: None)

    with ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", let_go
        let_go.set()
        server.shutdown()


@needs_browser
def test_an_upload_that_is_called_off_too_late_leaves_no_job(browser: sync_api.Browser, live: Live, tmp_path: Path):
    long = write_media(tmp_path / "long.mp4", seconds=20)
    with holding_answers(live) as (url, let_go), visit(browser, url) as page:
        let_go.clear()
        page.set_input_files("#file", long)
        expect(page.locator("#work-now")).to_have_text("Uploaded …")
        page.wait_for_timeout(500)
        page.click("#cancel")
        with page.expect_response("**/v1/jobs") as sent:
            let_go.set()
        wait_for(lambda: live.get(sent.value.headers["location"]).status_code == 404)


def test_the_page_is_served_with_care(live: Live):
    page = live.get("/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["referrer-policy"] == "no-referrer"
    assert live.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    assert "javascript" in live.get("/page/page.js").headers["content-type"]
    for unknown in ("/page/", "/page/nothing.js", "/page/..%2fmain.py", "/page/%2e%2e/main.py", "/page/vendor"):
        assert live.get(unknown).status_code == 404
    assert not [path for path in live.get("/openapi.json").json()["paths"] if path == "/" or path.startswith("/page")]


@needs_browser
def test_a_page_that_is_loaded_anew_finds_its_result_again(browser: sync_api.Browser, live: Live, talk):
    with visit(browser, live.url) as page:
        analyse(page, talk(200))
        sentence = page.locator("#verdict-sentence").inner_text()
        page.reload()
        expect(page.locator("#verdict-sentence")).to_have_text(sentence, timeout=ANALYSED_MS)
        expect(page.locator("#no-picture")).to_contain_text("did not keep the video")
        page.click("#again")
        page.reload()
        expect(page.locator("#drop")).to_be_visible()
        assert "#" not in page.url
