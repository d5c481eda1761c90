"""The service over a real socket: answers, errors, limits, the line, starting and stopping."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGTERM
from threading import Event

import av
import httpx
import numpy as np
import pytest
from conftest import Live, open_files, running, wait_for, write_media
from standin import ANALYSIS, Held, StandIn, assert_problem, stand_in

from app.main import create_app
from app.problems import KINDS, ProblemDocument
from app.schemas import AnalysisResponse
from app.settings import MIB, Settings
from model import Analysis

ROOT = Path(__file__).parent.parent
BOUNDARY = "the-boundary"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FILE_HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n'.encode()
FORM_END = f"\r\n--{BOUNDARY}--\r\n".encode()


# --------------------------------------------------------------------------------------------------------------
# Answers
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_ms", [200, -240])
def test_the_offset_of_a_made_sample_is_found(live: Live, talk: Callable[[int], Path], offset_ms: int):
    response = live.analyze(talk(offset_ms), window_s=0.8, hop_s=0.4, max_faces=2)
    assert response.status_code == 200, response.text
    answer = response.json()

    assert list(answer) == [
        "request_id", "verdict", "fake_probability", "reasons", "sync", "windows", "tracks", "media", "model",
        "timing_ms", "warnings",
    ]  # fmt: skip
    assert answer["request_id"] == response.headers["x-request-id"]
    assert answer["verdict"] in ("real", "fake", "inconclusive")
    assert 0 <= answer["fake_probability"] <= 1
    assert answer["reasons"] and all(set(reason) == {"code", "detail"} for reason in answer["reasons"])
    assert abs(answer["sync"]["offset_ms"] - offset_ms) <= 80
    assert 0 <= answer["sync"]["confidence"] <= 1

    (track,) = answer["tracks"]
    assert set(track) == {
        "track_id", "start_s", "end_s", "box", "speaking_share", "fake_probability", "offset_ms", "windows",
    }  # fmt: skip
    left, top, width, height = track["box"]
    assert 0 <= left < left + width <= 512 and 0 <= top < top + height <= 600
    assert 0 <= track["speaking_share"] <= 1
    assert abs(track["offset_ms"] - offset_ms) <= 80

    windows = answer["windows"]
    assert len(windows) == track["windows"] > 5
    assert all(
        set(window)
        == {
            "track_id",
            "start_s",
            "end_s",
            "sync_score",
            "content_score",
            "offset_ms",
            "fake_probability",
            "speech",
            "note",
        }
        for window in windows
    )
    assert {window["track_id"] for window in windows} == {track["track_id"]}
    assert np.diff([window["start_s"] for window in windows]) == pytest.approx(0.4)
    assert [window["end_s"] - window["start_s"] for window in windows] == pytest.approx([0.8] * len(windows))
    assert sum(window["note"] is None for window in windows) > len(windows) / 2

    media = answer["media"]
    assert media.pop("duration_s") == pytest.approx(4, abs=0.1)
    assert len(media.pop("sha256")) == 64
    assert media == {
        "width": 512, "height": 600, "fps": 25, "video_codec": "h264", "audio_codec": "aac", "sample_rate": 48000,
    }  # fmt: skip
    assert set(answer["model"]) == {"alias", "name", "version", "device", "thresholds", "weights"}
    assert answer["model"]["device"] == "cpu"
    assert set(answer["timing_ms"]) == {"media", "faces", "detector", "total"}
    assert sum(answer["timing_ms"][stage] for stage in ("media", "faces", "detector")) <= answer["timing_ms"]["total"]
    assert answer["warnings"] == []


def test_the_hash_is_that_of_the_bytes_sent(live: Live, plain_video: Path):
    sha256 = hashlib.sha256(plain_video.read_bytes()).hexdigest()
    assert live.analyze(plain_video).json()["media"]["sha256"] == sha256


@pytest.mark.parametrize(("code", "audio"), [("no_face", True), ("no_audio", False)])
def test_a_video_that_says_nothing_is_inconclusive(live: Live, tmp_path: Path, code: str, audio: bool):
    answer = live.analyze(write_media(tmp_path / "v.mp4", audio=audio)).json()
    assert (answer["verdict"], answer["fake_probability"]) == ("inconclusive", None)
    assert code in [reason["code"] for reason in answer["reasons"]]
    assert answer["sync"] == {"offset_ms": None, "confidence": None}


@pytest.mark.parametrize(
    "name",
    ["../../../escaped.mp4", "/etc/passwd", "..\\..\\escaped.mp4", "%2e%2e%2fescaped.mp4", "-y", "a b;c`d`.mp4"],
)
def test_file_names_are_never_paths(live: Live, plain_video: Path, name: str):
    assert live.analyze(plain_video, name=name).status_code == 200
    assert not list(live.temp_dir.parent.rglob("*escaped*"))


def test_a_file_without_a_file_name_is_taken(live: Live, plain_video: Path):
    assert live.post("/v1/analyze", files={"file": (None, plain_video.read_bytes())}).status_code == 200


def test_request_ids_are_taken_over_when_sane(live: Live):
    def id_for(proposed: str) -> str:
        return live.get("/livez", headers={"X-Request-ID": proposed}).headers["x-request-id"]

    assert id_for("ticket-17.a_B") == "ticket-17.a_B"
    for insane in ("", "two words", "a" * 65, "<script>", "a/../b"):
        assert re.fullmatch("[0-9a-f]{32}", id_for(insane))
    response = live.get("/nowhere", headers={"X-Request-ID": "mine"})
    assert assert_problem(response, 404, "not_found")["request_id"] == "mine"


# --------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------


def test_unknown_addresses_and_methods(live: Live):
    assert_problem(live.get("/nowhere"), 404, "not_found")
    assert_problem(live.post("/v1/analyze/"), 404, "not_found")
    response = live.get("/v1/analyze")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert live.post("/v1/jobs/0").headers["allow"] == "DELETE, GET"


def test_a_form_is_needed(live: Live):
    url = "/v1/analyze"
    assert_problem(live.post(url, json={}), 415, "unsupported_content_type")
    assert_problem(live.post(url, data={"window_s": "1"}), 415, "unsupported_content_type")
    assert_problem(live.post(url, content=b"video"), 400, "malformed_request")
    for content_type in ("multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"):
        response = live.post(url, content=FILE_HEAD, headers={"Content-Type": content_type})
        assert_problem(response, 400, "malformed_request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        FILE_HEAD,
        FILE_HEAD + b"cut off",
        FILE_HEAD.replace(BOUNDARY.encode(), b"another"),
        FILE_HEAD.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 10_000 + b"\r\n\r\n") + FORM_END,
    ],
    ids=["empty", "text", "only head", "cut off", "another boundary", "huge header"],
)
def test_broken_forms(live: Live, body: bytes):
    response = live.post("/v1/analyze", content=body, headers={"Content-Type": FORM_TYPE})
    assert_problem(response, 400, "malformed_request")


def test_the_file_field(live: Live):
    def post(*parts: tuple[str, bytes]) -> httpx.Response:
        return live.post("/v1/analyze", files=[(name, ("v.mp4", content)) for name, content in parts])

    assert_problem(live.post("/v1/analyze", files={"hop_s": (None, "1")}), 400, "missing_file")
    assert_problem(post(("file", b"")), 400, "empty_file")
    assert_problem(post(("file", b"a"), ("file", b"b")), 400, "duplicate_field")
    assert "'video'" in assert_problem(post(("video", b"a")), 400, "unknown_field")["detail"]
    assert_problem(post(("file", b"a"), ("extra", b"b")), 400, "unknown_field")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window_s", "0.19"), ("window_s", "10.1"), ("window_s", "nan"), ("window_s", "inf"), ("window_s", ""),
        ("hop_s", "0"), ("hop_s", "-1"), ("hop_s", "fast"), ("hop_s", "1" * 100),
        ("max_faces", "0"), ("max_faces", "9"), ("max_faces", "1.5"), ("max_faces", "\xff"),
    ],
)  # fmt: skip
def test_bad_parameters(live: Live, plain_video: Path, name: str, value: str):
    problem = assert_problem(live.analyze(plain_video, **{name: value}), 422, "invalid_parameter")
    assert problem["detail"].startswith(f"{name}: ")


def test_a_parameter_may_be_given_once(live: Live, plain_video: Path):
    response = live.post("/v1/analyze", files={"file": plain_video.read_bytes()}, data={"hop_s": ["1", "2"]})
    assert_problem(response, 400, "duplicate_field")


def png(folder: Path) -> Path:
    """A still picture."""
    with av.open(str(folder / "still.png"), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    return folder / "still.png"


def text(folder: Path) -> Path:
    """A text file that calls itself a video."""
    (folder / "notes.mp4").write_text("Not a video.\n" * 100)
    return folder / "notes.mp4"


def playlist(folder: Path) -> Path:
    """A file that tells its reader to open another one."""
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "file:///etc/passwd", "#EXT-X-ENDLIST", ""]
    (folder / "list.m3u8").write_text("\n".join(lines))
    return folder / "list.m3u8"


def truncated(folder: Path) -> Path:
    """The first half of an MP4 file, without its index."""
    whole = write_media(folder / "whole.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    return folder / "half.mp4"


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        (text, 415, "not_media"),
        (png, 415, "not_media"),
        (playlist, 415, "not_media"),
        (lambda folder: write_media(folder / "voice.m4a", size=None), 422, "no_video_stream"),
        (truncated, 422, "corrupt_media"),
        (lambda folder: write_media(folder / "v.mp4", seconds=25, fps=2), 422, "too_long"),
        (lambda folder: write_media(folder / "v.mp4", seconds=0.2, size=(800, 600)), 422, "resolution_too_high"),
    ],
    ids=["text", "picture", "playlist", "audio only", "truncated", "too long", "too large a picture"],
)
def test_files_that_cannot_be_analysed(
    live: Live, tmp_path: Path, make: Callable[[Path], Path], status: int, code: str
):
    assert_problem(live.analyze(make(tmp_path)), status, code)


# --------------------------------------------------------------------------------------------------------------
# Uploads, byte by byte
# --------------------------------------------------------------------------------------------------------------


class Wire:
    """A connection on which a request is written by hand."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def head(self, **headers: object) -> None:
        """Begin ``POST /v1/analyze`` with a form."""
        lines = ["POST /v1/analyze HTTP/1.1", "Host: test", f"Content-Type: {FORM_TYPE}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self._socket.sendall(data)

    def send_chunk(self, data: bytes) -> None:
        """Write one chunk of a chunked body."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def answered(self) -> bool:
        """Whether an answer has begun to arrive."""
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(20)

    def closed(self) -> bool:
        """Whether the server has closed the connection; what it said before is thrown away."""
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def send_until_answered(self) -> None:
        """Write chunks until an answer begins to arrive, which must be before 64 MiB."""
        sent = 0
        while not self.answered():
            self.send_chunk(bytes(64 << 10))
            sent += 64 << 10
            assert sent < 64 * MIB

    def response(self) -> httpx.Response:
        """The answer, once all of it is there."""
        with self._socket.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            headers = httpx.Headers(
                [tuple(line.decode().strip().split(": ", 1)) for line in iter(answer.readline, b"\r\n")]
            )
            return httpx.Response(status, headers=headers, content=answer.read(int(headers["content-length"])))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.fixture
def wire(live: Live) -> Iterator[Wire]:
    """A connection to the real service."""
    wire = Wire(live.port)
    yield wire
    wire.close()


def test_an_upload_that_announces_too_much_is_refused_at_once(wire: Wire):
    wire.head(Content_Length=4 * MIB + 100_000)
    response = wire.response()
    assert "4 MiB" in assert_problem(response, 413, "upload_too_large")["detail"]
    assert response.headers["connection"] == "close"


def test_an_upload_is_refused_as_soon_as_it_is_too_large(wire: Wire):
    wire.head(Transfer_Encoding="chunked")
    wire.send_chunk(FILE_HEAD)
    wire.send_until_answered()
    assert_problem(wire.response(), 413, "upload_too_large")


def test_a_client_that_sends_on_still_sees_the_answer(live: Live):
    def body() -> Iterator[bytes]:
        yield FILE_HEAD
        for _ in range(1000):
            yield bytes(64 << 10)

    response = live.post("/v1/analyze", content=body(), headers={"Content-Type": FORM_TYPE})
    assert_problem(response, 413, "upload_too_large")


def test_bytes_around_the_form_count(wire: Wire):
    wire.head(Transfer_Encoding="chunked")
    wire.send_chunk(FILE_HEAD + b"x" + FORM_END)
    wire.send_until_answered()
    assert_problem(wire.response(), 413, "upload_too_large")


def test_a_file_of_just_the_limit_is_taken(live: Live):
    assert_problem(live.analyze(bytes(4 * MIB)), 415, "not_media")
    assert_problem(live.analyze(bytes(4 * MIB + 1)), 413, "upload_too_large")


def test_a_form_may_come_in_any_pieces(wire: Wire, plain_video: Path):
    body = FILE_HEAD + plain_video.read_bytes() + FORM_END.replace(b"--\r\n", b"\r\n")
    body += b'Content-Disposition: form-data; name="hop_s"\r\n\r\n1' + FORM_END
    wire.head(Transfer_Encoding="chunked")
    for start in range(0, len(body), 997):
        wire.send_chunk(body[start : start + 997])
    wire.send_chunk(b"")
    response = wire.response()
    assert response.status_code == 200
    assert response.json()["media"]["video_codec"] == "h264"


def test_a_client_that_hangs_up_leaves_nothing(live: Live, wire: Wire):
    wire.head(Content_Length=4 * MIB)
    wire.send(FILE_HEAD + bytes(1_500_000))
    wait_for(lambda: any(path.stat().st_size for path in live.uploads()))
    wire.close()
    wait_for(lambda: not live.uploads())
    assert live.get("/healthz").status_code == 200


# --------------------------------------------------------------------------------------------------------------
# With a stand-in for the science: starting, waiting, failing, stopping
# --------------------------------------------------------------------------------------------------------------


@contextmanager
def sent(live: Live, count: int) -> Iterator[list]:
    """So many analyses, asked for at once."""
    with ThreadPoolExecutor(count) as pool:
        yield [pool.submit(live.analyze, b"video") for _ in range(count)]


def test_nothing_is_taken_before_the_detector_is_loaded(tmp_path: Path):
    loaded = Event()

    def load(settings: Settings) -> StandIn:
        assert loaded.wait(30)
        return StandIn(settings, lambda *_: ANALYSIS)

    app = create_app(Settings(port=0, temp_dir=tmp_path), load=load)
    with running(app) as live:
        assert live.get("/livez").status_code == 200
        assert_problem(live.get("/healthz"), 503, "starting")
        assert_problem(live.analyze(b"video"), 503, "starting")
        loaded.set()
        wait_for(lambda: live.get("/healthz").status_code == 200)
        facts = {"name": "stand-in", "version": "0", "device": "cpu", "weights": {"w": "1234"}}
        model = {"alias": "default", **facts, "thresholds": {"real_below": 0.5, "fake_above": 0.5}}
        assert live.get("/healthz").json() == {"status": "ready", **facts, "models": [model]}
        assert live.analyze(b"video").status_code == 200


def test_a_detector_that_cannot_be_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def load(settings: Settings) -> StandIn:
        raise FileNotFoundError(f"no weights for {settings.device}")

    with running(create_app(Settings(port=0, temp_dir=tmp_path, device="cpu"), load=load)) as live:
        wait_for(lambda: live.get("/healthz").json()["code"] != "starting")
        assert "no weights" not in assert_problem(live.get("/healthz"), 503, "load_failed")["detail"]
        assert_problem(live.analyze(b"video"), 503, "load_failed")
        assert live.get("/livez").status_code == 200
    assert "no weights for cpu" in caplog.text


def test_the_file_and_the_parameters_reach_the_science(tmp_path: Path):
    calls = []

    def analyze(path: str, options: dict) -> Analysis:
        calls.append((Path(path).read_bytes(), options))
        return ANALYSIS

    with stand_in(tmp_path, analyze) as live:
        live.analyze(b"video", window_s=2, hop_s=0.5, max_faces=3)
        live.analyze(b"video")
    assert calls == [
        (b"video", {"window_s": 2.0, "hop_s": 0.5, "max_faces": 3, "playback": False}),
        (b"video", {"window_s": 1.0, "hop_s": 0.2, "max_faces": 4, "playback": False}),
    ]


def test_no_more_than_allowed_run_at_once(tmp_path: Path):
    held = Held()
    with stand_in(tmp_path, held, max_concurrent=2, max_waiting=3) as live, sent(live, 5) as answers:
        wait_for(lambda: len(live.uploads()) == 5 and held.begun == 2)
        held.let_go.set()
        assert [answer.result().status_code for answer in answers] == [200] * 5
        assert held.most == 2
        assert not live.uploads()


def test_beyond_the_line_a_request_is_refused_before_its_body_is_read(tmp_path: Path):
    held = Held()
    with stand_in(tmp_path, held, max_concurrent=1, max_waiting=1) as live, sent(live, 2) as answers:
        wait_for(lambda: len(live.uploads()) == 2)
        wire = Wire(live.port)
        wire.head(Content_Length=100_000_000, Expect="100-continue")
        assert_problem(wire.response(), 503, "busy")
        wire.close()
        assert live.get("/healthz").status_code == 200
        held.let_go.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
        assert live.analyze(b"video").status_code == 200


def test_a_client_that_hangs_up_leaves_the_line(tmp_path: Path):
    held = Held()
    with stand_in(tmp_path, held, max_concurrent=1, max_waiting=1) as live, sent(live, 1) as answers:
        wait_for(lambda: held.begun == 1)
        wire = Wire(live.port)
        body = FILE_HEAD + b"video" + FORM_END
        wire.head(Content_Length=len(body))
        wire.send(body)
        wait_for(lambda: len(live.uploads()) == 2)
        wire.close()
        wait_for(lambda: len(live.uploads()) == 1)
        with sent(live, 1) as more:
            wait_for(lambda: len(live.uploads()) == 2)
            held.let_go.set()
            assert [answer.result().status_code for answer in answers + more] == [200, 200]
        assert held.begun == 2


def test_a_client_that_hangs_up_while_its_video_is_analysed(tmp_path: Path):
    held = Held()
    with stand_in(tmp_path, held, max_concurrent=1, max_waiting=0) as live:
        wire = Wire(live.port)
        body = FILE_HEAD + b"video" + FORM_END
        wire.head(Content_Length=len(body))
        wire.send(body)
        wait_for(lambda: held.begun == 1)
        assert_problem(live.analyze(b"video"), 503, "busy")
        wire.close()
        wait_for(lambda: not live.uploads())
        held.let_go.set()
        assert live.analyze(b"video").status_code == 200


def test_an_analysis_that_takes_too_long_is_given_up(tmp_path: Path):
    held = Held()
    with stand_in(tmp_path, held, deadline_s=0.2) as live:
        assert "0.2 s" in assert_problem(live.analyze(b"video"), 504, "deadline_exceeded")["detail"]
        assert not live.uploads()
        held.let_go.set()


def test_an_upload_that_stalls_is_given_up(tmp_path: Path):
    with stand_in(tmp_path, lambda *_: ANALYSIS, upload_idle_s=0.3) as live:
        wire = Wire(live.port)
        wire.head(Content_Length=1000)
        wire.send(FILE_HEAD)
        assert "0.3 s" in assert_problem(wire.response(), 408, "upload_stalled")["detail"]
        wire.close()
        assert not live.uploads()


def test_an_upload_that_never_ends_is_given_up(tmp_path: Path):
    with stand_in(tmp_path, lambda *_: ANALYSIS, upload_s=0.5) as live:
        wire = Wire(live.port)
        wire.head(Content_Length=1000)
        wire.send(FILE_HEAD)
        while not wire.answered():
            wire.send(b"v")
            time.sleep(0.05)
        assert "0.5 s" in assert_problem(wire.response(), 408, "upload_stalled")["detail"]
        assert not live.uploads()


@pytest.mark.parametrize(
    "begin", [b"", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /h"]
)
def test_a_connection_without_a_whole_request_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes):
    monkeypatch.setattr("app.server.HEAD_S", 0.5)
    with stand_in(tmp_path, lambda *_: ANALYSIS) as live:
        wire = Wire(live.port)
        wire.send(begin)
        wait_for(wire.closed, seconds=3)


def test_a_request_with_an_endless_head_is_not_read(tmp_path: Path):
    with stand_in(tmp_path, lambda *_: ANALYSIS) as live:
        wire = Wire(live.port)
        wire.send(b"GET /healthz HTTP/1.1\r\nX: ")
        with pytest.raises(ConnectionError):
            for _ in range(64):
                wire.send(b"x" * MIB)
        assert live.get("/healthz").status_code == 200


def test_a_failure_stays_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def analyze(*_: object) -> Analysis:
        raise RuntimeError("a secret of the machine")

    with stand_in(tmp_path, analyze) as live:
        response = live.analyze(b"video")
        assert_problem(response, 500, "internal_error")
        assert "secret" not in response.text and "Traceback" not in response.text
        assert live.get("/healthz").status_code == 200
        assert not live.uploads()
    assert "a secret of the machine" in caplog.text


def test_stopping_answers_what_was_accepted_and_takes_no_more(tmp_path: Path):
    held = Held()
    with stand_in(tmp_path, held, max_concurrent=1) as live, sent(live, 2) as answers:
        wait_for(lambda: len(live.uploads()) == 2)
        live.stop()
        assert_problem(httpx.get(f"{live.url}/healthz"), 503, "draining")
        assert_problem(live.analyze(b"video"), 503, "draining")
        assert live.get("/livez").status_code == 200
        held.let_go.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
        wait_for(lambda: live.server.lifespan.shutdown_event.is_set())
    assert not live.server.cut_short


@pytest.mark.parametrize("told", [1, 2])
def test_stopping_waits_only_so_long(tmp_path: Path, told: int):
    held = Held()
    with ExitStack() as stack:
        live = stack.enter_context(stand_in(tmp_path, held, grace_s=0.2 if told == 1 else 1000))
        (answer,) = stack.enter_context(sent(live, 1))
        wait_for(lambda: held.begun == 1)
        for _ in range(told):
            live.stop()
        wait_for(lambda: live.server.lifespan.shutdown_event.is_set())
        held.let_go.set()
        assert_problem(answer.result(), 503, "draining")
    assert live.server.cut_short
    assert not live.uploads()


# --------------------------------------------------------------------------------------------------------------
# The process
# --------------------------------------------------------------------------------------------------------------


def test_the_process_starts_drains_and_logs(tmp_path: Path, plain_video: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    environment = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), "LIPSYNC_TEMP_DIR": str(uploads)}
    log = tmp_path / "log"

    def health() -> httpx.Response | None:
        try:
            return httpx.get(f"{url}/healthz")
        except httpx.ConnectError:
            return None

    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=stderr)
    try:
        wait_for(health, seconds=60)
        assert_problem(health(), 503, "starting")
        wait_for(lambda: health().status_code == 200, seconds=60)
        assert set(health().json()) == {"status", "name", "version", "device", "weights", "models"}

        wire = Wire(port)
        body = FILE_HEAD.replace(b"v.mp4", b"private-name.mp4") + plain_video.read_bytes() + FORM_END
        wire.head(Content_Length=len(body), X_Request_ID="the-last-one")
        wire.send(body[:1000])
        wait_for(lambda: open_files(uploads, process.pid))
        process.send_signal(SIGTERM)
        wait_for(lambda: health().status_code == 503)
        assert_problem(health(), 503, "draining")
        assert_problem(httpx.post(f"{url}/v1/analyze"), 503, "draining")
        wire.send(body[1000:])
        assert wire.response().json()["request_id"] == "the-last-one"
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert not list(uploads.iterdir())
    lines = log.read_text()
    assert re.search(r"INFO \[the-last-one\] app\.service: inconclusive", lines)
    assert "private-name" not in lines and "Traceback" not in lines


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"), ("LIPSYNC_MAX_UPLOAD_MB", "0"), ("LIPSYNC_TEMP_DIR", "/nowhere"), ("LIPSYNC_DEVICE", "tpu"),
        ("LIPSYNC_LOG_LEVEL", "chatty"), ("LIPSYNC_MAX_CONCURRENT", "-1"), ("LIPSYNC_GRACE_S", "nan"),
    ],
)  # fmt: skip
def test_wrong_settings_are_explained(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    from app.__main__ import main

    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert f"{name}={value}: " in stopped.value.code


def test_a_wrong_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    from app.__main__ import main

    monkeypatch.setenv("LIPSYNC_CALLBACK_SECRET", "whsec_dG9vIHNob3J0")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert "LIPSYNC_CALLBACK_SECRET=...: " in stopped.value.code and "dG9v" not in stopped.value.code


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    given = {"HOST": "::1", "PORT": "81", "LIPSYNC_MAX_UPLOAD_MB": "3", "LIPSYNC_TEMP_DIR": str(tmp_path)}
    for name, value in {**given, "LIPSYNC_LOG_LEVEL": "DEBUG", "LIPSYNC_MAX_DURATION_S": "5"}.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.port, settings.max_upload_mb) == ("::1", 81, 3)
    assert (settings.temp_dir, settings.log_level, settings.allowance.limits.max_duration_s) == (tmp_path, "debug", 5)


# --------------------------------------------------------------------------------------------------------------
# The documentation
# --------------------------------------------------------------------------------------------------------------


def test_the_documentation_has_every_problem_with_an_example(live: Live):
    document = live.get("/openapi.json").json()
    examples = {
        code: (int(status), example["value"])
        for path in document["paths"].values()
        for operation in path.values()
        for status, response in operation["responses"].items()
        for code, example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).items()
    }
    assert set(examples) == set(KINDS)
    for code, (status, example) in examples.items():
        assert (example["code"], example["status"]) == (code, status) == (code, KINDS[code].status)
        ProblemDocument.model_validate(example, strict=True)
    assert set(document["components"]["schemas"]["Problem"]["properties"]) == set(ProblemDocument.model_fields)
    assert "Retry-After" in document["paths"]["/v1/analyze"]["post"]["responses"]["503"]["headers"]


def test_the_documentation_explains_every_field(live: Live):
    document = live.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    form = document["paths"]["/v1/analyze"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"file", "window_s", "hop_s", "max_faces", "playback"}
    for schema in [form, *schemas.values()]:
        for name, field in schema["properties"].items():
            described = field.get("description") or schemas[field["$ref"].rsplit("/")[-1]].get("description")
            assert described, name
    (example,) = schemas["AnalysisResponse"]["examples"]
    assert json.loads(AnalysisResponse.model_validate(example).model_dump_json()) == example
    assert live.get("/docs").status_code == 200
