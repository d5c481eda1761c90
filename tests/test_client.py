"""The Python client, against the service over its socket and against stand-ins that misbehave."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from conftest import Live

from app.client import AsyncClient, Client, ServiceError
from app.schemas import EXAMPLE, AnalysisResponse, ProblemDocument, Progress, Window

PROBLEM = ProblemDocument(type="t", title="Busy", status=503, detail="Later.", code="busy", request_id="r")
RESULT = AnalysisResponse.model_validate(EXAMPLE)


def progress(share: float) -> Progress:
    return Progress(stage="watching", done_s=1, duration_s=2, share=share)


def sse(number: int, name: str, data: str) -> bytes:
    return f"id: {number}\r\nevent: {name}\r\ndata: {data}\r\n\r\n".encode()


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[str, list]]:
    """A server that gives these answers one after the other; its URL, and the requests that came."""
    left, requests = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append((self.command, self.path, self.headers, body))
            status, headers, content = left.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


BUSY: Answer = (503, {"Retry-After": "0"}, PROBLEM.model_dump_json().encode())
DONE: Answer = (200, {"Content-Type": "application/json"}, RESULT.model_dump_json().encode())


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "private name.mp4"
    path.write_bytes(b"video" * 100_000)
    return path


# --------------------------------------------------------------------------------------------------------------
# The service
# --------------------------------------------------------------------------------------------------------------


def test_an_analysis_is_followed(live: Live, talk: Callable[[int], Path]):
    events = []
    with Client(live.url) as client:
        answer = client.analyze(talk(200), on_event=events.append, hop_s=0.4, playback=True)
    assert abs(answer.sync.offset_ms - 200) <= 80
    assert answer.playback is not None
    shares = [event.share for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares) and len(shares) > 1


def test_problems_are_errors(live: Live, plain_video: Path, tmp_path: Path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with Client(live.url) as client:
        assert client.health().status == "ready"
        for follow in (None, lambda event: None):
            with pytest.raises(ServiceError) as refused:
                client.analyze(text, on_event=follow)
            assert (refused.value.code, refused.value.status) == ("not_media", 415)
            assert refused.value.problem.request_id and refused.value.detail
        with pytest.raises(ServiceError, match="invalid_parameter"), plain_video.open("rb") as opened:
            client.analyze(opened, window_s=99)
        with pytest.raises(ServiceError, match="job_not_found"):
            client.job("0" * 32)
        with pytest.raises(FileNotFoundError):
            client.analyze(tmp_path / "none.mp4")


def test_a_job_from_beginning_to_end(live: Live, plain_video: Path):
    with Client(live.url) as client:
        job = client.submit(plain_video, idempotency_key="one", window_s=2)
        assert client.submit(plain_video, idempotency_key="one", window_s=2).job_id == job.job_id
        events = []
        over = client.wait(job.job_id, on_event=events.append)
        assert over.state == "done" and over.result.verdict == "inconclusive"
        assert isinstance(events[0], Progress)
        assert isinstance(list(client.events(job.job_id))[-1], AnalysisResponse)
        client.forget(job.job_id)
        with pytest.raises(ServiceError, match="job_not_found"):
            client.job(job.job_id)


def test_the_same_with_asyncio(live: Live, plain_video: Path):
    async def use() -> None:
        async with AsyncClient(live.url) as client:
            assert (await client.health()).status == "ready"
            events = []
            answer = await client.analyze(plain_video, on_event=events.append)
            assert answer.verdict == "inconclusive" and events
            job = await client.submit(plain_video)
            assert (await client.wait(job.job_id)).result.media.sha256 == answer.media.sha256
            await client.forget(job.job_id)
            with pytest.raises(ServiceError, match="job_not_found"):
                await client.job(job.job_id)

    asyncio.run(use())


# --------------------------------------------------------------------------------------------------------------
# What may go wrong
# --------------------------------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_with_the_whole_file(video: Path):
    with answering(BUSY, BUSY, DONE) as (url, requests), Client(url, retries=2) as client:
        assert client.analyze(video, max_faces=2) == RESULT
    assert len(requests) == 3
    for _, _, _, body in requests:
        assert video.read_bytes() in body and b'name="max_faces"\r\n\r\n2\r\n' in body
        assert b"private" not in body


def test_but_not_for_ever(video: Path):
    with answering(BUSY, BUSY) as (url, requests), Client(url, retries=1) as client:
        with pytest.raises(ServiceError) as refused:
            client.analyze(video)
        assert (refused.value.code, refused.value.retry_after_s, len(requests)) == ("busy", 0, 2)


def test_asyncio_asks_again_too(video: Path):
    async def use(url: str) -> AnalysisResponse:
        async with AsyncClient(url, retries=1) as client:
            return await client.analyze(video)

    with answering(BUSY, DONE) as (url, _):
        assert asyncio.run(use(url)) == RESULT


def test_what_is_not_from_the_service_is_an_error_too():
    answers = answering((502, {}, b"<h1>Bad gateway</h1>"))
    refused = pytest.raises(ServiceError, match="http_502: 127.0.0.1 answered 502")
    with answers as (url, _), Client(url) as client, refused:
        client.health()


def ndjson(*events: tuple[str, object]) -> Answer:
    lines = "".join(json.dumps({"event": name, "data": data}) + "\n" for name, data in events)
    return 200, {"Content-Type": "application/x-ndjson"}, lines.encode()


def test_a_stream_tells_of_windows_and_ends_with_the_answer(video: Path):
    scored = {"windows": EXAMPLE["windows"]}
    stream = ndjson(("progress", progress(0.5).model_dump()), ("windows", scored), ("result", EXAMPLE))
    events = []
    with answering(stream) as (url, requests), Client(url) as client:
        assert client.analyze(video, on_event=events.append) == RESULT
    assert events == [progress(0.5), [Window.model_validate(window) for window in EXAMPLE["windows"]]]
    assert "application/x-ndjson" in requests[0][2]["Accept"]


@pytest.mark.parametrize("last", [[], [("problem", PROBLEM.model_dump())]])
def test_a_stream_may_end_without_an_answer(video: Path, last: list):
    stream = answering(ndjson(("progress", progress(0.5).model_dump()), *last))
    wrong = pytest.raises(ServiceError if last else httpx.TransportError)
    with stream as (url, _), Client(url) as client, wrong:
        client.analyze(video, on_event=lambda event: None)


@pytest.mark.parametrize("use_asyncio", [False, True])
def test_events_go_on_where_they_broke_off(monkeypatch: pytest.MonkeyPatch, use_asyncio: bool):
    monkeypatch.setattr("app.client.RECONNECT_S", 0.0)
    kind = {"Content-Type": "text/event-stream"}
    first = b": hello\n\n" + sse(1, "progress", progress(0.1).model_dump_json())
    second = sse(2, "progress", progress(0.2).model_dump_json())
    answers = (
        (200, kind, first + second[:-9]),
        (200, {**kind, "Content-Length": "9999"}, sse(2, "windows", '{"windows": []}') + sse(3, "unknown", "{}")),
        BUSY,
        (200, kind, sse(4, "problem", PROBLEM.model_dump_json())),
    )  # fmt: skip

    async def gather(url: str) -> list:
        async with AsyncClient(url) as client:
            return [event async for event in client.events("j")]

    with answering(*answers) as (url, requests):
        if use_asyncio:
            events = asyncio.run(gather(url))
        else:
            with Client(url) as client:
                events = list(client.events("j"))
    assert events == [progress(0.1), [], PROBLEM]
    assert [headers["Last-Event-ID"] for _, _, headers, _ in requests] == [None, "1", "3", "3"]
